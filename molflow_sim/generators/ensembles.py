"""Conformers of a molecule from what a generator draws: relaxed, without duplicates, chosen, ranked.

More are drawn than are asked for. Draws that are torn, overlap or show another stereoisomer are left out; the rest is
relaxed on the restrained force field (`molflow_sim.relax.intramolecular`), twice n are chosen that cover it best, low
energies counting more, and taken to minima of the energy asked for. Of the distinct ones the lowest and those that
cover the others best stay. With the restrained force field itself, n are chosen among its minima and the whole pool.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.chemistry import conformers as conf
from molflow_sim.chemistry.embedding import effort
from molflow_sim.chemistry.soundness import sound
from molflow_sim.errors import InputError, MolflowError, NoCandidatesError
from molflow_sim.generators.protocol import ConformerRequest, Generator, whole_number
from molflow_sim.generators.selection import covering, distinct, heavy_atom_distances
from molflow_sim.io.ensembles import boltzmann_shares
from molflow_sim.relax.intramolecular import DIELECTRIC, Intramolecular, check_spec, intramolecular
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

DEFAULT_ENERGY = "restrained"
"""Where torsions are few, conformers that keep those they were drawn with come nearer to measured poses, where they are
many the minima do: both are there to choose from."""
DUPLICATE = 0.125
"""Å over heavy atoms and polar hydrogens; closer conformers are one."""
STRAINED = 200.0
"""kJ/mol above the lowest where no window is given; beyond are clashes and threaded rings."""
DUPLICATE_WORK = 2e6
"""Superpositions, about, that are spent on finding duplicates; a molecule maps on itself in 24 ways or more, if any."""
OVERDRAW = 2
"""Times n are drawn of a generator that does not say how many; fewer of large molecules, but n."""
MINIMA = 2
"""Times n are relaxed where an energy is asked for."""
FIRST = 8
"""Draws after which a molecule is given up if none succeeds."""


@dataclass(frozen=True)
class EnsembleSettings:
    """What is made of the draws.

    Attributes
    ----------
    energy : str
        See `molflow_sim.relax.intramolecular`.
    window : float or None
        kJ/mol above the lowest; higher conformers are left out.
    focus : float
        kJ/mol; conformers count by exp(-E / focus) where n are chosen. Small values prefer low energies to coverage.
    pool : int or None
        Draws; by default what the generator's method ``most`` says for n, or n with ``energy="none"``.
    """

    energy: str = DEFAULT_ENERGY
    window: float | None = None
    focus: float = 20.0
    pool: int | None = None

    def __post_init__(self) -> None:
        check_spec(self.energy)
        if self.window is not None and not 0.0 < self.window < np.inf:
            raise InputError(f"the window must be above 0 kJ/mol, not {self.window}")
        if not 0.0 < self.focus < np.inf:
            raise InputError(f"the focus must be above 0 kJ/mol, not {self.focus}")
        if self.pool is not None:
            whole_number("pool", self.pool, 1)

    def draws(self, molecule: Molecule, n: int, generator: Any) -> int:
        """How many conformers are drawn for n: what the generator finds sensible, or up to twice as many."""
        if self.pool is not None or self.energy == "none":
            return max(self.pool or n, n)
        if hasattr(generator, "most"):
            return int(generator.most(molecule, n))
        return max(int(OVERDRAW * n * effort(molecule.rdmol)), n)


def ensemble(
    molecule: Molecule,
    n: int,
    generator: Generator,
    *,
    seed: int,
    settings: EnsembleSettings | None = None,
    info: Mapping[str, Any] | None = None,
) -> Molecule:
    """The molecule with up to `n` conformers of a generator, lowest energy first.

    Raises
    ------
    NoCandidatesError
        None is left; the message counts the reasons.
    MolflowError
        The energy does not know the molecule.
    """
    settings = settings or EnsembleSettings()
    energy, notes = _energy(settings.energy, molecule)
    lost: Counter[str] = Counter()
    drawn = settings.draws(molecule, n, generator)
    pool = _pool(molecule, drawn, generator, seed, lost)
    if energy.spec == "none":
        positions, energies = energy.relax(pool)
    elif energy.minimises:
        pool, energies, distances = _softly_relaxed(molecule, pool, lost)
        positions, energies = energy.relax(pool[covering(distances, MINIMA * n, _weights(energies, settings.focus))])
    else:
        positions, energies = _among_minima(molecule, pool, n, settings.focus, lost)
    positions, energies = _kept(molecule, positions, energies, settings, lost)
    if not len(positions):
        raise NoCandidatesError(
            f"none of {drawn} conformers of {molecule.name or molecule.formula} is left: {_counts(lost)}"
        )
    if len(positions) > n:
        distances = heavy_atom_distances(molecule.rdmol, positions)
        chosen = np.sort(
            covering(distances, n, _weights(energies, settings.focus), first=int(settings.energy != "none"))
        )
        positions, energies = positions[chosen], energies[chosen]
    told = {**(info or {}), "energy_model": energy.spec, "drawn": drawn, **notes}
    return replace(
        molecule, conformers=positions, energies=energies, shares=boltzmann_shares(energies),
        info=told | {"lost": _counts(lost)},
    )  # fmt: skip


def _counts(lost: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in lost.most_common() if count)


def _weights(energies: np.ndarray, focus: float) -> np.ndarray | None:
    """How much conformers count where n are chosen; all the same where an energy is unknown."""
    if not np.isfinite(energies).all():
        return None
    return np.asarray(np.exp(-(energies - energies.min(initial=np.inf)) / (focus * KJ_PER_MOL)))


def _energy(spec: str, molecule: Molecule) -> tuple[Intramolecular, dict[str, str]]:
    """The energy asked for; conformers of molecules that MMFF94 does not know stay as they are where none is."""
    try:
        found = intramolecular(spec, molecule)
    except MolflowError as error:
        if spec != DEFAULT_ENERGY:
            raise
        warnings.warn(f"{molecule.smiles}: conformers are left as drawn: {error}", stacklevel=4)
        found = intramolecular("none", molecule)
    return found, {"energy_note": found.note} if found.note else {}


def _pool(molecule: Molecule, n: int, generator: Generator, seed: int, lost: Counter[str]) -> np.ndarray:
    """Draws (K, N, 3) that are whole and of the right stereoisomer; losses are counted by their reasons."""
    request = ConformerRequest(molecule)
    found: list[np.ndarray] = []
    for first, size in ((0, min(FIRST, n)), (FIRST, n - FIRST)):
        if size < 1:
            break
        drawn = generator.sample(request, size, seed=seed, first_index=first)
        lost.update(reason for reason in drawn.reasons if reason)
        found += [system.conformers[0] for system in drawn.systems() if system is not None]
        if not found:
            break
    positions = np.array(found).reshape(-1, molecule.n_atoms, 3)
    return _sifted(molecule, positions, lost)[0]


def _sifted(molecule: Molecule, positions: np.ndarray, lost: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
    """What is whole and the right stereoisomer, and which it was (K,)."""
    good = sound(molecule.rdmol, positions)
    lost["torn or overlapping"] += int(np.sum(~good))
    right = good.copy()
    right[good] = conf.keeps_stereo(molecule.rdmol, positions[good])
    lost["another stereoisomer"] += int(np.sum(good & ~right))
    return positions[right], right


def _softly_relaxed(
    molecule: Molecule, pool: np.ndarray, lost: Counter[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pool on the restrained force field where that knows it, energies (K,) in eV, and RMSDs (K, K) in Å."""
    energies = np.full(len(pool), np.nan)
    with suppress(MolflowError):  # without a force field all count the same
        relaxed, found = intramolecular("restrained", molecule).relax(pool)
        pool, right = _sifted(molecule, relaxed, lost)
        energies = found[right]
        low = energies - energies.min(initial=np.inf) < STRAINED * KJ_PER_MOL
        pool, energies = pool[low], energies[low]
    return pool, energies, heavy_atom_distances(molecule.rdmol, pool)


