"""Bond orders and formal charges from a bond graph with all hydrogens, as an integer linear programme.

Every atom takes one (valence, charge) state, every bond an order of 1 to 3, so that the orders around an atom add up to
its valence and the charges to the molecule's; among the solutions the one with the fewest charges whose bonds are
closest to typical lengths wins. The idea is that of Froeyen & Herdewijn, J. Chem. Inf. Model. 45, 1267 (2005);
lengths are sums of the covalent radii of Pyykkö & Atsumi, Chem. Eur. J. 15, 12770 (2009).
"""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols
from rdkit import Chem, rdBase
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from molflow_sim.chemistry.conformers import with_positions
from molflow_sim.errors import MoleculeError, UnsupportedElementError

TIME_LIMIT = 5.0
"""Seconds the solver may take for one molecule."""

# element -> ((valence, charge, cost), ...): closed shells, the common one free
_STATES: dict[int, tuple[tuple[int, int, float], ...]] = {
    1: ((1, 0, 0.0),),
    5: ((3, 0, 0.0), (4, -1, 0.5)),
    6: ((4, 0, 0.0), (3, -1, 3.0), (3, 1, 4.0)),
    7: ((3, 0, 0.0), (4, 1, 1.0), (2, -1, 1.2)),
    8: ((2, 0, 0.0), (1, -1, 1.0), (3, 1, 1.5)),
    9: ((1, 0, 0.0), (0, -1, 1.0)),
    14: ((4, 0, 0.0), (5, -1, 2.0)),
    15: ((3, 0, 0.0), (5, 0, 0.2), (4, 1, 1.0), (2, -1, 2.0)),
    16: ((2, 0, 0.0), (4, 0, 0.3), (6, 0, 0.3), (1, -1, 1.0), (3, 1, 1.5)),
    17: ((1, 0, 0.0), (0, -1, 1.0), (7, 0, 2.0)),
    35: ((1, 0, 0.0), (0, -1, 1.0)),
    53: ((1, 0, 0.0), (0, -1, 1.0), (3, 0, 1.0), (5, 0, 2.0)),
}
_RADII = {
    1: (0.32, 0.32, 0.32),
    5: (0.85, 0.78, 0.73),
    6: (0.75, 0.67, 0.60),
    7: (0.71, 0.60, 0.54),
    8: (0.63, 0.57, 0.53),
    9: (0.64, 0.59, 0.53),
    14: (1.16, 1.07, 1.02),
    15: (1.11, 1.02, 0.94),
    16: (1.03, 0.94, 0.95),
    17: (0.99, 0.95, 0.93),
    35: (1.14, 1.09, 1.10),
    53: (1.33, 1.29, 1.25),
}
_STIFFNESS = 6.0  # cost per Å² of misfit: keeps lengths from buying charges
_ORDERS = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)


