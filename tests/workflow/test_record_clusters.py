"""`molflow dataset clusters --md`: frames from dynamics that can be killed, resumed and trained on."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from molflow_openmm.cluster.recipe import Recipe
from molflow_openmm.cluster.record import record_clusters
from processes import killed

from molflow_sim import Molecule
from molflow_sim.errors import MissingDependencyError, PackingError, StoreError
from molflow_sim.packing.clusters import PACKERS
from molflow_sim.systems.cluster import MolecularCluster

COMMAND = [sys.executable, "-c", "from molflow_sim.cli import main; main()", "dataset", "clusters", "--md", "NC=O"]
QUICK = ["--copies", 8, "--boxes", 2, "--frames", 9, "--hot-temperature", 350, "--hot-ps", 4, "--cooling-rate", 12500,
         "--settle-ps", 0, "--production-ps", 1, "--packing", "random"]  # fmt: skip
RECIPE = Recipe(8, boxes=2, frames=9, hot_temperature=350.0, hot_ps=4, cooling_rate=12500, production_ps=1, settle_ps=0,
                packing="random")  # fmt: skip


@pytest.fixture(scope="module")
def formamide() -> Molecule:
    return Molecule.from_smiles("NC=O", n_conformers=1)


@pytest.fixture
def molflow_record(molflow):
    return partial(molflow, "dataset", "clusters", "--md", "NC=O")


def frames(folder: Path) -> dict[str, np.ndarray]:
    shards = [np.load(path) for path in sorted(folder.glob("box_*.npz"))]
    return {name: np.concatenate([s[name] for s in shards]) for name in ("positions", "cell", "split", "box")}


def check(folder: Path, formamide: Molecule) -> None:
    """All frames are there, whole, split as the seed says, and training reads them."""
    from molflow_sim.models.dual_scale.data import read_frames

    found = frames(folder)
    assert found["positions"].shape == (9, 48, 3) and found["positions"].dtype == np.float32
    assert sorted(found["box"].tolist()) == [0] * 5 + [1] * 4 and (found["split"] > 0).sum() >= 2
    for positions, cell in zip(found["positions"], found["cell"]):
        cluster = MolecularCluster((formamide,), np.zeros(8, int), positions, cell)
        lengths = np.linalg.norm(np.diff(positions[cluster.bonds], axis=1)[:, 0], axis=1)
        assert lengths.max() < 1.7  # whole molecules
        assert 0.05 < cluster.density < 2.0
    assert read_frames(folder)


def test_frames_are_recorded_and_the_folder_tells_how(molflow_record, formamide, tmp_path):
    code, out, err = molflow_record(*QUICK, "-o", tmp_path / "data")
    assert code == 0, err
    assert "9 frames of CH3NO × 8" in out and "box 1" in out
    check(tmp_path / "data", formamide)
    told = json.loads((tmp_path / "data" / "recipe.json").read_text())
    assert told["recipe"]["seed"] == 0 and told["smiles"] == "NC=O" and told["openmm"] and told["molflow_sim"]
    assert len(told["boxes"]) == 2 and isinstance(told["drifting"], bool)
    assert not list((tmp_path / "data").glob("work_*"))
    before = (tmp_path / "data" / "box_000.npz").stat().st_mtime_ns
    assert molflow_record(*QUICK, "-o", tmp_path / "data")[0] == 0
    assert (tmp_path / "data" / "box_000.npz").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_killed_recording_carries_on_and_loses_no_frame(molflow_record, formamide, tmp_path):
    folder = tmp_path / "data"
    arguments = [*map(str, QUICK), "-o", str(folder)]

    def in_production(box: int, taken: int) -> bool:
        return len(list((folder / f"work_{box:03d}").glob("0*.npz"))) >= taken

    killed(
        [*COMMAND, *arguments], lambda: (folder / "work_000" / "checkpoint.json").exists(), stdout=subprocess.DEVNULL
    )
    killed([*COMMAND, *arguments], lambda: in_production(0, 2) or in_production(1, 1), stdout=subprocess.DEVNULL)
    assert not (folder / "recipe.json").exists()
    code, out, err = molflow_record(*QUICK, "-o", folder)
    assert code == 0, err
    assert "carrying on from segment" in out
    check(folder, formamide)


def test_boxes_are_independent_and_the_same_seed_packs_the_same_start(formamide, tmp_path):
    starts = []
    for k in range(2):
        seen = []
        with pytest.raises(KeyboardInterrupt):
            record_clusters(formamide, tmp_path / f"{k}", RECIPE, progress=partial(_stop, seen))
        starts.append(json.loads((tmp_path / f"{k}" / "run.json").read_text())["identity"] if seen else None)
    assert starts[0] == starts[1] is not None


def _stop(seen: list, event: dict) -> None:
    seen.append(event)
    raise KeyboardInterrupt


def test_what_cannot_be_recorded_is_named(molflow_record, formamide, tmp_path, monkeypatch):
    for arguments, words in (
        (["--packing", "shovel"], "packing must be one of"),
        (["--from-cif", tmp_path], "give no --from-cif"),
        (["--frames", 1, "--boxes", 2], "at least one frame"),
        (["--hot-temperature", 100], "hot-temperature must not be below"),
    ):
        code, _, err = molflow_record(*arguments, "-o", tmp_path / "bad")
        assert code == 2 and words in err and len(err.strip().splitlines()) == 1, err

    def fails(*_, **__):
        raise PackingError("PACKMOL found no packing")

    monkeypatch.setitem(PACKERS, "packmol", fails)
    code, _, err = molflow_record("-o", tmp_path / "unpacked")
    assert code == 1 and "PACKMOL found no packing" in err

    def missing(*_, **__):
        raise MissingDependencyError("PACKMOL", "packmol")

    monkeypatch.setitem(PACKERS, "packmol", missing)
    code, _, err = molflow_record("-o", tmp_path / "unpacked")
    assert code != 0 and "pip install" in err


def test_a_folder_of_other_data_is_refused(formamide, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        record_clusters(formamide, tmp_path / "data", RECIPE, progress=partial(_stop, []))
    with pytest.raises(StoreError, match="seed: there 0, here 1"):
        record_clusters(formamide, tmp_path / "data", Recipe(**{**RECIPE.__dict__, "seed": 1}))
