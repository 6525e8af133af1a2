"""Energy models by name, and means of them.

==============================  ==========================================================================
``best``                        ``mean(2*fit-hf,so3lr,aimnet2)``, or what is left of it for a molecule (`Best`)
``fit``                         this package's force field between the molecules: exp-6 and charges
``fit-hf``                      the same exp-6, with charges on atoms and beside them fitted to HF/6-31G* potentials
``potential``                   ``fit`` with MMFF94 inside the molecules
``so3lr``                       SO3LR, a pretrained network for H, C, N, O, F, P, S and Cl
``aimnet2``                     AIMNet2, a pretrained network for molecules alone: in means, inside the molecules
``gfn2-xtb``, ``mace:FILE`` ... see `molflow_sim.energies.foreign`
``mean(a,b,...)``               the mean of several, ``2*a`` counting twice: between molecules that of all, inside them
                                that of those which say something about it (``fit`` does not)
==============================  ==========================================================================

All are single points on structures as they are, per molecule. Zeros differ from model to model: only differences
between structures of one molecule mean anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch_sim

from molflow_sim.energies import foreign
from molflow_sim.errors import (
    InputError,
    MissingDependencyError,
    MolflowError,
    NonFiniteError,
    ParameterError,
    UnsupportedElementError,
)
from molflow_sim.forcefield.aimnet2 import SHA256 as AIMNET2
from molflow_sim.relax.symmetry import orbits as orbits_of
from molflow_sim.so3lr.weights import SHA256
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.forcefield.parameters import MoleculeParameters
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule

FALLBACK = "potential"
"""What ranks where ``best`` has no energy inside the molecules."""


@dataclass(frozen=True)
class Best:
    """What ``best`` stands for: the members it has. See docs/methods/energies.md for what each is good for.

    Attributes
    ----------
    charges : bool
        Charges beside the atoms, `MMFF94`'s otherwise.
    so3lr, aimnet2 : bool
        The networks; without either it is `FALLBACK`.
    """

    charges: bool = True
    so3lr: bool = True
    aimnet2: bool = True

    @property
    def spec(self) -> str:
        """As ``--energy`` takes it."""
        if not (self.so3lr or self.aimnet2):
            return FALLBACK
        fit = ("2*fit-hf" if self.so3lr else "fit-hf") if self.charges else "fit"
        return f"mean({','.join([fit, *['so3lr'] * self.so3lr, *['aimnet2'] * self.aimnet2])})"


BESTS = {
    best.spec: best for best in (Best(*have) for have in product((True, False), repeat=3)) if best.spec != FALLBACK
}
"""All that ``best`` may stand for beside `FALLBACK`; `molflow_sim.energies.EnsemblePotential` relaxes on each."""
DISAGREEMENT = (40.0 * KJ_PER_MOL, 0.75)
"""Members of a mean may differ in the energy between molecules by 40 kJ/mol and 75 % of the larger one."""


@dataclass(frozen=True)
class Value:
    """Energy of one structure, eV per molecule.

    Attributes
    ----------
    energy : float
        NaN where there is none.
    parts : dict
        Energy by member of a mean, the energy inside the molecules being that of the mean.
    intermolecular : dict
        Energy between the molecules by member, where the member tells it.
    inside : float
        Energy inside the molecules; NaN where the model has none, or does not tell it apart.
    reason : str
        Why there is no energy, or why not to believe it.
    between : float
        Energy between the molecules; NaN where the model does not tell it apart.
    """

    energy: float
    parts: dict[str, float] = field(default_factory=dict)
    intermolecular: dict[str, float] = field(default_factory=dict)
    inside: float = float("nan")
    reason: str = ""
    between: float = float("nan")


class Energy(Protocol):
    """What ranks structures."""

    @property
    def spec(self) -> str:
        """The name it is asked for by."""

    @property
    def name(self) -> str:
        """For tables."""

    @property
    def inside_only(self) -> bool:
        """Whether it says nothing about the energy between molecules."""

    def check(self, molecule: Molecule) -> None:
        """Refuse a molecule that cannot be done (MolflowError)."""

    def evaluate(self, crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters | None) -> list[Value]:
        """Energies of crystals of one molecule; a failure is a value with a reason."""


@dataclass(frozen=True)
class FitEnergy:
    """This package's force field, with the energy inside the molecules or without, or with charges beside the atoms."""

    spec: str
    name: str
    inside: bool = False
    sites: bool = False
    inside_only = False

    def check(self, molecule: Molecule) -> None:
        """Refuse a molecule without parameters, or too large for Hartree-Fock."""
        from molflow_sim.forcefield import parametrize
        from molflow_sim.forcefield.sites import checked_size

        if self.sites:
            if not find_spec("pyscf"):
                raise MissingDependencyError("pyscf")
            checked_size(molecule)
        parametrize(molecule)

    def evaluate(self, crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters | None) -> list[Value]:
        """See `Energy`."""
        from molflow_sim.forcefield import CrystalPotential, SitePotential, charge_sites, parametrize

        table = parameters or parametrize(crystals[0].molecules[0])
        if self.sites and table.sites is None:
            table = replace(table, sites=charge_sites(crystals[0].molecules[0]))
        potential = SitePotential([table]) if self.sites else CrystalPotential([table])
        potential.compute_forces = potential.compute_stress = False
        out = []
        for crystal in crystals:
            state = torch_sim.initialize_state([crystal.to_ase()], potential.device, potential.dtype)
            potential.forget()
            found = potential(state)
            inter = float(found["intermolecular_energy"]) / crystal.z
            inside = float(found["intramolecular_energy"]) / crystal.z if self.inside else float("nan")
            total = inter + inside if self.inside else inter
            out.append(Value(total, {self.spec: total}, {self.spec: inter}, inside, potential.torn, inter))
        return out


