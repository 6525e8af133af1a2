"""Generators of conformers that need no network: RDKit's embeddings, and minima of MMFF94 near them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from molflow_sim.errors import ConformerError, InputError
from molflow_sim.generators.protocol import ConformerRequest, Drawn, served
from molflow_sim.systems.molecule import Molecule


def drawn(molecule: Molecule, first_index: int, positions: list[np.ndarray | None], reason: str) -> Drawn:
    """Raw draws: a molecule of one conformer for each of `positions` (N, 3) in Å, `reason` where there is none."""
    bare = replace(molecule, energies=np.full(len(molecule.conformers), np.nan), info={})
    made = [
        None if x is None else replace(bare, conformers=x[None], energies=np.array([np.nan]), shares=np.ones(1))
        for x in positions
    ]
    return Drawn(first_index + np.arange(len(made)), made, ["" if m is not None else reason for m in made])


@dataclass(frozen=True)
class EtkdgConformers:
    """RDKit's embeddings (`molflow_sim.chemistry.embedding`).

    Attributes
    ----------
    torsion_preferences : bool
        ETKDGv3; without, KDG, whose torsions are those of plain distance geometry.
    """

    kind: ClassVar[str] = "conformers/etkdg"
    torsion_preferences: bool = True

    def sample(self, request: ConformerRequest, n: int, *, seed: int, first_index: int = 0) -> Drawn:
        """See `Generator.sample`."""
        molecule = served(request, ConformerRequest, self.kind, n).molecule
        positions = self.positions(molecule, n, seed, first_index)
        return drawn(molecule, first_index, positions, ConformerError("not embedded").reason)

    def positions(self, molecule: Molecule, n: int, seed: int, first_index: int) -> list[np.ndarray | None]:
        """Conformers (N, 3) in Å, None where none was found."""
        from molflow_sim.chemistry.embedding import embedded

        return embedded(molecule.rdmol, n, seed, first_index, self.torsion_preferences)

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`; RDKit's version belongs to it."""
        from rdkit import __version__

        return {"generator": self.kind.rpartition("/")[2], **asdict(self), "rdkit": __version__}


@dataclass(frozen=True)
class MmffConformers(EtkdgConformers):
    """Minima of MMFF94 near RDKit's embeddings.

    Attributes
    ----------
    dielectric : float
        Relative permittivity by which electrostatics are divided, 1 for vacuum.
    """

    kind: ClassVar[str] = "conformers/mmff"
    dielectric: float = 4.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.dielectric <= 1000.0:
            raise InputError(f"the dielectric constant must lie between 1 and 1000, not {self.dielectric}")

    def positions(self, molecule: Molecule, n: int, seed: int, first_index: int) -> list[np.ndarray | None]:
        """See `EtkdgConformers.positions`."""
        from molflow_sim.chemistry.checks import check_molecule
        from molflow_sim.chemistry.conformers import keeps_stereo, minimised

        check_molecule(molecule.rdmol, what=molecule.smiles, force_field=True)
        found = super().positions(molecule, n, seed, first_index)
        starts = [x for x in found if x is not None]
        if not starts:
            return found
        relaxed, energies = minimised(molecule.rdmol, np.array(starts), self.dielectric)
        good = np.isfinite(energies) & np.isfinite(relaxed).all((1, 2))
        good[good] = keeps_stereo(molecule.rdmol, relaxed[good])
        left = iter([y if ok else None for y, ok in zip(relaxed, good)])
        return [None if x is None else next(left) for x in found]
