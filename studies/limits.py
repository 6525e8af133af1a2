"""What the limits benchmark measures of one target: hits by group and conformer, a low-energy sampler, closeness."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.generation import class_of
from benchmarks.recovery import SOURCES
from benchmarks.search import BATCH, Minimum, candidates_of, matches, molecule_of, nearest_minimum, pressed_experiment
from benchmarks.targets import Target
from molflow_sim import MolecularCrystal, Molecule
from molflow_sim.errors import MolflowError
from molflow_sim.evaluate.deduplicate import PackingDuplicates, deduplicate_packings
from molflow_sim.forcefield import parametrize
from molflow_sim.packing import RigidPackings, press, random_packings
from molflow_sim.packing.random_packing import placements_for
from molflow_sim.symmetry import SpaceGroup
from molflow_sim.symmetry.placements import COMMON_SPACE_GROUPS, Placement
from molflow_sim.symmetry.sites import placement_of
from molflow_sim.symmetry.spacegroup import cell_matrix, cell_parameters
from molflow_sim.units import KJ_PER_MOL

DISTURBANCES = (
    (10.0, 0.0, 0.0), (20.0, 0.0, 0.0), (30.0, 0.0, 0.0), (45.0, 0.0, 0.0),
    (0.0, 0.3, 0.0), (0.0, 0.6, 0.0), (0.0, 1.0, 0.0),
    (0.0, 0.0, 0.03), (0.0, 0.0, 0.06), (0.0, 0.0, 0.10),
    (10.0, 0.3, 0.03), (20.0, 0.6, 0.06), (30.0, 0.9, 0.09),
)  # fmt: skip
"""Turn in degrees, shift in Å, strain."""
MIRROR_PAIRS = {
    78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171, 179: 178, 181: 180, 213: 212,
}  # fmt: skip
"""Numbers of the groups that are mirror images of one another, the larger to the smaller."""

Kind = tuple[int, int, int, int]


@dataclass
class Landscape:
    """Random packings of a target's molecule, pressed, with one source of conformers. Energies in kJ/mol per molecule.

    ``drawn`` of the ``candidates`` (space group open) have the experiment's own group and site, and ``drawn_hits`` of
    the ``hits`` are among them; ``known`` candidates are those and further ones drawn in that group and site, with
    ``known_hits``. ``experimental`` has the energies of the distinct minima that are the experimental form, however
    found, and ``others`` of the candidates' other ones, over the lowest of all.
    """

    candidates: int
    converged: int = 0
    hits: int = 0
    drawn: int = 0
    drawn_hits: int = 0
    known: int = 0
    known_hits: int = 0
    minimum: dict[str, Any] = field(default_factory=dict)
    experimental: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def share(self, scale: float) -> float:
        """`sampler_share` of the experimental form at a scale in kJ/mol."""
        return sampler_share(self.experimental, self.others, scale)


@dataclass
class Limits:
    """One target, as stored in JSON.

    ``landscapes`` goes by the source of conformers, ``errors`` names those that failed; ``returned`` gives for each of
    `DISTURBANCES` how many of the ``disturbed`` came back, or None where the site leaves nothing to disturb. It is
    empty where the potential does not keep the measured structure.
    """

    target: str
    klass: str
    smiles: str
    group: str
    kind: list[int]
    seed: int
    landscapes: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    disturbed: int = 0
    returned: list[int | None] = field(default_factory=list)
    seconds: float = 0.0

    def landscape(self, source: str) -> Landscape | None:
        """What was found with one source of conformers."""
        found = self.landscapes.get(source)
        return None if found is None else Landscape(**found)


def sampler_share(experimental: Sequence[float], others: Sequence[float], scale: float) -> float:
    """Probability of the experimental form when distinct minima are drawn with weights exp(-E/scale).

    Parameters
    ----------
    experimental, others : sequence of float
        Energies of minima in kJ/mol per molecule, from any common zero. Each counts once, however wide its basin.
    scale : float
        kJ/mol.
    """
    if not len(experimental):
        return 0.0
    energies = np.concatenate([experimental, others])
    weights = np.exp(-(energies - energies.min()) / scale)
    return float(weights[: len(experimental)].sum() / weights.sum())


def kind_of(place: Placement, enantiopure: bool) -> Kind:
    """Group and site whatever the setting: number, Z′ in 48ths, free directions and free axes of rotation.

    Groups that are mirror images of one another count as one unless the molecule is enantiopure.
    """
    number = SpaceGroup.from_name(place.space_group).number
    return (
        number if enantiopure else MIRROR_PAIRS.get(number, number),
        round(48 * place.z_prime_per_molecule),
        round(float(np.trace(place.translation_projector))),
        round(float(np.trace(place.rotation_projector))),
    )


def kinds(packings: RigidPackings, enantiopure: bool) -> list[Kind]:
    """`kind_of` each packing."""
    known = [kind_of(place, enantiopure) for place in packings.placements]
    return [known[k] for k in packings.placement]


def hits_among(target: Target, packings: RigidPackings) -> tuple[np.ndarray, np.ndarray]:
    """Duplicates' representatives (n,) among converged packings, and those that are the experimental form."""
    group = deduplicate_packings(packings, packings.energy)
    found = matches(target, packings, np.unique(group))
    return group, np.array(sorted(found), dtype=int)