def solve(
    numbers: np.ndarray, lengths: np.ndarray, bonds: np.ndarray, charge: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Bond orders (nb,) and formal charges (N,), or None where no closed-shell assignment with `charge` exists.

    Parameters
    ----------
    numbers : ndarray (N,)
        Atomic numbers, hydrogens included.
    lengths : ndarray (nb,)
        Bond lengths in Å.
    bonds : ndarray (nb, 2)
    charge : int
        Net charge in e.
    """
    n, nb = len(numbers), len(bonds)
    degree = np.bincount(bonds.ravel(), minlength=n) if nb else np.zeros(n, dtype=int)
    states = [(i, *s) for i in range(n) for s in _STATES.get(int(numbers[i]), ()) if s[0] >= degree[i]]
    if len({s[0] for s in states}) < n:
        return None
    orders = [
        (b, o) for b in range(nb) for o in range(3) if o == 0 or 1 not in (numbers[bonds[b, 0]], numbers[bonds[b, 1]])
    ]
    ns = len(states)
    cost = np.array(
        [s[3] for s in states]
        + [
            _STIFFNESS * (lengths[b] - _RADII[int(numbers[bonds[b, 0]])][o] - _RADII[int(numbers[bonds[b, 1]])][o]) ** 2
            for b, o in orders
        ]
    )
    rows, columns, values = [], [], []

    def put(row: int, column: int, value: float) -> None:
        rows.append(row)
        columns.append(column)
        values.append(value)

    # rows: one state per atom; orders minus valence = 0 per atom; one order per bond; net charge
    for k, (i, valence, q, _) in enumerate(states):
        put(i, k, 1.0)
        put(n + i, k, -float(valence))
        put(2 * n + nb, k, float(q))
    for k, (b, o) in enumerate(orders):
        for i in bonds[b]:
            put(n + int(i), ns + k, o + 1.0)
        put(2 * n + b, ns + k, 1.0)
    target = np.concatenate([np.ones(n), np.zeros(n), np.ones(nb), [float(charge)]])
    matrix = coo_array((values, (rows, columns)), shape=(len(target), len(cost))).tocsc()
    result = milp(
        cost,
        integrality=np.ones(len(cost)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, target, target),
        options={"time_limit": TIME_LIMIT},
    )
    if result.x is None:
        return None
    chosen = np.rint(result.x).astype(bool)
    out_orders, out_charges = np.ones(nb, dtype=int), np.zeros(n, dtype=int)
    for k in np.flatnonzero(chosen).tolist():
        if k < ns:
            out_charges[states[k][0]] = states[k][2]
        else:
            out_orders[orders[k - ns][0]] = int(orders[k - ns][1]) + 1
    return out_orders, out_charges


def molecule_from_graph(
    numbers: np.ndarray, positions: np.ndarray, bonds: np.ndarray, what: str = "molecule"
) -> Chem.Mol:
    """A sanitized, neutral RDKit molecule with one conformer and stereochemistry from it.

    Parameters
    ----------
    numbers : ndarray (N,)
    positions : ndarray (N, 3)
        Å, whole.
    bonds : ndarray (nb, 2)
    what : str
        Named in the errors.

    Raises
    ------
    UnsupportedElementError
        If an element has no known valence here.
    MoleculeError
        If no closed-shell Lewis structure is neutral, or RDKit refuses it.
    """
    strange = sorted({chemical_symbols[z] for z in numbers.tolist() if z not in _STATES})
    if strange:
        raise UnsupportedElementError(f"{what}: element {', '.join(strange)} is not supported")
    bonds = np.asarray(bonds, dtype=int).reshape(-1, 2)
    lengths = np.linalg.norm(positions[bonds[:, 0]] - positions[bonds[:, 1]], axis=1)
    solved = solve(numbers, lengths, bonds, 0)
    if solved is None:
        other = next((q for q in (1, -1, 2, -2, 3, -3) if solve(numbers, lengths, bonds, q)), None)
        if other is None:
            raise MoleculeError(f"{what}: no closed-shell bonding pattern; hydrogens may be missing or it is a radical")
        raise MoleculeError(f"{what}: the bonds add up to a charge of {other:+d} where none is supported")
    mol = Chem.RWMol()
    for z, q in zip(numbers.tolist(), solved[1].tolist()):
        atom = Chem.Atom(int(z))
        atom.SetFormalCharge(int(q))
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    for (i, j), bond_order in zip(bonds.tolist(), solved[0].tolist()):
        mol.AddBond(i, j, _ORDERS[bond_order - 1])
    out = with_positions(mol.GetMol(), positions)
    with rdBase.BlockLogs():
        try:
            kekulized = Chem.Mol(out)
            Chem.SanitizeMol(out)
            try:
                Chem.RemoveHs(out)
            except Chem.KekulizeException:  # phosphazenes: RDKit calls them aromatic but cannot take that back
                out = kekulized
                Chem.SanitizeMol(out, Chem.SANITIZE_ALL ^ Chem.SANITIZE_SETAROMATICITY)
            Chem.AssignStereochemistryFrom3D(out)
        except (Chem.MolSanitizeException, ValueError, RuntimeError) as error:
            raise MoleculeError(f"{what}: RDKit refuses the perceived bonds: {error}") from error
    return out
