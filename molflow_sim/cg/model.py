"""The model folder: the flow (teacher) and the force field (student) of one molecule, each tensors and a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from molflow_sim.cg.forcefield import ForceField
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import MappingError, WeightsError
from molflow_sim.runs.files import sha256
from molflow_sim.training.model import model_class
from molflow_sim.training.weights import load_weights, read_card, save_weights

if TYPE_CHECKING:
    from molflow_sim.cg.teacher.flow import BeadFlow

TEACHER, STUDENT = "teacher", "student"
_DIGEST = "content_sha256"


class ModelFolder:
    """A folder with ``teacher.safetensors``, ``student.safetensors`` and their cards (JSON).

    The tensors are checked against the SHA-256 in their card, and the card's content against its own. Nothing in the
    folder is a pickle, so that models of others can be read safely.

    Parameters
    ----------
    path : path
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def save_teacher(self, flow: BeadFlow, notes: Mapping[str, Any] | None = None) -> None:
        """Write the flow; `notes` (for JSON) go into its card.

        Raises
        ------
        WeightsError
            Weights that are not finite.
        """
        self._save(TEACHER, *flow.state(), notes)

    def load_teacher(self) -> BeadFlow:
        """The flow.

        Raises
        ------
        WeightsError
            Missing, changed or truncated files, or something else in them.
        """
        from molflow_sim.cg.teacher.flow import BeadFlow

        return BeadFlow.from_state(*self._load(TEACHER))

    def save_student(self, force_field: ForceField, notes: Mapping[str, Any] | None = None) -> None:
        """Write the force field; `notes` (for JSON) go into its card.

        Raises
        ------
        WeightsError
            Weights that are not finite.
        """
        self._save(STUDENT, *force_field.state(), notes)

    def load_student(self) -> ForceField:
        """The force field, of the class that its card names.

        Raises
        ------
        WeightsError
            Missing, changed or truncated files, an unknown kind, or something else in them.
        """
        tensors, card = self._load(STUDENT)
        made: ForceField = model_class(str(card.get("kind"))).from_state(tensors, card)
        return made

    def load_topology(self) -> BeadTopology:
        """The beads, from the card of the student or else of the teacher.

        Raises
        ------
        WeightsError
            Neither is there, or a changed card.
        """
        name = STUDENT if (self.path / f"{STUDENT}.json").exists() else TEACHER
        card = _checked(read_card(self.path, name), self.path / f"{name}.json")
        try:
            return BeadTopology.from_json(card["topology"])
        except (KeyError, TypeError, MappingError) as error:
            raise WeightsError(f"{self.path / name}.json names no beads: {error}") from None

    def _save(
        self, name: str, tensors: Mapping[str, Tensor], card: Mapping[str, Any], notes: Mapping[str, Any] | None
    ) -> None:
        content = {**card, "notes": dict(notes or {})}
        save_weights(self.path, name, tensors, {**content, _DIGEST: _digest(content)})

    def _load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, card = load_weights(self.path, name)
        return tensors, _checked(card, self.path / f"{name}.json")


def _digest(content: Mapping[str, Any]) -> str:
    # Through JSON once, so that tuples and lists are the same.
    return sha256(json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode())


def _checked(card: dict[str, Any], path: Path) -> dict[str, Any]:
    content = {key: value for key, value in card.items() if key not in ("format", "version", "sha256", _DIGEST)}
    if card.get(_DIGEST) != _digest(content):
        raise WeightsError(f"{path} was changed after it was written; copy or train the model again")
    return content
