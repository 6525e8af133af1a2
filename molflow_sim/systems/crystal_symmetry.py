"""Site symmetry of molecules in crystals, and crystals from relaxed coordinates."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.errors import CrystalError
from molflow_sim.geometry.superposition import kabsch
from molflow_sim.symmetry import SpaceGroup, cell_matrix, cell_parameters
from molflow_sim.systems.molecule import Molecule
from molflow_sim.systems.rigid import RigidMolecule, rigid_from_cartesian

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal


def site_symmetry(
    crystal: MolecularCrystal, k: int, tolerance: float = 0.2
) -> tuple[np.ndarray, list[int], np.ndarray, np.ndarray]:
    """Operations that map the first copy of asymmetric molecule k on itself, lattice translations included.

    Returns
    -------
    positions : ndarray (N, 3)
        Fractional positions of the first copy, averaged over its site symmetry.
    operations : list of int
        Indices of the operations, the identity first.
    shifts : ndarray (S, 3) of int
        Lattice translation of each, so that ``W f + w + shift`` is the molecule again.
    permutations : ndarray (S, N)
        Which atom each atom is mapped to.

    Raises
    ------
    CrystalError
        If the site symmetry and the number of copies contradict each other.
    """
    group, rigid = crystal.space_group, crystal.asymmetric_unit[k]
    molecule = crystal.molecules[rigid.species]
    frac = crystal.copies(k)[0] @ np.linalg.inv(crystal.cell)
    expected = group.order // len(rigid.images)
    if expected * len(rigid.images) != group.order:
        raise CrystalError(f"molecule {k}: {len(rigid.images)} copies do not divide the order of {group.name}")
    if expected == 1:
        return frac, [0], np.zeros((1, 3), dtype=int), np.arange(len(frac))[None]
    centre = molecule.masses @ frac / molecule.masses.sum()
    operations, shifts, permutations, images = [], [], [], []
    for g in range(group.order):
        w, t = group.rotations[g], group.translations[g]
        shift = np.rint(centre - (w @ centre + t))
        image = frac @ w.T + t + shift
        if np.linalg.norm((image.mean(0) - frac.mean(0)) @ crystal.cell) > tolerance:
            continue
        distance = np.linalg.norm((image[:, None] - frac[None]) @ crystal.cell, axis=-1)
        distance[molecule.numbers[:, None] != molecule.numbers[None]] = np.inf
        permutation = distance.argmin(axis=1)
        if distance.min(axis=1).max() > tolerance or len(np.unique(permutation)) < len(frac):
            continue
        operations.append(g)
        shifts.append(shift.astype(int))
        permutations.append(permutation)
        images.append(image[np.argsort(permutation)])
    if len(operations) != expected:
        raise CrystalError(
            f"molecule {k} has {len(rigid.images)} copies in {group.name}, so its site needs {expected} operations, "
            f"but {len(operations)} map it on itself within {tolerance} Å"
        )
    return np.mean(images, axis=0), operations, np.array(shifts), np.array(permutations)


def make_whole(fractional: np.ndarray, bonds: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Molecules made whole through their bonds.

    Parameters
    ----------
    fractional : ndarray (M, N, 3)
        M copies of one species, each atom in any periodic image.
    bonds : ndarray (nb, 2)
        Bonds of the species.
    cell : ndarray (3, 3)
        Rows in Å.

    Returns
    -------
    ndarray (M, N, 3)
        Fractional; each atom the image nearest to the neighbour it is reached from, the first atom unmoved.
    """
    out = np.array(fractional, dtype=float)
    neighbours: dict[int, list[int]] = {}
    for i, j in bonds:
        neighbours.setdefault(int(i), []).append(int(j))
        neighbours.setdefault(int(j), []).append(int(i))
    offsets = np.array(np.meshgrid([0, -1, 1], [0, -1, 1], [0, -1, 1], indexing="ij")).reshape(3, -1).T
    seen, stack = {0}, [0]
    while stack:
        i = stack.pop()
        for j in neighbours.get(i, []):
            if j in seen:
                continue
            delta = out[:, j] - out[:, i]
            delta -= np.rint(delta)
            # in skewed cells the nearest image is not always the rounded one
            candidates = delta[:, None] + offsets
            best = np.linalg.norm(candidates @ cell, axis=-1).round(9).argmin(axis=1)
            out[:, j] = out[:, i] + candidates[np.arange(len(out)), best]
            seen.add(j)
            stack.append(j)
    return out