@dataclass(frozen=True)
class SO3LREnergy:
    """SO3LR; zero is that of its atomic energies, the same for all structures of a molecule."""

    spec: str = "so3lr"
    name: str = "SO3LR"
    inside_only = False

    def check(self, molecule: Molecule) -> None:
        """Refuse elements that it does not know, and a missing wheel."""
        from molflow_sim.so3lr.potential import check_elements
        from molflow_sim.so3lr.weights import weights_file

        check_elements(np.asarray(molecule.numbers))
        weights_file()

    def evaluate(
        self, crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters | None = None
    ) -> list[Value]:
        """See `Energy`."""
        from molflow_sim.so3lr.potential import SO3LR, Orbits

        model = _so3lr(SO3LR)
        numbers, positions, orbits, alone = [], [], [], []
        for crystal in crystals:
            z, x, molecule, _ = crystal.unit_cell()
            try:
                symmetry = orbits_of(crystal)
            except MolflowError:
                symmetry = Orbits.identity(len(z))
            numbers.append(z)
            positions.append(x)
            orbits.append(symmetry)
            first = np.searchsorted(molecule, np.arange(crystal.z + 1))
            alone.append([(z[first[m] : first[m + 1]], x[first[m] : first[m + 1]]) for m in _one_of_each(crystal)])
        cells = [crystal.cell for crystal in crystals]
        whole = model.evaluate(numbers, positions, cells, orbits, gradients=False)
        parts = [part for parts in alone for part in parts]
        free = iter(model.evaluate([z for z, _ in parts], [x for _, x in parts], gradients=False))
        out = []
        for crystal, found, parts in zip(crystals, whole, alone):
            own = [next(free)[0] for _ in parts]
            weights = [len(rigid.images) for rigid in crystal.asymmetric_unit]
            shift = float(model.weights.shift[np.asarray(parts[0][0]) - 1].sum())
            total = found[0] / crystal.z - shift
            inside = float(np.dot(own, weights)) / crystal.z - shift
            between = total - inside
            out.append(Value(total, {self.spec: total}, {self.spec: between}, inside, between=between))
        return out


@lru_cache(maxsize=1)
def _so3lr(kind: Any) -> Any:
    return kind()


def _one_of_each(crystal: MolecularCrystal) -> list[int]:
    """Position in the unit cell of the first copy of each molecule of the asymmetric unit."""
    counts = [len(rigid.images) for rigid in crystal.asymmetric_unit]
    return [0, *np.cumsum(counts)[:-1].tolist()]


@dataclass(frozen=True)
class AIMNet2Energy:
    """AIMNet2 of the molecules alone; zero is that of nuclei and electrons apart."""

    spec: str = "aimnet2"
    name: str = "AIMNet2"
    inside_only = True

    def check(self, molecule: Molecule) -> None:
        """Refuse elements that it does not know, and a missing wheel."""
        from molflow_sim.forcefield.aimnet2 import check_elements, weights_file

        check_elements(np.asarray(molecule.numbers))
        weights_file()

    def evaluate(
        self, crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters | None = None
    ) -> list[Value]:
        """See `Energy`."""
        from molflow_sim.forcefield.aimnet2 import AIMNet2

        model = AIMNet2(np.asarray(crystals[0].molecules[0].numbers))
        out = []
        for crystal in crystals:
            _, x, molecule, _ = crystal.unit_cell()
            weights = [len(rigid.images) for rigid in crystal.asymmetric_unit]
            try:
                inside = float(
                    np.average([model.energy(x[molecule == m]) for m in _one_of_each(crystal)], weights=weights)
                )
                out.append(Value(inside, {self.spec: inside}, inside=inside))
            except NonFiniteError as error:
                out.append(Value(float("nan"), reason=error.reason))
        return out


