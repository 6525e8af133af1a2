"""A data set whose build is killed is the data set of an undisturbed build, and no work is done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from molflow_sim.dataset import CrystalDataset

MOLECULES = ["NC=O", "CC(=O)O", "no-smiles", "OC=O", "CC#N", "NCC#N", "CO", "C1CO1"]
COMMAND = ["dataset", "crystals", "--candidates", "16", "--keep", "8", "-g", "P-1,P21/c", "--processes", "2", "-q"]


def start(molecules: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "molflow_sim", *COMMAND, str(molecules), "-o", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def finished(folder: Path) -> dict[str, str]:
    """Key -> SHA-256 of everything in the manifest; a key that was computed twice fails."""
    manifest = folder / "store" / "manifest.jsonl"
    lines = manifest.read_bytes().split(b"\n")[:-1] if manifest.exists() else []
    records = [json.loads(line) for line in lines]
    keys = [record["key"] for record in records]
    assert len(keys) == len(set(keys)), "a stored item was computed twice"
    return {record["key"]: record["sha256"] for record in records}


def workers_of(process: subprocess.Popen) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
        found += [int(pid) for pid in task.read_text().split()]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_two_kills_change_nothing_and_leave_no_workers(tmp_path):
    molecules = tmp_path / "molecules.smi"
    molecules.write_text("\n".join(MOLECULES) + "\n")
    undisturbed = tmp_path / "undisturbed"
    assert start(molecules, undisturbed).wait(timeout=300) == 0

    folder = tmp_path / "killed"
    for enough in (1, 4):
        process = start(molecules, folder)
        while process.poll() is None and len(finished(folder)) < enough:
            time.sleep(0.01)
        assert process.returncode is None, "the build ended before it could be killed"
        workers = workers_of(process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 20
        while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(alive(pid) for pid in workers), "workers outlive the process that started them"
    assert len(finished(folder)) < len(MOLECULES)
    assert len(CrystalDataset(folder)) > 0, "an unfinished data set can be read"
    assert start(molecules, folder).wait(timeout=300) == 0

    assert finished(folder) == finished(undisturbed)
    assert (folder / "dropped.csv").read_text() == (undisturbed / "dropped.csv").read_text()
    assert not list(folder.rglob("*.part*")), "half-written files were left"
    run = json.loads((folder / "run.json").read_text())
    assert run["status"] == "done" and run["counts"]["molecules"] == 7
    assert len(CrystalDataset(folder)) == len(CrystalDataset(undisturbed)) == run["counts"]["packings"]
