"""Things by name: built-in ones, and those that other packages add through entry points, imported when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from hashlib import sha256
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from molflow_sim.errors import InputError, PluginError

T = TypeVar("T")
OURS = "molflow-sim"


@dataclass(frozen=True)
class Registry:
    """Names for one sort of thing.

    Attributes
    ----------
    what : str
        The sort, for messages: "generator".
    group : str
        Entry-point group in which other packages name theirs.
    builtin : mapping of str to str
        Our own: name to "module:attribute".
    """

    what: str
    group: str
    builtin: Mapping[str, str]

    def entries(self) -> list[tuple[str, str, str]]:
        """(name, "module:attribute", package with its version) of all there are; nothing is imported."""
        ours = [(name, target, OURS) for name, target in self.builtin.items()]
        found = entry_points(group=self.group)
        theirs = {(e.name, e.value, f"{e.dist.name} {e.dist.version}" if e.dist else "") for e in found}
        return ours + sorted(theirs)

    def names(self, kind: str = "") -> list[str]:
        """The names, or what follows "kind/" in those that begin so; ours first."""
        head = f"{kind}/" if kind else ""
        return list(dict.fromkeys(name[len(head) :] for name, _, _ in self.entries() if name.startswith(head)))

    def get(self, name: str) -> Any:
        """The thing of a name.

        Raises
        ------
        InputError
            An unknown name; the message lists those there are.
        PluginError
            Two of that name, or one that cannot be imported.
        """
        target, package = self._entry(name)
        try:
            return resolve(target)
        except (Exception, SystemExit) as error:  # a plug-in may fail in any way
            what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise PluginError(f"the {self.what} {name!r} of {package} cannot be imported: {what}") from error

    def make(self, name: str, options: Mapping[str, Any]) -> Any:
        """An object of the (dataclass) type of a name, with options that it has.

        Raises
        ------
        InputError, PluginError
            As `get`, or an option that it does not have or cannot take.
        """
        cls = self.get(name)
        if not (isinstance(cls, type) and is_dataclass(cls)):
            raise PluginError(f"the {self.what} {name!r} of {self._entry(name)[1]} is not a dataclass")
        return build(cls, options, name)

    def origin(self, name: str) -> str:
        """What results of a plug-in depend on: its package, version and a hash of its module; "" for our own."""
        target, package = self._entry(name)
        if package == OURS:
            return ""
        source = getattr(import_module(target.partition(":")[0]), "__file__", None)
        return f"{package}+{sha256(Path(source).read_bytes()).hexdigest()[:8]}" if source else package

    def _entry(self, name: str) -> tuple[str, str]:
        found = [(target, package) for known, target, package in self.entries() if known == name]
        if len(found) == 1:
            return found[0]
        if found:
            claims = " and ".join(f"{target} of {package}" for target, package in found)
            raise PluginError(f"two {self.what}s are called {name!r}: {claims}; uninstall one of them")
        kind, slash, own = name.rpartition("/")
        others = ", ".join(self.names(kind if slash else ""))
        raise InputError(f"unknown {self.what} {own!r}; choose from {others or 'none that are installed'}")


GENERATORS = Registry(
    "generator",
    "molflow.generators",
    {
        "crystals/random": "molflow_sim.generators.crystals:RandomGenerator",
        "crystals/flow": "molflow_sim.models.crystal_flow.generator:FlowGenerator",
        "crystals/mixed": "molflow_sim.generators.crystals:MixedGenerator",
        "crystals/mol-crystal-flow": "molflow_sim.models.mol_crystal_flow.generator:MolCrystalFlowGenerator",
        "crystals/cluster-flow": "molflow_sim.models.cluster_flow.crystals:ClusterFlowCrystals",
        "clusters/random": "molflow_sim.generators.clusters:RandomClusters",
        "clusters/packmol": "molflow_sim.generators.clusters:PackmolClusters",
        "clusters/crystal-flow": "molflow_sim.generators.clusters:CrystalFlowClusters",
        "clusters/dual-scale": "molflow_sim.models.dual_scale.generator:DualScaleGenerator",
        "clusters/cluster-flow": "molflow_sim.models.cluster_flow.generator:ClusterFlowGenerator",
        "conformers/etkdg": "molflow_sim.generators.conformers:EtkdgConformers",
        "conformers/mmff": "molflow_sim.generators.conformers:MmffConformers",
        "conformers/coarsenconf": "molflow_sim.models.coarsenconf.generator:CoarsenConfGenerator",
        "conformers/torsions": "molflow_sim.generators.torsions:TorsionConformers",
        "conformers/mixed": "molflow_sim.generators.mixed_conformers:MixedConformers",
    },
)
"""Generators, see `molflow_sim.generators.protocol`: "kind of structure/method"."""
MODELS = Registry(
    "model",
    "molflow.models",
    {
        "crystal-flow": "molflow_sim.models.crystal_flow:CrystalFlow",
        "mol-crystal-flow": "molflow_sim.models.mol_crystal_flow:MolCrystalFlow",
        "dual-scale": "molflow_sim.models.dual_scale:DualScale",
        "cluster-flow": "molflow_sim.models.cluster_flow:ClusterFlow",
        "coarsenconf": "molflow_sim.models.coarsenconf:CoarsenConf",
        "cgnet": "molflow_sim.cg.student.cgnet:CGNet",
    },
)
"""Networks with weights, see `molflow_sim.training.model`."""
ENERGIES = Registry(
    "energy model",
    "molflow.energies",
    {"gfn2-xtb": "molflow_sim.energies.foreign:gfn2_xtb", "gfn1-xtb": "molflow_sim.energies.foreign:gfn1_xtb"},
)
"""Functions that give an ASE calculator or torch-sim model to rank by, see `molflow_sim.energies.foreign`."""


def resolve(target: Any) -> Any:
    """The object that "module:attribute" names; anything else as it is."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute.split(" ")[0])


def build(cls: type[T], data: Any, where: str) -> T:
    """An object of a dataclass from a mapping, checked against its fields.

    A field that is a dataclass itself takes a mapping; what that leaves out keeps the field's default.

    Parameters
    ----------
    cls : type
    data : mapping of str to values
    where : str
        Where the values come from, for messages.

    Raises
    ------
    InputError
        Something else than a mapping, an unknown name, or a value of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: expected a mapping of names to values")
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(map(str, data)) - known):
        raise InputError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known)) or 'none'}")
    hints = get_type_hints(cls)
    values = {}
    for name, value in data.items():
        kind = hints[name]
        if is_dataclass(kind) and not isinstance(value, kind):  # type: ignore[arg-type]
            given = {**asdict(getattr(cls(), name)), **value} if isinstance(value, Mapping) else value
            value = build(kind, given, f"{where}: {name}")  # type: ignore[arg-type]
        kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        if float in kinds and int not in kinds and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(value, list):
            value = tuple(value)
        plain = all(isinstance(k, type) for k in kinds)
        if plain and (not isinstance(value, kinds) or (kind is int and isinstance(value, bool)) or value != value):
            raise InputError(f"{where}: {name} must be {' or '.join(k.__name__ for k in kinds)}, got {value!r}")
        values[name] = value
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:  # a field without a default that was not given, words for numbers
        raise InputError(f"{where}: {error}") from None