def with_geometry(
    crystal: MolecularCrystal, cell: np.ndarray, positions: np.ndarray, tolerance: float = 0.05
) -> MolecularCrystal:
    """See `MolecularCrystal.with_geometry`."""
    cell, positions = np.asarray(cell, dtype=float), np.asarray(positions, dtype=float)
    n = sum(len(r.images) * crystal.molecules[r.species].n_atoms for r in crystal.asymmetric_unit)
    if cell.shape != (3, 3) or positions.shape != (n, 3):
        raise CrystalError(f"a (3, 3) cell and ({n}, 3) positions are needed, not {cell.shape} and {positions.shape}")
    if not (np.isfinite(cell).all() and np.isfinite(positions).all()):
        raise CrystalError("the new geometry contains NaN or infinite numbers")
    if np.linalg.det(cell) < 1e-3:
        raise CrystalError("the new cell is left-handed or has no volume")
    fractional = positions @ np.linalg.inv(cell)
    blocks, start = [], 0
    standard = cell_matrix(cell_parameters(cell))
    for rigid in crystal.asymmetric_unit:
        molecule = crystal.molecules[rigid.species]
        stop = start + len(rigid.images) * molecule.n_atoms
        block = fractional[start:stop].reshape(len(rigid.images), -1, 3)
        blocks.append(make_whole(block, molecule.bonds, standard))
        start = stop
    kept = _in_space_group(crystal, blocks, standard, tolerance)
    if kept is not None:
        return kept
    p1 = SpaceGroup.from_name("P 1")
    molecules = [
        rigid_from_cartesian(rigid.species, crystal.molecules[rigid.species], x @ standard, standard, (0,))
        for rigid, block in zip(crystal.asymmetric_unit, blocks)
        for x in block
    ]
    notes = dict(crystal.info)
    if crystal.space_group.order > 1:
        notes["symmetry_lost"] = crystal.space_group.name
    return replace(crystal, asymmetric_unit=tuple(molecules), space_group=p1, cell=standard, info=notes)


def _in_space_group(
    crystal: MolecularCrystal, blocks: list[np.ndarray], cell: np.ndarray, tolerance: float
) -> MolecularCrystal | None:
    """The crystal averaged over its space group, or None where the blocks deviate from it by more than `tolerance`."""
    group = crystal.space_group
    parameters = cell_parameters(cell)
    constrained = cell_matrix(group.constrain(parameters))
    if np.abs(constrained - cell).max() > tolerance:
        return None
    means = [
        _asymmetric_copies(group, rigid, crystal.molecules[rigid.species], block)
        for rigid, block in zip(crystal.asymmetric_unit, blocks)
    ]
    deviation = max(
        float(np.linalg.norm((copies - copies.mean(axis=0)) @ constrained, axis=-1).max()) for copies in means
    )
    if deviation > tolerance:
        return None
    molecules = []
    for rigid, copies in zip(crystal.asymmetric_unit, means):
        molecule = crystal.molecules[rigid.species]
        positions = copies.mean(axis=0) @ constrained
        molecules.append(_posed(rigid, molecule, positions, constrained))
    out = replace(crystal, asymmetric_unit=tuple(molecules), cell=constrained)
    if all(len(r.images) == group.order for r in molecules):
        return out
    try:  # on special positions the site symmetry is imposed too
        snapped = []
        for k, rigid in enumerate(out.asymmetric_unit):
            frac, *_ = site_symmetry(out, k, max(4 * tolerance, 0.2))
            g = rigid.images[0]
            home = (frac - group.translations[g]) @ np.linalg.inv(group.rotations[g]).T
            snapped.append(_posed(rigid, out.molecules[rigid.species], home @ constrained, constrained))
    except CrystalError:
        return None
    return replace(out, asymmetric_unit=tuple(snapped))


def _asymmetric_copies(group: SpaceGroup, rigid: RigidMolecule, molecule: Molecule, block: np.ndarray) -> np.ndarray:
    """Every copy (M, N, 3), fractional, carried back to the asymmetric unit and next to the first one."""
    images = list(rigid.images)
    inverse = np.linalg.inv(group.rotations[images])
    home = np.einsum("gij,gnj->gni", inverse, block - group.translations[images][:, None])
    centres = np.einsum("n,gnx->gx", molecule.masses / molecule.masses.sum(), home)
    # stay with the lattice translation of the crystal this came from
    home = home - np.rint(centres[0] - rigid.centroid)
    centres = centres - np.rint(centres[0] - rigid.centroid)
    return home - np.rint(centres - centres[0])[:, None]


def _posed(rigid: RigidMolecule, molecule: Molecule, positions: np.ndarray, cell: np.ndarray) -> RigidMolecule:
    """`rigid` moved to Cartesian `positions` (N, 3): the rotation that fits best, the rest in the conformer."""
    centre = np.average(positions, axis=0, weights=molecule.masses)
    relative = positions - centre
    rotation = kabsch(np.asarray(rigid.conformer), relative)
    return RigidMolecule(rigid.species, relative @ rotation, centre @ np.linalg.inv(cell), rotation, rigid.images)
