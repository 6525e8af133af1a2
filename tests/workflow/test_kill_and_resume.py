"""SIGKILL at random moments: nothing is lost, nothing repeated, and the ranking is that of an undisturbed run."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small_screening

KILLS = int(os.environ.get("MOLFLOW_KILLS", "20"))
"""More of them look closer: MOLFLOW_KILLS=1000 pytest -m slow tests/workflow/test_kill_and_resume.py"""


@pytest.fixture(scope="module")
def context():
    """Processes on one thread that are forked from one that has imported everything, and run nothing, before."""
    value = multiprocessing.get_context("forkserver")
    value.set_forkserver_preload(["small_screening"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("NUMBA_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        yield value


def wait_for_first_batch(process: Any, folder: Path, known: int) -> None:
    """Until the process has stored something new or ended: before that there is nothing to disturb."""
    manifest = folder / "store" / "manifest.jsonl"
    while process.is_alive() and not (manifest.exists() and manifest.stat().st_size > known):
        time.sleep(0.005)


def batches(folder: Path) -> list[str]:
    """Keys of all batches that were ever stored, torn last line left out."""
    manifest = folder / "store" / "manifest.jsonl"
    lines = manifest.read_bytes().split(b"\n")[:-1] if manifest.exists() else []
    keys = []
    for line in lines:
        try:
            keys.append(json.loads(line)["key"])
        except ValueError:
            continue
    return keys


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kills_do_not_change_the_ranking(tmp_path, context):
    def start(folder: Path) -> Any:
        process = context.Process(target=small_screening.run, args=(folder,))
        process.start()
        return process

    def wait(process: Any) -> int:
        process.join()
        return process.exitcode

    undisturbed = tmp_path / "undisturbed"
    assert wait(start(undisturbed)) == 0
    all_batches = sorted(batches(undisturbed))
    expected = pd.read_csv(undisturbed / "ranking.csv")

    begin = time.perf_counter()
    again = tmp_path / "timed"
    process = start(again)
    wait_for_first_batch(process, again, 0)
    first = time.perf_counter() - begin
    assert wait(process) == 0
    working = time.perf_counter() - begin - first

    dice = random.Random(20)
    kills, folders, landed = 0, 0, set()
    while kills < KILLS:
        folders += 1
        folder = tmp_path / f"run{folders}"
        while True:
            process = start(folder)
            if kills < KILLS:
                # A third of the kills hit start-up as well; the others wait until work is under way.
                if dice.random() < 0.66:
                    manifest = folder / "store" / "manifest.jsonl"
                    wait_for_first_batch(process, folder, manifest.stat().st_size if manifest.exists() else 0)
                    pause = dice.uniform(0.0, 0.6 * working)
                else:
                    pause = dice.uniform(0.0, first + 0.2 * working)
                process.join(pause)
                if process.is_alive():
                    process.kill()
                    kills += 1
                    landed.add(batches(folder)[-1].split("/")[0] if batches(folder) else "start")
            if wait(process) == 0:
                break
            assert process.exitcode == -signal.SIGKILL
        # The same structures in the same order; numbers to well below anything they mean, since a library may round
        # the last bit differently from run to run.
        ranking = pd.read_csv(folder / "ranking.csv")
        assert ranking["id"].tolist() == expected["id"].tolist()
        pd.testing.assert_frame_equal(ranking, expected, rtol=1e-6, atol=1e-6)
        done = batches(folder)
        assert len(done) == len(set(done)), "a stored batch was computed twice"
        assert sorted(done) == all_batches
        assert not list(folder.rglob("*.part*")), "half-written files were left"
        assert json.loads((folder / "run.json").read_text())["status"] == "done"
    assert len(landed) >= 3, f"the kills should hit several stages, not only {landed}"
