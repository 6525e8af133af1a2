"""MMFF94 bonded and non-bonded terms of one molecule, with the parameters that RDKit assigns.

The functional form is Merck's (T. A. Halgren, J. Comput. Chem. 17, 490 (1996), eqs. 2-9; electrostatics and van der
Waals: ibid. 520 and 553). RDKit types the atoms and looks the parameters up (P. Tosco, N. Stiefl, G. Landrum,
J. Cheminform. 6, 37 (2014)); every parameter is converted to eV, Å and radians here, once.
The energies themselves are in :mod:`molflow_sim.forcefield.mmff_energy`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers, rdmolops

from molflow_sim.errors import MoleculeError, ParameterError, UnsupportedElementError
from molflow_sim.units import KCAL_PER_MOL

MILLIDYNE = 143.9325 * KCAL_PER_MOL
"""MMFF94's force-constant unit, 1 md/Å = 143.9325 kcal/(mol·Å²), in eV/Å² (1 md·Å/rad² in eV/rad²)."""
COULOMB_MMFF = 332.0716 * KCAL_PER_MOL
"""MMFF94's Coulomb constant in eV·Å/e² (not CODATA's: it is part of the force field)."""
ONE_FOUR_SCALE = 0.75
"""Factor on the electrostatics of atoms three bonds apart."""
MMFF_ELEMENTS = frozenset({1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53})
"""Atomic numbers that MMFF94 types in neutral organic molecules; boron is not among them."""


@dataclass(frozen=True, eq=False)
class MMFFTerms:
    """Index and parameter arrays of every MMFF94 term of one molecule.

    Indices are ``int64`` positions in the molecule's atom order, parameters ``float64`` in eV, Å and radians. With
    ``d = r - r0`` and ``t = θ - θ0`` the energies (Halgren 1996, eqs. 2-9) are

    - bond: ``k/2 d² (1 - 2 d + 7/3 d²)``
    - angle: ``k/2 t² (1 - 0.4 t)``; linear centres: ``k (1 + cos θ)``
    - stretch-bend: ``(k0 d0 + k1 d1) t``
    - out-of-plane: ``k/2 χ²``, χ the Wilson angle
    - torsion: ``v0/2 (1 + cos φ) + v1/2 (1 - cos 2φ) + v2/2 (1 + cos 3φ)``
    - van der Waals: ``ε (1.07 R/(r + 0.07 R))⁷ (1.12 R⁷/(r⁷ + 0.12 R⁷) - 2)``
    - electrostatics: ``q/(r + 0.05)``

    Attributes
    ----------
    n_atoms : int
        Number of atoms N.
    atom_types : (N,) array of int
        MMFF94 numeric atom types.
    charges : (N,) array
        MMFF94 partial charges in e, as RDKit gives them.
    bonds : (nb, 2) array of int
        Bonded atoms.
    bond_k : (nb,) array
        Force constant in eV/Å².
    bond_r0 : (nb,) array
        Reference length in Å.
    angles : (na, 3) array of int
        Atoms i, j, k with the centre j; linear centres are in `linear_angles` instead.
    angle_k : (na,) array
        Force constant in eV/rad².
    angle_theta0 : (na,) array
        Reference angle in rad.
    linear_angles : (nl, 3) array of int
        Atoms i, j, k around a centre j that MMFF94 types as linear.
    linear_k : (nl,) array
        Force constant in eV.
    stretch_bends : (ns, 3) array of int
        Atoms i, j, k with the centre j.
    stretch_bend_k : (ns, 2) array
        Coupling of the bonds i-j (column 0) and k-j (column 1) with the angle, in eV/(Å·rad).
    stretch_bend_r0 : (ns, 2) array
        Reference lengths of i-j and k-j in Å.
    stretch_bend_theta0 : (ns,) array
        Reference angle in rad.
    out_of_planes : (no, 4) array of int
        Atoms i, j, k, l with the centre j: the Wilson angle is that between the bond j-l and the plane i, j, k. A
        three-coordinate centre gives three rows.
    out_of_plane_k : (no,) array
        Force constant in eV/rad².
    torsions : (nt, 4) array of int
        Atoms i, j, k, l about the bond j-k.
    torsion_v : (nt, 3) array
        V1, V2, V3 in eV.
    pairs : (np, 2) array of int
        All pairs three or more bonds apart, i < j; they carry van der Waals and electrostatics.
    vdw_r : (np,) array
        Minimum-energy distance R of the pair in Å, donor-acceptor scaling applied.
    vdw_epsilon : (np,) array
        Well depth ε in eV, donor-acceptor scaling applied.
    coulomb : (np,) array
        q_i q_j times MMFF94's Coulomb constant times 0.75 where three bonds apart, in eV·Å.
    """

    n_atoms: int
    atom_types: np.ndarray
    charges: np.ndarray
    bonds: np.ndarray
    bond_k: np.ndarray
    bond_r0: np.ndarray
    angles: np.ndarray
    angle_k: np.ndarray
    angle_theta0: np.ndarray
    linear_angles: np.ndarray
    linear_k: np.ndarray
    stretch_bends: np.ndarray
    stretch_bend_k: np.ndarray
    stretch_bend_r0: np.ndarray
    stretch_bend_theta0: np.ndarray
    out_of_planes: np.ndarray
    out_of_plane_k: np.ndarray
    torsions: np.ndarray
    torsion_v: np.ndarray
    pairs: np.ndarray
    vdw_r: np.ndarray
    vdw_epsilon: np.ndarray
    coulomb: np.ndarray
    # tensors of the arrays above by (device, dtype), filled by mmff_energies
    _tensors: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)


