"""Charges fitted to an electrostatic potential outside the molecule.

The points are those of Merz and Kollman (U. C. Singh, P. A. Kollman, J. Comput. Chem. 5, 129 (1984)): four shells at
1.4, 1.6, 1.8 and 2.0 times the van der Waals radii. The charges minimise the squared error of the potential under
two exact constraints, the total charge is 0 and topologically equivalent atoms are equal, and a weak harmonic
restraint on heavy atoms (0.0005 a.u., as in stage one of RESP: C. I. Bayly et al., J. Phys. Chem. 97, 10269 (1993),
there hyperbolic) that settles buried atoms, which the potential hardly determines.
"""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from molflow_sim.errors import MissingDependencyError, ParameterError
from molflow_sim.forcefield.exp6 import EXP6_TYPES
from molflow_sim.threads import one_blas_thread, one_openmp_thread
from molflow_sim.units import BOHR

SHELLS = (1.4, 1.6, 1.8, 2.0)
"""Radii of the shells, as multiples of the van der Waals radii."""
_RESTRAINT = 0.0005
_DENSITY = 3.0  # points per Å²: charges of buried atoms change by about 0.005 e with the molecule's orientation


def equivalent_atoms(rdmol: Chem.Mol) -> np.ndarray:
    """Classes of topologically equivalent atoms.

    Bond orders, formal charges and stereochemistry are ignored, so that the oxygens of a nitro group are one class,
    as are the hydrogens of a methyl group and the two of a CH2 next to a stereocentre.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Molecule with explicit hydrogens.

    Returns
    -------
    (N,) array of int
        Class of each atom, 0, 1, 2, ...
    """
    graph = Chem.RWMol()
    for atom in rdmol.GetAtoms():
        node = Chem.Atom(atom.GetAtomicNum())
        node.SetNoImplicit(True)
        graph.AddAtom(node)
    for bond in rdmol.GetBonds():
        graph.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    graph.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(graph)
    ranks = Chem.CanonicalRankAtoms(graph, breakTies=False, includeChirality=False)
    return np.unique(np.array(ranks, dtype=int), return_inverse=True)[1]


def shell_points(symbols: list[str], positions: np.ndarray) -> np.ndarray:
    """Points on the molecular shells.

    Parameters
    ----------
    symbols : list of str
        N element symbols.
    positions : (N, 3) array
        Å.

    Returns
    -------
    (M, 3) array
        Points in Å, none inside the shell it belongs to.
    """
    radii = np.array([EXP6_TYPES["HC" if s == "H" else s].radius for s in symbols])
    points = []
    for scale in SHELLS:
        scaled = scale * radii
        for k, (centre, radius) in enumerate(zip(positions, scaled)):
            sphere = centre + radius * _fibonacci_sphere(max(12, round(4 * np.pi * radius**2 * _DENSITY)))
            distance = np.linalg.norm(sphere[:, None] - positions, axis=-1)
            distance[:, k] = np.inf
            points.append(sphere[(distance >= scaled).all(1)])
    return np.concatenate(points)


def _fibonacci_sphere(n: int) -> np.ndarray:
    """Nearly uniform points (n, 3) on the unit sphere."""
    k = np.arange(n) + 0.5
    z, phi = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    rho = np.sqrt(1 - z * z)
    return np.stack([rho * np.cos(phi), rho * np.sin(phi), z], axis=1)


def inverse_distances(points: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Potential (M, N) in e/Å at points (M, 3) of a unit charge at each of some positions (N, 3) in Å."""
    return np.asarray(1.0 / np.linalg.norm(points[:, None] - positions, axis=-1))


def fit_charges(unit: np.ndarray, potential: np.ndarray, classes: np.ndarray, restrained: np.ndarray) -> np.ndarray:
    """Charges that reproduce a potential.

    Parameters
    ----------
    unit : (M, N) array
        `inverse_distances` of points and charges, of several conformers one after another.
    potential : (M,) array
        Potential in e/Å (that of a unit charge at 1 Å is 1).
    classes : (N,) array of int
        Charges of one class are equal.
    restrained : (N,) array of bool
        Charges that the weak restraint acts on.

    Returns
    -------
    (N,) array
        Charges in e that sum to 0.
    """
    per_class = np.eye(classes.max() + 1)[classes]  # (N, classes)
    design = unit @ per_class
    # the restraint weighs hartree/e against (hartree/e)² summed over the points: both to e/Å
    restraint = per_class.T @ (restrained[:, None] * per_class) * _RESTRAINT / BOHR**2
    n = design.shape[1]
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = design.T @ design + restraint
    system[:n, n] = system[n, :n] = per_class.sum(0)
    solution = np.linalg.lstsq(system, np.append(design.T @ potential, 0.0), rcond=None)[0]
    return per_class @ solution[:n]


def hf_potential(symbols: list[str], positions: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Electrostatic potential of the neutral closed-shell molecule from HF/6-31G* (pyscf).

    Iodine, for which 6-31G* does not exist, has def2-SVP with its effective core potential. The density-fitted Fock
    matrix (2-3 times faster) moves the charges of aspirin by less than 0.0005 e.

    Parameters
    ----------
    symbols : list of str
        N element symbols.
    positions : (N, 3) array
        Å.
    points : (M, 3) array
        Å.

    Returns
    -------
    (M,) array
        Potential in e/Å.

    Raises
    ------
    MissingDependencyError
        pyscf is not installed.
    ParameterError
        The self-consistent field does not converge.
    """
    try:
        from pyscf import df, gto, scf
    except ImportError as error:
        raise MissingDependencyError("pyscf") from error
    with one_blas_thread(), one_openmp_thread():
        mol = gto.M(
            atom=list(zip(symbols, np.asarray(positions).tolist())),
            unit="Angstrom",
            basis={s: "def2-svp" if s == "I" else "6-31g*" for s in set(symbols)},
            ecp={"I": "def2-svp"} if "I" in symbols else {},
            verbose=0,
        )
        field = scf.RHF(mol).density_fit()
        field.conv_tol = 1e-8
        field.kernel()
        if not field.converged:
            field = field.newton()
            field.kernel()
        if not field.converged:
            raise ParameterError("HF/6-31G* did not converge; use another charge model, for example charges='mmff94'")
        density = field.make_rdm1()
        packed = 2 * density - np.diag(np.diag(density))  # off-diagonal elements count twice in the lower triangle
        packed = packed[np.tril_indices(mol.nao)]

        grid = np.asarray(points) / BOHR
        nuclei = mol.atom_coords()
        potential = (mol.atom_charges() / np.linalg.norm(grid[:, None] - nuclei, axis=-1)).sum(1)
        chunk = max(1, int(2e8 / (8 * len(packed))))  # 200 MB of integrals at a time
        for start in range(0, len(grid), chunk):
            probes = gto.fakemol_for_charges(grid[start : start + chunk])
            integrals = df.incore.aux_e2(mol, probes, intor="int3c2e", aosym="s2ij")
            potential[start : start + chunk] -= packed @ integrals
        return potential / BOHR