def _among_minima(
    molecule: Molecule, pool: np.ndarray, n: int, focus: float, lost: Counter[str]
) -> tuple[np.ndarray, np.ndarray]:
    """About n that cover the relaxed pool and the minima near it, taken from both; energies in eV."""
    pool, energies, within = _softly_relaxed(molecule, pool, lost)
    if not len(pool):
        return pool, energies
    near = covering(within, MINIMA * n, _weights(energies, focus))
    minima, low = intramolecular(f"mmff94:{DIELECTRIC:g}", molecule).relax(pool[near])
    minima, right = _sifted(molecule, minima, lost)
    across = heavy_atom_distances(molecule.rdmol, minima, pool)
    among = heavy_atom_distances(molecule.rdmol, minima)
    positions, energies = np.concatenate([minima, pool]), np.concatenate([low[right], energies])
    order = np.argsort(energies, kind="stable")
    distances = np.block([[among, across], [across.T, within]])[np.ix_(order, order)]
    chosen = order[covering(distances, n + n // 10, _weights(energies[order], focus), first=1)]
    return positions[chosen], energies[chosen]


def _kept(
    molecule: Molecule, positions: np.ndarray, energies: np.ndarray, settings: EnsembleSettings, lost: Counter[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Right, distinct conformers within the window, lowest first; those without energies in their order."""
    if settings.energy == "none":
        order = np.argsort(energies, kind="stable")
        return positions[order], energies[order]
    bad = np.isnan(energies) & np.isfinite(energies).any()
    lost["no finite energy"] += int(bad.sum())
    positions, right = _sifted(molecule, positions[~bad], lost)
    energies = energies[~bad][right]
    order = np.argsort(energies, kind="stable")
    limit = STRAINED if settings.window is None else settings.window
    high = energies[order] - energies.min(initial=np.inf) > limit * KJ_PER_MOL
    lost[f"more than {limit:g} kJ/mol above the lowest"] += int(high.sum())
    order = order[~high]
    kept = distinct(_core_distances(molecule, positions[order]), DUPLICATE)
    lost["duplicate"] += len(order) - len(kept)
    return positions[order][kept], energies[order][kept]


def _core_distances(molecule: Molecule, positions: np.ndarray) -> np.ndarray:
    from molflow_sim.chemistry.bonds import automorphisms
    from molflow_sim.geometry.rmsd import rmsd_matrix

    core = conf.core_atoms(molecule.rdmol)
    most = int(np.clip(DUPLICATE_WORK / max(len(positions), 1) ** 2, 24, 500))
    return rmsd_matrix(positions[:, core], None, automorphisms(molecule.rdmol, core, max_matches=most))