@dataclass(frozen=True)
class ForeignEnergy:
    """A model of another package, see `molflow_sim.energies.foreign`."""

    spec: str
    name: str
    model: foreign.EnergyModel
    inside_only = False

    def check(self, molecule: Molecule) -> None:
        """Nothing is known of it before it is asked."""

    def evaluate(
        self, crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters | None = None
    ) -> list[Value]:
        """See `Energy`."""
        out = []
        for crystal in crystals:
            try:
                energy = self.model.energy(crystal)
                out.append(Value(energy, {self.spec: energy}))
            except MolflowError as error:
                out.append(Value(float("nan"), reason=error.reason))
        return out


@dataclass(frozen=True)
class MeanEnergy:
    """The mean of several models; every member must give an energy.

    Where all members tell the energy between molecules, or have none, that is averaged over those that do, and the
    energy inside over those that have one. Otherwise whole energies are averaged.
    """

    spec: str
    name: str
    members: tuple[Energy, ...]
    weights: tuple[int, ...]
    inside_only = False

    def check(self, molecule: Molecule) -> None:
        """Refuse what any member refuses."""
        for member in self.members:
            member.check(molecule)

    def evaluate(self, crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters | None) -> list[Value]:
        """See `Energy`."""
        columns = [member.evaluate(crystals, parameters) for member in self.members]
        return [self._mean(values) for values in zip(*columns)]

    def _average(self, values: Sequence[float]) -> float:
        """The weighted mean of those that are numbers."""
        have = [k for k, value in enumerate(values) if np.isfinite(value)]
        return float(np.average([values[k] for k in have], weights=[self.weights[k] for k in have])) if have else np.nan

    def _mean(self, values: Sequence[Value]) -> Value:
        parts = {name: energy for value in values for name, energy in value.parts.items()}
        inter = {name: energy for value in values for name, energy in value.intermolecular.items()}
        reasons = [f"{m.name}: {v.reason}" for m, v in zip(self.members, values) if v.reason]
        if not reasons and len(inter) > 1:
            low, high = min(inter, key=inter.__getitem__), max(inter, key=inter.__getitem__)
            gap = inter[high] - inter[low]
            limit = DISAGREEMENT[0] + DISAGREEMENT[1] * max(abs(inter[low]), abs(inter[high]))
            if not gap <= limit:
                reasons.append(
                    f"{low} and {high} differ by {gap / KJ_PER_MOL:.0f} kJ/mol in the energy between molecules, more "
                    "than physics allows"
                )
        mean, inside = self._average([value.energy for value in values]), float("nan")
        between = float("nan")
        tell = [np.isfinite(v.between) for m, v in zip(self.members, values) if not m.inside_only]
        if all(tell) and np.isfinite([value.inside for value in values]).any():
            inside = self._average([value.inside for value in values])
            between = self._average([value.between for value in values])
            parts = {name: energy + inside for name, energy in inter.items()}
            mean = between + inside
        return Value(float("nan") if reasons else mean, parts, inter, inside, "; ".join(reasons), between)


def energy_model(spec: str) -> Energy:
    """The energy model that a ``--energy`` value names.

    Raises
    ------
    InputError
        If the value is not understood, or its file, module or factory is not there.
    MissingDependencyError
        If the library behind it is not installed.
    """
    text = _written_out(spec)
    try:
        origin = energy_identity(text)
    except (MolflowError, OSError):  # what is wrong is named where it is built
        origin = ""
    return _built(text, origin)


def _written_out(spec: str) -> str:
    text = spec.strip()
    return Best().spec if text == "best" else text