def _array(rows: list, width: int | None, dtype: type) -> np.ndarray:
    """Stack rows into (n,) or (n, width), keeping the shape when there are none."""
    return np.array(rows, dtype=dtype).reshape((-1,) if width is None else (-1, width))


def _table(rows: list[tuple], **widths: int | None) -> dict[str, np.ndarray]:
    """Columns of rows (atoms, parameters ...) under their names, each (n, width) or (n,)."""
    columns = list(zip(*rows)) or [()] * len(widths)
    kinds = [np.int64] + [float] * (len(widths) - 1)
    return {n: _array(list(c), w, kind) for (n, w), c, kind in zip(widths.items(), columns, kinds)}


def _properties(mol: Chem.Mol) -> Any:
    """RDKit's MMFF94 typing of `mol` (changed in place), or the error that says why there is none."""
    unknown = sorted({a.GetSymbol() for a in mol.GetAtoms() if a.GetAtomicNum() not in MMFF_ELEMENTS})
    with rdBase.BlockLogs():
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant="MMFF94")
    if properties is not None:
        return properties
    smiles = Chem.MolToSmiles(Chem.RemoveHs(mol, sanitize=False))
    if unknown:
        raise UnsupportedElementError(
            f"MMFF94 has no parameters for {', '.join(unknown)} in {smiles}; "
            "molecules of H, C, N, O, F, Si, P, S, Cl, Br and I are supported"
        )
    raise ParameterError(
        f"MMFF94 has no atom types for some atoms of {smiles}: an unusual valence or charge state; "
        "check the bond orders, or choose another tautomer"
    )


def extract_mmff(rdmol: Chem.Mol) -> MMFFTerms:
    """Collect the MMFF94 terms of a molecule.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Sanitized molecule with explicit hydrogens. It is not changed.

    Returns
    -------
    MMFFTerms

    Raises
    ------
    UnsupportedElementError
        An element that MMFF94 does not know.
    ParameterError
        An atom that MMFF94 cannot type.
    MoleculeError
        Hydrogens are implicit.
    """
    if any(a.GetTotalNumHs(includeNeighbors=False) for a in rdmol.GetAtoms()):
        raise MoleculeError("the molecule has implicit hydrogens; add them (Chem.AddHs) before assigning MMFF94")
    mol = Chem.Mol(rdmol)  # typing kekulizes the molecule in place
    if mol.HasProp("_MMFFSanitized"):  # typed before: RDKit's second typing can differ from the first
        mol.ClearProp("_MMFFSanitized")
        Chem.SanitizeMol(mol)
    properties = _properties(mol)
    n = mol.GetNumAtoms()
    neighbours = [sorted(b.GetIdx() for b in a.GetNeighbors()) for a in mol.GetAtoms()]
    arrays: dict[str, Any] = {}
    _bonds(mol, properties, arrays)
    _angles(mol, properties, neighbours, arrays)
    _out_of_planes(mol, properties, neighbours, arrays)
    _torsions(mol, properties, neighbours, arrays)
    charges = np.array([properties.GetMMFFPartialCharge(i) for i in range(n)], dtype=float)
    _pairs(mol, properties, charges, arrays)
    types = np.array([properties.GetMMFFAtomType(i) for i in range(n)], dtype=np.int64)
    return MMFFTerms(n_atoms=n, atom_types=types, charges=charges, **arrays)


def _bonds(mol: Chem.Mol, properties: Any, arrays: dict[str, Any]) -> None:
    """Bond stretching (eq. 2)."""
    rows = []
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        found = properties.GetMMFFBondStretchParams(mol, i, j)  # (type, kb, r0)
        if found:
            rows.append(((i, j), MILLIDYNE * found[1], found[2]))
    arrays |= _table(rows, bonds=2, bond_k=None, bond_r0=None)


