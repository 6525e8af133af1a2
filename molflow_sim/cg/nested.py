"""YAML settings that hold other settings."""

from __future__ import annotations

from typing import Any, Self, get_type_hints

from molflow_sim.training.settings import YamlSettings


class NestedSettings(YamlSettings):
    """As `YamlSettings`, with a mapping for each field that holds settings itself."""

    @classmethod
    def from_dict(cls, data: Any, where: str = "settings") -> Self:
        """Build from a mapping of mappings; what they leave out keeps its default.

        Raises
        ------
        InputError
            As `YamlSettings.from_yaml`, with the names of the fields that lead to the value.
        """
        if isinstance(data, dict):
            hints = get_type_hints(cls)
            data = {name: _built(hints.get(name), value, f"{where}: {name}") for name, value in data.items()}
        return super().from_dict(data, where)


def _built(kind: Any, value: Any, where: str) -> Any:
    nested = isinstance(kind, type) and issubclass(kind, YamlSettings) and not isinstance(value, kind)
    return kind.from_dict(value, where) if nested else value