@lru_cache(maxsize=8)
def _built(text: str, origin: str) -> Energy:
    """The model of a spec; made again where the file behind it has changed (`origin`)."""
    if text == "fit":
        return FitEnergy("fit", "FIT between molecules")
    if text == "fit-hf":
        return FitEnergy("fit-hf", "FIT with HF charges", sites=True)
    if text == "potential":
        return FitEnergy("potential", "potential", inside=True)
    if text == "so3lr":
        return SO3LREnergy()
    if text == "aimnet2":
        return AIMNet2Energy()
    names = members_of(text)
    if names is not None:
        if len(names) < 2 or len({name for _, name in names}) < len(names):
            raise InputError(f"--energy {text}: a mean needs two or more different models, as in mean(fit,so3lr)")
        members = tuple(energy_model(name) for _, name in names)
        inside = [m.spec for m in members if m.inside_only]
        whole = [m.spec for m in members if isinstance(m, ForeignEnergy)]
        if inside and (whole or len(inside) == len(members)):
            why = f"{', '.join(whole)} cannot tell it apart" if whole else "nothing tells the energy between them"
            raise InputError(f"--energy {text}: {', '.join(inside)} is an energy inside molecules, and {why}")
        weights = tuple(weight for weight, _ in names)
        name = "best" if text in BESTS else f"mean of {' and '.join(m.name for m in members)}"
        return MeanEnergy(text, name, members, weights)
    model = foreign.energy_model(text)
    return ForeignEnergy(text, model.name, model)


def members_of(text: str) -> list[tuple[int, str]] | None:
    """What a mean is taken of, weights and names, between commas that are in no brackets; None for a single model."""
    if not (text.startswith("mean(") and text.endswith(")")):
        return None
    text = text[5:-1]
    out, depth, last = [], 0, 0
    for i, c in enumerate(text + ","):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            out.append(text[last:i].strip())
            last = i + 1
    return [_weighted(name) for name in out if name]


def _weighted(text: str) -> tuple[int, str]:
    """Weight and name of a member of a mean."""
    number, star, name = text.partition("*")
    return (int(number), name.strip()) if star and number.strip().isdigit() and int(number) > 0 else (1, text)


def check_energy_spec(spec: str | None) -> None:
    """Refuse a wrong ``--energy`` before hours of work are done."""
    if spec is not None:
        energy_model(spec)


def recipe(spec: str, molecule: Molecule) -> tuple[str, str]:
    """The spec by which all structures of a molecule are ranked, and a word where it is not the one asked for.

    ``best`` goes on with ``fit`` where the charges of ``fit-hf`` cannot be had, and without a network that does not
    know an element or is not installed; without both networks it is ``potential``. Other means go on without the
    members that cannot do the molecule.

    Raises
    ------
    MolflowError
        No model of the spec can do the molecule.
    """
    if spec.strip() == "best":
        return _best_of(molecule)
    model = energy_model(spec)
    if not isinstance(model, MeanEnergy):
        if model.inside_only:
            raise InputError(
                f"--energy {model.spec} is an energy inside molecules only; between them another is needed, as in "
                f"mean(fit-hf,{model.spec})"
            )
        model.check(molecule)
        return model.spec, ""
    kept, reasons = [], []
    for member, weight in zip(model.members, model.weights):
        try:
            member.check(molecule)
            kept.append(f"{weight}*{member.spec}" if weight > 1 else member.spec)
        except (UnsupportedElementError, MissingDependencyError) as error:
            reasons.append(f"{member.name} is left out: {error.reason}")
    if not reasons:
        return model.spec, ""
    if all(energy_model(name.rpartition("*")[2]).inside_only for name in kept):
        raise InputError(f"--energy {spec}: no model can do {molecule.formula}: {'; '.join(reasons)}")
    left = f"mean({','.join(kept)})" if len(kept) > 1 else kept[0].rpartition("*")[2]
    return left, f"{'; '.join(reasons)}; ranked by {left}"


def _best_of(molecule: Molecule) -> tuple[str, str]:
    """What ``best`` is for a molecule, see `recipe`."""
    reasons = {}
    for name in ("fit-hf", "so3lr", "aimnet2"):
        member = energy_model(name)
        try:
            member.check(molecule)
        except (UnsupportedElementError, MissingDependencyError, ParameterError) as error:
            reasons[name] = f"{member.name} is left out: {error.reason}"
    left = Best(*(name not in reasons for name in ("fit-hf", "so3lr", "aimnet2"))).spec
    return left, f"{'; '.join(reasons.values())}; ranked by {left}" if reasons else ""


def uses_sites(spec: str) -> bool:
    """Whether a model needs the charges beside the atoms (`molflow_sim.forcefield.charge_sites`)."""
    text = _written_out(spec)
    names = members_of(text)
    return any(uses_sites(name) for _, name in names) if names else text == "fit-hf"


def energy_identity(spec: str) -> str:
    """What a stored energy of this model depends on besides its spec and the code: weights, file or library version."""
    text = _written_out(spec)
    names = members_of(text)
    if names is not None:
        return " ".join(energy_identity(name) for _, name in names)
    if text in ("so3lr", "aimnet2"):
        return SHA256 if text == "so3lr" else AIMNET2
    return "" if text in ("fit", "fit-hf", "potential") else foreign.energy_identity(text)
