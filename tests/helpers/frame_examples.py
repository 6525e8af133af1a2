"""Frames of small clusters as a simulation would leave them, made without one."""

from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDistGeom


def write_frames(path: Path, smiles: str = "CCCC", copies: int = 3, frames: int = 40, seed: int = 0) -> Path:
    """Molecules on a loose grid, shaken and turned a little from frame to frame; every tenth is kept for validation
    and for the test each."""
    rng = np.random.default_rng(seed)
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(mol, 8, randomSeed=1, useRandomCoords=True)
    shapes = [c.GetPositions() - c.GetPositions().mean(0) for c in mol.GetConformers()]
    spacing = 1.3 * max(np.linalg.norm(x, axis=1).max() for x in shapes) + 2.0
    side = int(np.ceil(copies ** (1 / 3)))
    sites = spacing * np.array([(a, b, c) for a in range(side) for b in range(side) for c in range(side)])[:copies]
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(copies)]
    turns = [q * np.sign(np.linalg.det(q)) for q in turns]
    rows = []
    for _ in range(frames):
        whole = [
            shapes[rng.integers(len(shapes))] @ (q @ small_turn(rng)).T + site + 0.3 * rng.normal(size=3)
            for q, site in zip(turns, sites)
        ]
        rows.append(np.concatenate(whole) + 0.02 * rng.normal(size=(copies * mol.GetNumAtoms(), 3)))
    split = np.zeros(frames, int)
    split[8::10], split[9::10] = 1, 2
    numbers = np.tile([a.GetAtomicNum() for a in mol.GetAtoms()], copies)
    np.savez_compressed(
        path, positions=np.array(rows, np.float32), numbers=numbers, smiles=np.array([smiles]),
        copies=np.array([copies]), split=split,
    )  # fmt: skip
    return path


def small_turn(rng: np.random.Generator, size: float = 0.2) -> np.ndarray:
    """A rotation by about `size` radians."""
    x, y, z = size * rng.normal(size=3)
    q, r = np.linalg.qr(np.eye(3) + np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
    return q * np.sign(np.diag(r))
