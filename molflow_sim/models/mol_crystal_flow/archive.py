"""P 1 crystals on disk: one NumPy archive without pickled objects."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from molflow_sim.errors import StoreError
from molflow_sim.models.mol_crystal_flow.data import P1Crystal, P1Data, Shape
from molflow_sim.models.mol_crystal_flow.frames import BodyFrame
from molflow_sim.runs.files import atomic_path


def save(data: P1Data, path: Path) -> None:
    """Write shapes and crystals, whole or not at all."""
    frames = [s.frame for s in data.shapes]
    arrays = {
        "atoms": np.array([len(s.numbers) for s in data.shapes]),
        "numbers": np.concatenate([s.numbers for s in data.shapes]),
        "canonical": np.concatenate([f.canonical for f in frames]),
        "frame": np.array([f.rotation for f in frames]),
        "frame_hand": np.array([f.hand for f in frames]),
        "achiral": np.array([f.achiral for f in frames]),
        "operations": np.array([len(f.symmetry) for f in frames]),
        "symmetry": np.concatenate([f.symmetry for f in frames]),
        "mirror": np.array([f.mirror for f in frames]),
        "moments": np.array([f.moments for f in frames]),
        "invariants": np.array([s.invariants for s in data.shapes]),
        "z": np.array([len(c.shape) for c in data.crystals]),
        "cell": np.array([c.cell for c in data.crystals]),
        "weights": np.array(data.weights),
    }
    for name in ("frac", "rotation", "hand", "shape"):
        arrays[name] = np.concatenate([getattr(c, name) for c in data.crystals])
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> P1Data:
    """Read what `save` wrote.

    Raises
    ------
    StoreError
        If the file is missing, damaged or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            a = {name: archive[name] for name in archive.files}
        data = P1Data()
        atoms, operations = np.cumsum(a["atoms"])[:-1], np.cumsum(a["operations"])[:-1]
        bodies = zip(np.split(a["numbers"], atoms), np.split(a["canonical"], atoms))
        for k, ((numbers, canonical), symmetry) in enumerate(zip(bodies, np.split(a["symmetry"], operations))):
            frame = BodyFrame(
                canonical, a["frame"][k], int(a["frame_hand"][k]), bool(a["achiral"][k]), symmetry,
                a["mirror"][k], a["moments"][k],
            )  # fmt: skip
            data.shapes.append(Shape(numbers, frame, a["invariants"][k]))
        parts = [np.split(a[name], np.cumsum(a["z"])[:-1]) for name in ("frac", "rotation", "hand", "shape")]
        data.crystals = [P1Crystal(cell, *rest) for cell, *rest in zip(a["cell"], *parts)]
        data.weights = a["weights"].tolist()
    except (OSError, KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path.name} is damaged or holds no P 1 crystals: {error}") from error
    return data
