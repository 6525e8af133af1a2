"""The beads of a whole molecule: which heavy atom belongs to which bead, and how beads are bonded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.coarse.contraction import contracted_bonds
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import MappingError

if TYPE_CHECKING:
    from rdkit import Chem


@dataclass(frozen=True, eq=False)
class MoleculeBeads:
    """A partition of a molecule's heavy atoms into beads.

    Unlike a `molflow_sim.cg.BeadMapping` the beads may close rings, and one bead may be the whole molecule.

    Attributes
    ----------
    topology : BeadTopology
        The B beads; bonded where atoms of theirs are. Their masses count the hydrogens.
    owner : ndarray of int, shape (N,)
        Bead of each atom of the molecule, −1 for hydrogens.
    """

    topology: BeadTopology
    owner: np.ndarray

    @property
    def n_beads(self) -> int:
        """Number of beads."""
        return self.topology.n_beads

    def apply(self, positions: np.ndarray) -> np.ndarray:
        """Mean positions of the heavy atoms of each bead.

        Parameters
        ----------
        positions : ndarray, shape (..., N, 3)

        Returns
        -------
        ndarray, shape (..., B, 3)
            Same unit.

        Raises
        ------
        MappingError
            Another number of atoms.
        """
        if positions.shape[-2:] != (len(self.owner), 3):
            raise MappingError(f"positions of shape {positions.shape} for a molecule of {len(self.owner)} atoms")
        shares = self.owner[None, :] == np.arange(self.n_beads)[:, None]
        return (shares / shares.sum(1, keepdims=True)).astype(positions.dtype) @ positions

    @classmethod
    def from_groups(cls, rdmol: Chem.Mol, groups: Sequence[Sequence[int]]) -> MoleculeBeads:
        """From the heavy atoms of each bead.

        Raises
        ------
        MappingError
            An empty group, or a heavy atom that is in no group or in several.
        """
        atoms = list(rdmol.GetAtoms())
        counts = Counter(int(i) for group in groups for i in group)
        heavy = [a.GetIdx() for a in atoms if a.GetAtomicNum() > 1]
        if not heavy:
            raise MappingError("a molecule of hydrogen alone has no heavy atoms to make beads of")
        wrong = [i for i in heavy if counts[i] != 1] + [i for i in counts if i not in heavy]
        if wrong or not all(len(group) for group in groups):
            what = f"atom {wrong[0]} is in {counts[wrong[0]]} beads" if wrong else "a bead has no atoms"
            raise MappingError(f"beads must share out the heavy atoms, each in one bead: {what}")
        owner = np.full(len(atoms), -1)
        for bead, group in enumerate(groups):
            owner[list(group)] = bead
        masses = np.zeros(len(groups))
        for a in atoms:
            parent = a.GetIdx() if owner[a.GetIdx()] >= 0 else next((n.GetIdx() for n in a.GetNeighbors()), -1)
            masses[owner[parent]] += a.GetMass()
        pairs = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in rdmol.GetBonds()]).reshape(-1, 2)
        topology = BeadTopology(
            names=tuple(_formula([atoms[i].GetSymbol() for i in group]) for group in groups),
            masses=masses,
            bonds=contracted_bonds(owner, len(groups), pairs),
        )
        owner.setflags(write=False)
        return cls(topology, owner)


def _formula(symbols: list[str]) -> str:
    """Elements in alphabetical order with their counts, "C4S"."""
    return "".join(f"{s}{n if n > 1 else ''}" for s, n in sorted(Counter(symbols).items()))
