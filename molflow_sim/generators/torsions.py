"""Conformers by exchange of torsions between embeddings: cheap, and wider than the embeddings themselves.

A few embeddings of RDKit bring rings, bond angles and the torsions that measured crystals prefer. Their bonds, angles
and rings are relaxed on MMFF94 with the torsions held. Every further conformer takes one of them and turns its bonds to
torsions of others, each with some noise: a torsion's distribution is then that of the embeddings, smoothed, and the
combinations are new. What lies too high in energy is drawn again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from rdkit import Chem

from molflow_sim.chemistry.checks import check_molecule
from molflow_sim.chemistry.conformers import count_rotors, keeps_stereo
from molflow_sim.chemistry.embedding import effort
from molflow_sim.chemistry.rotors import Rotors, rotors
from molflow_sim.errors import ConformerError, InputError, UnsupportedElementError
from molflow_sim.forcefield.mmff import MMFFTerms, extract_mmff
from molflow_sim.generators.conformers import drawn
from molflow_sim.generators.protocol import ConformerRequest, Drawn, served, whole_number
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

BLOCK = 100
"""Conformers made at once."""
ROUNDS = 10
"""Times that twice as many combinations are tried, at most."""
FREE = 3
"""Rotors up to which each gets the full noise; with more of them its variance is shared."""
RIGID = 8
"""Embeddings of a molecule that has neither rotors nor rings that pucker."""
LOST = "not embedded, atoms in each other's way, or another stereoisomer when relaxed"
KEPT = 0.3
"""Share of the torsions that stay as they are."""


@dataclass(frozen=True)
class TorsionConformers:
    """Embeddings that exchange torsions.

    Attributes
    ----------
    bases : int
        Embeddings, the first conformers of all; fewer of large molecules (`embedding.effort`).
    jitter : float
        Standard deviation of the noise on a torsion, degrees.
    strain : float
        kJ/mol above the median of the embeddings up to which a combination may lie, on MMFF94.
    dielectric : float
        By which MMFF94's electrostatics are divided.
    """

    kind: ClassVar[str] = "conformers/torsions"
    overdraw: ClassVar[int] = 14
    least: ClassVar[int] = 300
    largest: ClassVar[int] = 1500
    bases: int = 45
    jitter: float = 16.0
    strain: float = 100.0
    dielectric: float = 4.0

    def __post_init__(self) -> None:
        whole_number("bases", self.bases, 1)
        if not (0.0 <= self.jitter <= 180.0 and self.strain > 0.0 and 1.0 <= self.dielectric <= 1000.0):
            raise InputError(
                "a jitter of 0 to 180°, a strain above 0 kJ/mol and a dielectric constant of 1 to 1000 are needed, not "
                f"{self.jitter}, {self.strain} and {self.dielectric}"
            )

    def sample(self, request: ConformerRequest, n: int, *, seed: int, first_index: int = 0) -> Drawn:
        """See `Generator.sample`."""
        molecule = served(request, ConformerRequest, self.kind, n).molecule
        try:
            check_molecule(molecule.rdmol, what=molecule.smiles, force_field=True)
        except UnsupportedElementError as error:
            raise UnsupportedElementError(f"{error}; --method etkdg does without MMFF94") from None
        if not len(rotors(molecule.rdmol)):
            rings = _relaxed(molecule.rdmol, self, seed, n, first_index)[0]
            return drawn(molecule, first_index, rings, ConformerError(LOST).reason)
        start = _start(molecule.rdmol.ToBinary(Chem.PropertyPickleOptions.AllProps), self, seed)
        found: list[np.ndarray | None] = list(start.positions[first_index : first_index + n])
        after = first_index - len(start.positions)
        for block in range(max(after, 0) // BLOCK, max(-(-(after + n) // BLOCK), 0)):
            made = start.block(block, self, seed)
            here = block * BLOCK
            found += made[max(after - here, 0) : after + n - here]
        return drawn(molecule, first_index, found, ConformerError(LOST).reason)

    def most(self, molecule: Molecule, n: int) -> int:
        """Draws beyond which a molecule shows nothing new where `n` conformers are wanted."""
        if len(rotors(molecule.rdmol)):
            return max(min(self.overdraw * n, self.largest + n), self.least)
        return max(int(2 * n * effort(molecule.rdmol)), RIGID) if count_rotors(molecule.rdmol) else RIGID

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`; RDKit's version belongs to it."""
        from rdkit import __version__

        return {"generator": self.kind.rpartition("/")[2], **asdict(self), "rdkit": __version__}


