"""Packings made by hand for tests, as ``(numbers, cell, positions, molecule_index)``, and the same ones rewritten."""

import numpy as np
from scipy.spatial.transform import Rotation

from molflow_sim.symmetry import SpaceGroup, cell_matrix

# Formamide, Å: neither symmetric nor chiral in the plane, with a polar hydrogen.
NUMBERS = np.array([6, 8, 7, 1, 1, 1])
FORMAMIDE = np.array(
    [
        [0.16, 0.39, 0.0], [1.20, -0.24, 0.0], [-1.08, -0.16, 0.0], [0.13, 1.49, 0.0], [-1.91, 0.42, 0.0],
        [-1.18, -1.16, 0.0],
    ]
)  # fmt: skip
BONDS = np.array([[0, 1], [0, 2], [0, 3], [2, 4], [2, 5]])


def packing(seed: int, group: str = "P 1 21/c 1", length: float = 1.0, shape=FORMAMIDE, numbers=NUMBERS):
    """A random general-position packing of one molecule in a space group; `length` scales the cell."""
    rng = np.random.default_rng(seed)
    sg = SpaceGroup.from_name(group)
    lengths = rng.uniform(0.8, 1.25, 3)
    lengths *= (75.0 * len(shape) / 6 * sg.order / lengths.prod()) ** (1 / 3) * length
    cell = cell_matrix(sg.constrain(np.array([*lengths, *rng.uniform(70, 110, 3)])))
    centre = rng.uniform(size=3)
    rotation = Rotation.random(random_state=rng).as_matrix()
    body = (shape - shape.mean(axis=0)) @ rotation.T
    positions = np.concatenate(
        [
            np.floor(-f) @ cell + f @ cell + body @ r.T
            for f, r in (
                ((w @ centre + t), c) for w, t, c in zip(sg.rotations, sg.translations, sg.cartesian_rotations)
            )
        ]
    )
    return np.tile(numbers, sg.order), cell, positions, np.repeat(np.arange(sg.order), len(shape))


def rewritten(crystal, seed: int, mirror: bool = False):
    """The same crystal in another cell, origin, orientation and order of molecules, mirrored if asked."""
    numbers, cell, positions, molecule = crystal
    rng = np.random.default_rng(seed)
    m = np.eye(3, dtype=int)
    for _ in range(3):  # a random unimodular change of basis
        i, j = rng.choice(3, 2, replace=False)
        m[i] += rng.integers(-1, 2) * m[j]
    turn = Rotation.random(random_state=rng).as_matrix() * (-1.0 if mirror else 1.0)
    n_mol = molecule.max() + 1
    order = rng.permutation(n_mol)
    shift = rng.integers(-2, 3, size=(n_mol, 3)) @ cell + rng.uniform(-5, 5, size=3)
    blocks = [np.flatnonzero(molecule == k) for k in order]
    index = np.concatenate(blocks)
    moved = np.concatenate([positions[b] + shift[k] for b, k in zip(blocks, order)])
    return numbers[index], m @ cell @ turn, moved @ turn, np.repeat(np.arange(n_mol), [len(b) for b in blocks])


def shaken(crystal, size: float, seed: int):
    """The crystal with every molecule displaced rigidly by a random vector of about `size` Å."""
    numbers, cell, positions, molecule = crystal
    rng = np.random.default_rng(seed)
    step = rng.normal(scale=size / np.sqrt(3), size=(molecule.max() + 1, 3))
    return numbers, cell, positions + step[molecule], molecule
