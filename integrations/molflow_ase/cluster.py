"""ASE calculator of clusters of molecules."""

from __future__ import annotations

import numpy as np

from molflow_ase.calculator import JUMP, CrystalCalculator
from molflow_sim.errors import ClusterError
from molflow_sim.systems.cluster_read import recognise


class ClusterCalculator(CrystalCalculator):
    """Energy and forces of a cluster of molecules, open or in a periodic box, by the same energies as crystals.

    Open clusters have no cutoff: every pair counts in full, with bare charges. Everything else is as in
    `CrystalCalculator`, whose parameters it takes: molecules are read from the atoms unless they are given
    (a `MolecularCluster` or its species).

    Examples
    --------
    >>> atoms = cluster.to_ase()                                # doctest: +SKIP
    >>> atoms.calc = ClusterCalculator()                        # doctest: +SKIP
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 (ASE's own declaration)

    def _check(self) -> None:
        if self.atoms.pbc.any() != self.atoms.pbc.all():
            raise ClusterError("the atoms are periodic in some directions only; set atoms.pbc to True or False")
        if self.atoms.pbc.any():
            super()._check()

    def _places(self) -> np.ndarray:
        return super()._places() if self.atoms.pbc.any() else self.atoms.get_positions()

    def _read(self) -> None:
        self._numbers = np.zeros(0, dtype=int)
        species, _, index, _ = recognise(self.atoms)
        self.potential = self._potential_of(list(species))
        self._last = self._places()
        self._numbers, self._order = self.atoms.numbers.copy(), index

    def _jumped(self) -> bool:
        if self.atoms.pbc.any():
            return super()._jumped()
        return bool(np.linalg.norm(self._places() - self._last, axis=1).max() > JUMP)