def packings_in(molecule: Molecule, kind: Kind, symbol: str, n: int, seed: int) -> RigidPackings | None:
    """Random packings of one group and site; None if the molecule's conformers cannot take it.

    Parameters
    ----------
    molecule : Molecule
    kind : Kind
    symbol : str
        The experiment's setting, used where the group is not among the common ones.
    n : int
    seed : int
    """
    pure = molecule.is_enantiopure
    names = [name for settings in COMMON_SPACE_GROUPS for name in settings]
    numbers = {name: SpaceGroup.from_name(name).number for name in names}
    usual = [s for s, k in numbers.items() if (k if pure else MIRROR_PAIRS.get(k, k)) == kind[0]] or [symbol]
    places, weights = placements_for(molecule, usual)
    share = float(weights[[kind_of(p, pure) == kind for p in places]].sum())
    if share == 0.0:
        return None
    drawn = random_packings(molecule, int(1.2 * n / share) + 100, space_groups=usual, seed=seed)
    return drawn.select(np.flatnonzero([k == kind for k in kinds(drawn, pure)])[:n])


def landscape(
    target: Target, source: str, n: int, *, seed: int = 0, out_of_time: Callable[[], bool] = lambda: False
) -> Landscape | None:
    """Press n random packings, and as many in the experiment's group and site; None when the time is over.

    Parameters
    ----------
    target : Target
    source : str
        Whose conformers: "rdkit" or "experimental".
    n : int
    seed : int
        Candidates are those that crystal_generation.py draws with it.
    out_of_time : callable

    Raises
    ------
    MolflowError
        Where RDKit or the potential cannot handle the molecule.
    """
    molecule = molecule_of(target, source, seed)
    parameters = parametrize(molecule)
    result = Landscape(n)
    measured = pressed_experiment(target, molecule, parameters)
    result.minimum = asdict(nearest_minimum(target, measured))
    parts = []
    for first in range(0, n, BATCH):
        size = min(BATCH, n - first)
        loose = candidates_of("random", molecule, size, seed + 7919 * (first // BATCH), first)  # those of search()
        parts.append(press(loose, parameters))
        if out_of_time():
            return None
    pressed = RigidPackings.concatenate(parts)
    kind = kind_of(placement_of(target.crystal), molecule.is_enantiopure)
    own = np.array([k == kind for k in kinds(pressed, molecule.is_enantiopure)])
    good = pressed.select(pressed.ok)
    group, forms = hits_among(target, good)
    hit = np.isin(group, forms)
    result.converged, result.hits = len(good), int(hit.sum())
    result.drawn, result.drawn_hits = int(own.sum()), int((hit & own[pressed.ok]).sum())
    result.known, result.known_hits = result.drawn, result.drawn_hits
    elsewhere = kept_energies(target, measured)
    if result.drawn < n:
        more = packings_in(molecule, kind, target.crystal.space_group.name, n - result.drawn, seed + 1)
        if more is not None:
            further = press(more, parameters)
            further = further.select(further.ok)
            own_group, own_forms = hits_among(target, further)
            result.known_hits += int(np.isin(own_group, own_forms).sum())
            result.known += len(more)
            elsewhere = np.append(elsewhere, further.energy[own_forms])
    _split(result, good.energy[np.setdiff1d(group, forms)], good.energy[forms], elsewhere)
    return None if out_of_time() else result


def kept_energies(target: Target, pressed: RigidPackings) -> np.ndarray:
    """Energies in eV per molecule of the pressed measured packing (`pressed_experiment`), for conformers that keep it.

    The conformer nearest to the measured one need not be the lowest that does.
    """
    kept = matches(target, pressed, np.flatnonzero(pressed.ok), prefilter=False)
    return pressed.energy[sorted(kept)]


def _split(result: Landscape, others: np.ndarray, forms: np.ndarray, elsewhere: np.ndarray) -> None:
    """Fill in the energies, given in eV: of other minima, of hits, and of the form where it was not met by chance.

    The latter (the pressed measured structure, hits of the known group) count unless they duplicate one by energy.
    """
    others, forms, elsewhere = (np.sort(e) / KJ_PER_MOL for e in (others, forms, elsewhere))
    for energy in elsewhere:
        if np.isfinite(energy) and not np.any(np.abs(forms - energy) < PackingDuplicates().energy / KJ_PER_MOL):
            forms = np.append(forms, energy)
    lowest = min([*others, *forms], default=0.0)
    result.experimental = [round(float(e - lowest), 4) for e in forms]
    result.others = [round(float(e - lowest), 4) for e in others]


def freedom(crystal: MolecularCrystal) -> tuple[np.ndarray, np.ndarray]:
    """Cartesian projectors (3, 3) on the turns and on the shifts that change a crystal and keep its group and site.

    A shift along a polar axis moves the origin only, and is no change.
    """
    place = placement_of(crystal)
    polar = crystal.space_group.cartesian_rotations.mean(axis=0)
    return place.rotation_projector, place.translation_projector - polar


def disturb(
    crystal: MolecularCrystal, rng: np.random.Generator, angle: float, shift: float, strain: float
) -> MolecularCrystal:
    """A crystal of one molecule in the asymmetric unit, disturbed within its space group and site.

    Parameters
    ----------
    crystal : MolecularCrystal
    rng : numpy Generator
        Draws the directions: of the axis and of the shift among those of `freedom`, and of the strain among the
        symmetric tensors that every operation of the group leaves as they are.
    angle : float
        Degrees about the axis; none where the site allows no turn.
    shift : float
        Å; none where the site allows no shift.
    strain : float
        Largest principal strain, of either sign.
    """
    (unit,) = crystal.asymmetric_unit
    group = crystal.space_group
    turns, shifts = freedom(crystal)
    tensor = rng.normal(size=(3, 3))
    operations = group.cartesian_rotations
    tensor = np.mean(operations @ (tensor + tensor.T) @ np.swapaxes(operations, 1, 2), axis=0)
    strained = crystal.cell @ (np.eye(3) + strain * tensor / np.abs(np.linalg.eigvalsh(tensor)).max())
    cell = cell_matrix(group.constrain(cell_parameters(strained)))
    frame = np.linalg.solve(strained, cell).T  # turns the strained crystal into the standard frame
    turn = Rotation.from_rotvec(np.radians(angle) * _direction(turns, rng)).as_matrix()
    moved = np.asarray(unit.centroid) + shift * _direction(shifts, rng) @ np.linalg.inv(cell)
    unit = replace(unit, orientation=turn @ frame @ unit.orientation, centroid=moved)
    return replace(crystal, cell=cell, asymmetric_unit=(unit,))


def _direction(projector: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random unit vector in the projector's image, or zero if there is none."""
    vector = projector @ rng.normal(size=3)
    length = np.linalg.norm(vector)
    return vector / length if length > 1e-6 else np.zeros(3)


def returned(target: Target, n: int, seed: int = 0) -> list[int | None]:
    """How many of n disturbed copies of the measured crystal the press brings back, for each of `DISTURBANCES`.

    They are pressed as any candidate is and judged as any hit; None where the site leaves nothing to disturb.
    """
    able = [np.trace(projector) > 0.5 for projector in freedom(target.crystal)]
    crystals, label = [], []
    for k, (angle, shift, strain) in enumerate(DISTURBANCES):
        if (angle and able[0]) or (shift and able[1]) or strain:
            rng = np.random.default_rng((seed, k))
            crystals += [disturb(target.crystal, rng, angle, shift, strain) for _ in range(n)]
            label += n * [k]
    pressed = press(RigidPackings.from_crystals(crystals), parametrize(molecule_of(target, "experimental", seed)))
    group, forms = hits_among(target, pressed.select(pressed.ok))
    home = np.array(label)[pressed.ok][np.isin(group, forms)]
    return [int(np.sum(home == k)) if k in label else None for k in range(len(DISTURBANCES))]


def measure(
    target: Target, n: int, disturbed: int, *, seed: int = 0, out_of_time: Callable[[], bool] = lambda: False
) -> Limits | None:
    """Everything about one target; None when the time is over.

    Parameters
    ----------
    target : Target
    n : int
        Candidates pressed for each source of conformers.
    disturbed : int
        Disturbed copies for each of `DISTURBANCES`.
    seed : int
    out_of_time : callable
    """
    start = time.perf_counter()
    place = placement_of(target.crystal)
    pure = molecule_of(target, "experimental", seed).is_enantiopure
    result = Limits(
        target.name, class_of(target), target.smiles, place.space_group, list(kind_of(place, pure)), seed,
        disturbed=disturbed,
    )  # fmt: skip
    for source in SOURCES:
        try:
            found = landscape(target, source, n, seed=seed, out_of_time=out_of_time)
            if found is None:
                return None
            result.landscapes[source] = asdict(found)
        except (MolflowError, RuntimeError) as error:
            result.errors[source] = f"{type(error).__name__}: {error}"
    own = result.landscape("experimental")
    if disturbed and own is not None and Minimum(**own.minimum).kept:
        result.returned = returned(target, disturbed, seed)
    result.seconds = round(time.perf_counter() - start, 1)
    return None if out_of_time() else result
