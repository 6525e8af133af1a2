"""The potential as molecular dynamics wants it: one box (or droplet) of molecules that stays the same, step after step.

Energy and forces of what `CrystalPotential` computes, but for the reciprocal sum, which a particle mesh does faster
(OpenMM's, see `molflow_openmm.compiled`). Pairs run in single precision over a neighbour list that lasts many steps;
molecules, and all sums, in double. The work is cut by the system alone and added up in one order, so that the bits of a
result do not depend on the number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise

import numba as nb
import numpy as np
from scipy.integrate import quad

from molflow_sim.errors import InputError, NonFiniteError
from molflow_sim.forcefield.exp6 import GUARD_RADIUS
from molflow_sim.forcefield.molecules_compiled import bonded_arrays, molecules, pair_tables
from molflow_sim.forcefield.neighbours import VerletList, split_into_groups
from molflow_sim.forcefield.pairs_single import MOST_SPLITTING, pair_chunk, screening
from molflow_sim.forcefield.parameters import MoleculeParameters
from molflow_sim.threads import share
from molflow_sim.units import COULOMB

SWITCH_WIDTH = 2.0
"""Å; as `molflow_sim.forcefield.potential` has it."""
SKIN = 1.5
"""Verlet skin, Å; of 1 to 2.5 Å the fastest at room temperature."""
EVERYTHING = 1e5
"""Å; the cutoff of a droplet, for which all pairs count."""
TORN = 30.0
"""Å; a group of eight bonded atoms is never as large, and one that is would see no end of neighbours."""
_NOWHERE = 1e7 * np.eye(3)  # the cell of a droplet


class DynamicsPotential:
    """Energy and forces of a fixed sequence of molecules.

    Parameters
    ----------
    parameters : sequence of MoleculeParameters
        The species.
    order : sequence of int
        Species of every molecule, in the order in which their atoms stand.
    cutoff : float or None
        Of exp-6 (switched over the last 2 Å) and of the real-space sum, Å. None: a droplet, where all pairs count.
    alpha : float
        Ewald splitting, 1/Å; 0 means plain Coulomb (what a droplet has).
    dispersion_correction : bool
        Isotropic exp-6 beyond the cutoff, as OpenMM defines it.
    skin : float
        Verlet skin, Å; changes the speed only.

    Raises
    ------
    InputError
        A cutoff shorter than the switch, or a splitting beyond single precision.
    """

    def __init__(
        self,
        parameters: Sequence[MoleculeParameters],
        order: Sequence[int],
        *,
        cutoff: float | None,
        alpha: float = 0.0,
        dispersion_correction: bool = False,
        skin: float = SKIN,
    ) -> None:
        if cutoff is not None and not cutoff > SWITCH_WIDTH:
            raise InputError(f"the cutoff ({cutoff:g} Å) must exceed the switch width, {SWITCH_WIDTH:g} Å")
        if alpha * (cutoff or 0.0) > MOST_SPLITTING or (cutoff is None and alpha):
            raise InputError(
                f"an Ewald splitting of {alpha:g}/Å is more than {MOST_SPLITTING} over the cutoff, {cutoff} Å"
            )
        self.arguments = (tuple(parameters), tuple(int(s) for s in order), cutoff, alpha, dispersion_correction, skin)
        self.periodic = cutoff is not None
        self.tail = long_range(parameters, order, cutoff) if dispersion_correction and cutoff is not None else 0.0
        self._lock = threading.Lock()
        self._lay_out(parameters, np.asarray(order, dtype=int))
        reach = EVERYTHING if cutoff is None else cutoff
        self._limits = (reach, reach - SWITCH_WIDTH, alpha, screening(alpha, reach))
        self._verlet = VerletList(reach, skin)
        self._box = np.array([0, len(self._group_molecule)])
        self._shift, self._listed = np.empty(0, np.int32), np.empty((4, 0), np.float32)
        self._translations = np.zeros((1, 3))

    def __reduce__(self) -> tuple:
        return _rebuild, self.arguments

    @property
    def n_lists(self) -> int:
        """Neighbour lists built so far."""
        return self._verlet.n_built

    def _lay_out(self, parameters: Sequence[MoleculeParameters], order: np.ndarray) -> None:
        """Arrays over the atoms in group order, and the tasks."""
        sizes = np.array([len(p.numbers) for p in parameters])
        firsts = np.concatenate([[0], np.cumsum(sizes[order])])
        groups = [split_into_groups(n, p.mmff.bonds) for n, p in zip(sizes.tolist(), parameters)]
        self.n_atoms = int(firsts[-1])
        self._order = np.concatenate([f + g for f, s in zip(firsts, order) for g in groups[s]])
        self._group_start = np.concatenate([[0], np.cumsum([len(g) for s in order for g in groups[s]])])
        self._anchor = np.repeat(self._group_start[:-1], np.diff(self._group_start))
        self._group_molecule = np.repeat(np.arange(len(order)), [len(groups[s]) for s in order])
        columns = [
            np.stack([np.sqrt(p.exp6_a), 0.5 * p.exp6_b, np.sqrt(p.exp6_c), p.charges * np.sqrt(COULOMB)])
            for p in parameters
        ]
        atoms = np.concatenate([columns[s] for s in order], axis=1)
        self._columns = np.ascontiguousarray(atoms[:, self._order].astype(np.float32))
        n_groups = len(self._group_molecule)
        n_chunks = int(np.clip(n_groups // 24, 1, 8))
        # early groups own most of the half list: quadratic spacing evens the work
        cuts = np.rint(n_groups * (1.0 - np.sqrt(np.linspace(1.0, 0.0, n_chunks + 1)))).astype(int)
        self._chunks = list(zip(cuts[:-1].tolist(), cuts[1:].tolist()))
        self._runs = []  # (species arrays, first atoms, first and last molecule of the run)
        for s in np.unique(order).tolist():
            start = firsts[:-1][order == s]
            arrays = (start, pair_tables(parameters[s]), bonded_arrays(parameters[s]))
            n_parts = min(len(start), 8)
            edges = [len(start) * k // n_parts for k in range(n_parts + 1)]
            self._runs += [(arrays, a, b) for a, b in pairwise(edges)]

    def __call__(self, positions: np.ndarray, cell: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Evaluate.

        Parameters
        ----------
        positions : (n, 3) array
            Whole molecules, Å.
        cell : (3, 3) array or None
            Rows, Å; None for a droplet.

        Returns
        -------
        energy : float
            eV.
        forces : (n, 3) array
            eV/Å.

        Raises
        ------
        NonFiniteError
            The molecules are torn apart or positions are not finite.
        """
        with self._lock:
            cell = np.asarray(cell if self.periodic else _NOWHERE, dtype=float)
            positions = np.ascontiguousarray(positions, dtype=float)
            ordered = positions[self._order]
            if not np.abs(ordered - ordered[self._anchor]).max() < TORN:  # NaN fails, too
                raise NonFiniteError("the molecules are torn apart: the dynamics blew up")
            entries, changed = self._verlet.update(
                ordered, cell[None], self._group_start, self._group_molecule, self._box, np.zeros(1, dtype=bool)
            )
            if changed:
                n = entries.start[-1] + entries.count[-1]
                self._encode(entries.shift[:n])
                self._listed = np.take(self._columns, entries.atom[:n], axis=1)
            where = (self._group_start, entries.start, entries.count, entries.atom, self._shift, self._listed)
            shifts = self._translations @ cell
            n_pairs = len(self._chunks)
            outer = np.zeros((n_pairs, self.n_atoms, 3))
            inner = np.empty((self.n_atoms, 3))
            energy = np.zeros(n_pairs)
            inside = [np.zeros(b) for _, _, b in self._runs]

            def work(first: int, last: int) -> None:
                for task in range(first, last):
                    if task < n_pairs:
                        energy[task] = pair_chunk(  # type: ignore[call-arg]  # numba's stub knows no star arguments
                            *self._chunks[task], ordered, shifts, self._columns, *where, *self._limits, outer[task]
                        )
                    else:
                        (start, tables, bonded), a, b = self._runs[task - n_pairs]
                        out = (inside[task - n_pairs], inner)
                        molecules(a, b, positions, start, tables, self._limits[2], *bonded, *out)  # type: ignore[call-arg]

            share(n_pairs + len(self._runs), work)
            _collect(outer, self._order, inner)
            total = float(energy.sum() + sum(e.sum() for e in inside))
            return total + (self.tail / abs(np.linalg.det(cell)) if self.periodic else 0.0), inner

    def _encode(self, shift: np.ndarray) -> None:
        """Each entry's lattice translation as its row in the table of all that occur."""
        n = int(np.abs(shift).max(initial=0))
        self._translations = np.array(list(np.ndindex(2 * n + 1, 2 * n + 1, 2 * n + 1)), dtype=float) - n
        wide = shift.astype(np.int32) + n
        self._shift = (wide[:, 0] * (2 * n + 1) + wide[:, 1]) * (2 * n + 1) + wide[:, 2]