@dataclass(frozen=True, eq=False)
class _Start:
    """Embeddings to begin with; `positions` holds None where one failed."""

    rotors: Rotors
    terms: MMFFTerms
    positions: list[np.ndarray | None]
    good: np.ndarray
    torsions: np.ndarray
    limit: float

    def block(self, number: int, of: TorsionConformers, seed: int) -> list[np.ndarray | None]:
        """Conformers of a block, None where too few combinations are free of clashes."""
        from molflow_sim.forcefield.mmff_minimise import energies
        from molflow_sim.geometry.turning import turn

        if not len(self.good):
            return [None] * BLOCK
        rng = np.random.default_rng([seed, number])
        jitter = np.deg2rad(of.jitter) * min(1.0, np.sqrt(FREE / len(self.rotors)))
        found: list[np.ndarray | None] = []
        for _ in range(ROUNDS):
            frame = rng.integers(len(self.good), size=2 * BLOCK)
            source = rng.integers(len(self.good), size=(2 * BLOCK, len(self.rotors)))
            source = np.where(rng.random(source.shape) < KEPT, frame[:, None], source)
            wanted = self.torsions[source, np.arange(len(self.rotors))] + jitter * rng.normal(size=source.shape)
            trial = self.good[frame].copy()
            turn(trial, self.rotors.axes, self.rotors.moving, wanted - self.torsions[frame])
            found += list(trial[energies(self.terms, trial) < self.limit])
            if len(found) >= BLOCK:
                break
        return [*found[:BLOCK], *[None] * (BLOCK - len(found))]


@lru_cache(maxsize=2)
def _start(binary: bytes, of: TorsionConformers, seed: int) -> _Start:
    from molflow_sim.geometry.torsions import torsion_angles

    rdmol = Chem.Mol(binary)  # type: ignore[call-overload]
    found, energies, terms = _relaxed(rdmol, of, seed, max(int(of.bases * effort(rdmol)), 1), 0)
    good = np.array([x for x in found if x is not None]).reshape(-1, rdmol.GetNumAtoms(), 3)
    turned = rotors(rdmol)
    limit = float(np.median(energies)) + of.strain * KJ_PER_MOL if len(good) else 0.0
    return _Start(turned, terms, found, good, torsion_angles(good, turned.torsions), limit)


def _relaxed(
    rdmol: Chem.Mol, of: TorsionConformers, seed: int, n: int, first_index: int
) -> tuple[list[np.ndarray | None], np.ndarray, MMFFTerms]:
    """Embeddings relaxed with their torsions held, None where one fails; energies in eV of the others; the terms."""
    from molflow_sim.chemistry.embedding import embedded
    from molflow_sim.forcefield.mmff_minimise import in_dielectric, minimise

    terms = in_dielectric(extract_mmff(rdmol), of.dielectric)
    found = embedded(rdmol, n, seed, first_index)
    there = [k for k, x in enumerate(found) if x is not None]
    if not there:
        return found, np.empty(0), terms
    starts = np.array([found[k] for k in there])
    relaxed = minimise(terms, starts, held=rotors(rdmol).torsions, fmax=0.05, max_steps=300)
    sound = np.isfinite(relaxed.energies) & np.isfinite(relaxed.positions).all((1, 2))
    sound[sound] = keeps_stereo(rdmol, relaxed.positions[sound])
    for k, x, ok in zip(there, relaxed.positions, sound):
        found[k] = x if ok else None
    return found, relaxed.energies[sound], terms
