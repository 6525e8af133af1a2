"""What an NPT run says about a crystal: mean cell, mean structure, and whether the packing stayed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from molflow_openmm.crystal.box import box_like
from molflow_openmm.crystal.system import CrystalBox
from molflow_sim.evaluate.packing_similarity import PackingMatch, packing_similarity
from molflow_sim.io.dcd import dcd_layout, read_dcd
from molflow_sim.symmetry.spacegroup import cell_matrix, cell_parameters


def molecule_index(box: CrystalBox) -> np.ndarray:
    """Molecule of each atom, shape (n,)."""
    firsts = [first for _, first in box.order]
    return np.repeat(np.arange(len(firsts)), np.diff([*firsts, len(box.numbers)]))


def nearest_images(box: CrystalBox, cell: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Move whole molecules by lattice vectors to the image closest to their starting place.

    Parameters
    ----------
    box : CrystalBox
        The start.
    cell, positions : ndarray, shapes (3, 3) and (n, 3)
        A later frame, Å.

    Returns
    -------
    ndarray, shape (n, 3)
    """
    index = molecule_index(box)
    counts = np.bincount(index)[:, None]

    def centres(x: np.ndarray) -> np.ndarray:
        total = np.zeros((len(counts), 3))
        np.add.at(total, index, x)
        return total / counts

    moved = centres(positions @ np.linalg.inv(cell)) - centres(box.positions @ np.linalg.inv(box.cell))
    return positions - (np.rint(moved) @ cell)[index]


def read_frames(box: CrystalBox, trajectory: Path, first: int = 0, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Read a DCD trajectory of this box from frame `first` on, thinned evenly to at most `most` frames.

    Returns
    -------
    cells : ndarray, shape (T, 3, 3)
        Supercell rows in the starting lattice basis, Å.
    positions : ndarray, shape (T, n, 3)
        Cartesian positions, Å; each molecule whole and in the image closest to where it started.
    """
    stride = max(1, -(-(dcd_layout(trajectory).n_frames - first) // most))
    cells, positions = read_dcd(trajectory, first, stride)
    cells = np.array([box_like(cell, box.cell) for cell in cells])
    return cells, np.array([nearest_images(box, c, x) for c, x in zip(cells, positions)])


def mean_structure(cells: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Time-averaged cell (3, 3) and positions (n, 3) in Å of what `read_frames` gives.

    Positions are averaged in fractional coordinates, so that the cell's fluctuations do not blur them. Groups that
    rotate or flip (methyls, phenyl rings) average to something smaller than they are.
    """
    fractional = np.einsum("tni,tij->tnj", positions, np.linalg.inv(cells))
    cell = cell_matrix(cell_parameters(cells).mean(axis=0))
    return cell, fractional.mean(axis=0) @ cell


def packing_kept(box: CrystalBox, cell: np.ndarray, positions: np.ndarray, n: int = 15) -> PackingMatch:
    """RMSD_n between the starting crystal and a supercell of it, mirror images not allowed."""
    later = (box.numbers, cell, positions, molecule_index(box))
    return packing_similarity(box.crystal, later, n, allow_inversion=False)