def _rebuild(
    parameters: tuple, order: tuple, cutoff: float | None, alpha: float, tail: bool, skin: float
) -> DynamicsPotential:
    return DynamicsPotential(parameters, order, cutoff=cutoff, alpha=alpha, dispersion_correction=tail, skin=skin)


@nb.njit(cache=True)
def _collect(outer, order, inner):
    """Add the chunks' forces (C, n, 3), in group order, to those inside the molecules (n, 3)."""
    for a in range(len(order)):
        for c in range(len(outer)):
            for d in range(3):
                inner[order[a], d] += outer[c, a, d]


def long_range(parameters: Sequence[MoleculeParameters], order: Sequence[int], cutoff: float) -> float:
    """OpenMM's isotropic correction of exp-6 beyond a switched cutoff, times the volume: eV·Å³.

    2π N² ⟨∫ (1 - S(r)) u(r) r² dr⟩, averaged over all pairs of the box's atoms, each atom with itself included.
    """
    counts = np.bincount(np.asarray(order), minlength=len(parameters))
    kinds: dict[tuple[float, ...], int] = {}
    for p, n in zip(parameters, counts.tolist()):
        for kind in zip(np.sqrt(p.exp6_a).tolist(), (0.5 * p.exp6_b).tolist(), np.sqrt(p.exp6_c).tolist()):
            kinds[kind] = kinds.get(kind, 0) + n
    guard, onset = GUARD_RADIUS**6, cutoff - SWITCH_WIDTH
    total, items = 0.0, [(kind, n) for kind, n in kinds.items() if n]
    for i, ((a1, b1, c1), n1) in enumerate(items):
        for (a2, b2, c2), n2 in items[i:]:

            def missing(r: float, a: float = a1 * a2, b: float = b1 + b2, c: float = c1 * c2) -> float:
                t = min((r - onset) / SWITCH_WIDTH, 1.0)
                dropped = t**3 * (10.0 - 15.0 * t + 6.0 * t * t)
                return dropped * r * r * (a * np.exp(-b * r) - c / r**6 + c * guard / r**12)

            integral = quad(missing, onset, cutoff)[0] + quad(missing, cutoff, np.inf)[0]
            total += integral * (n1 * n2 if (a1, b1, c1) != (a2, b2, c2) else n1 * (n1 + 1) / 2)
    n = sum(kinds.values())
    return 2.0 * np.pi * n * n * total / (n * (n + 1) / 2)
