"""The frames under data/ are what their recipes say: whole molecules, split once, in small shards."""

import json
from pathlib import Path

import numpy as np
import pytest

from molflow_sim.models.dual_scale.data import read_frames

DATA = Path(__file__).parents[2] / "data"
FOLDERS = sorted(path.parent for path in DATA.glob("clusters/*/recipe.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_frames_are_what_the_recipe_says(folder):
    told = json.loads((folder / "recipe.json").read_text())
    shards = [dict(np.load(path)) for path in sorted(folder.glob("box_*.npz"))]
    assert [len(s["positions"]) for s in shards] == [box["frames"] for box in told["boxes"]]
    split = np.concatenate([s["split"] for s in shards])
    tenth = len(split) // 10
    assert np.bincount(split).tolist() == [len(split) - 2 * tenth, tenth, tenth]
    for shard in shards:
        atoms = len(shard["numbers"]) // int(shard["copies"])
        assert str(shard["smiles"]) == told["smiles"] and int(shard["copies"]) == told["recipe"]["copies"]
        x = shard["positions"].reshape(len(shard["split"]), -1, atoms, 3)
        assert np.isfinite(x).all() and np.abs(x.mean((1, 2))).max() < 1e-3
        first = np.linalg.norm(np.diff(x[:, :, :2], axis=2), axis=-1)  # the first bond of every molecule
        assert 0.9 < first.min() and first.max() < 1.9
    assert read_frames(folder)


def test_shards_are_small():
    sizes = [path.stat().st_size for path in DATA.rglob("*") if path.is_file()]
    assert FOLDERS and max(sizes) < 15e6 and sum(sizes) < 80e6