def _angles(mol: Chem.Mol, properties: Any, neighbours: list[list[int]], arrays: dict[str, Any]) -> None:
    """Angle bending (eq. 3), linear bending (eq. 4) and stretch-bend coupling (eq. 5)."""
    bends, linear, coupled = [], [], []
    for j, around in enumerate(neighbours):
        is_linear = len(around) == 2 and _is_linear_type(properties.GetMMFFAtomType(j))
        for position, i in enumerate(around):
            for l in around[position + 1 :]:
                found = properties.GetMMFFAngleBendParams(mol, i, j, l)  # (type, ka, theta0 in degrees)
                if not found:
                    continue
                if is_linear:
                    linear.append(((i, j, l), MILLIDYNE * found[1]))
                    continue
                theta0 = np.deg2rad(found[2])
                bends.append(((i, j, l), MILLIDYNE * found[1], theta0))
                coupling = properties.GetMMFFStretchBendParams(mol, i, j, l)  # (type, kbaIJK, kbaKJI)
                left = properties.GetMMFFBondStretchParams(mol, i, j)
                right = properties.GetMMFFBondStretchParams(mol, l, j)
                if coupling and left and right:
                    k = (MILLIDYNE * coupling[1], MILLIDYNE * coupling[2])
                    coupled.append(((i, j, l), k, (left[2], right[2]), theta0))
    arrays |= _table(bends, angles=3, angle_k=None, angle_theta0=None)
    arrays |= _table(linear, linear_angles=3, linear_k=None)
    arrays |= _table(coupled, stretch_bends=3, stretch_bend_k=2, stretch_bend_r0=2, stretch_bend_theta0=None)


def _is_linear_type(atom_type: int) -> bool:
    """Whether MMFF94 (MMFFPROP.PAR, column "lin") treats centres of this type as linear.

    Types: 4 (alkyne, allene, CO2 carbon), 42 (cyanide N), 53 (=N= of azides), 60 (isonitrile C), 61 (isonitrile
    and diazonium N).
    """
    return atom_type in (4, 42, 53, 60, 61)


def _out_of_planes(mol: Chem.Mol, properties: Any, neighbours: list[list[int]], arrays: dict[str, Any]) -> None:
    """Out-of-plane bending at three-coordinate centres (eq. 6): one Wilson angle per bond."""
    rows = []
    for j, around in enumerate(neighbours):
        if len(around) != 3:
            continue
        a, b, c = around
        constant = properties.GetMMFFOopBendParams(mol, a, j, b, c)
        if constant:
            rows += [(atoms, MILLIDYNE * constant) for atoms in ((a, j, b, c), (a, j, c, b), (b, j, c, a))]
    arrays |= _table(rows, out_of_planes=4, out_of_plane_k=None)


def _torsions(mol: Chem.Mol, properties: Any, neighbours: list[list[int]], arrays: dict[str, Any]) -> None:
    """Torsions (eq. 7); RDKit gives none about linear atoms."""
    rows = []
    for bond in mol.GetBonds():
        j, k = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        for i in neighbours[j]:
            for l in neighbours[k]:
                if i == k or l == j or i == l:
                    continue
                found = properties.GetMMFFTorsionParams(mol, i, j, k, l)  # (type, V1, V2, V3)
                if found and any(found[1:]):
                    rows.append(((i, j, k, l), [KCAL_PER_MOL * value for value in found[1:]]))
    arrays |= _table(rows, torsions=4, torsion_v=3)


def _pairs(mol: Chem.Mol, properties: Any, charges: np.ndarray, arrays: dict[str, Any]) -> None:
    """Buffered 14-7 (eq. 8) and buffered Coulomb (eq. 9) over all pairs three or more bonds apart."""
    separation = rdmolops.GetDistanceMatrix(mol)
    i, j = np.nonzero(np.triu(separation >= 3))
    found = [properties.GetMMFFVdWParams(int(a), int(b)) for a, b in zip(i, j)]  # (R, eps unscaled, R, eps scaled)
    vdw = _array(found, 4, float)
    scale = np.where(separation[i, j] == 3, ONE_FOUR_SCALE, 1.0)
    arrays |= {
        "pairs": np.stack([i, j], axis=1).astype(np.int64),
        "vdw_r": vdw[:, 2],
        "vdw_epsilon": KCAL_PER_MOL * vdw[:, 3],
        "coulomb": COULOMB_MMFF * charges[i] * charges[j] * scale,
    }
