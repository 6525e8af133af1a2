"""The results folder: whole files, refusals, and what survives damage."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from refusals import refuses

from molflow_sim.errors import StoreError
from molflow_sim.runs.files import atomic_path, write_bytes_atomically
from molflow_sim.runs.folder import JobFolder
from molflow_sim.runs.identity import digest
from molflow_sim.runs.store import Store, pack_arrays, unpack_arrays

RUN = {"molecule": "CCO", "seed": 0}
OUTPUTS = ("ranking.csv", "structures/rank_*.cif")


def test_a_batch_is_found_again_by_a_later_session(tmp_path):
    with Store(tmp_path / "run", RUN) as store:
        store.write("press/0.npz", "abc", b"numbers", 1.5)
    with Store(tmp_path / "run", RUN) as store:
        assert store.read("press/0.npz", "abc") == b"numbers"
        assert store.seconds("press") == 1.5


def test_a_batch_of_another_identity_is_not_used(tmp_path):
    with Store(tmp_path / "run", RUN) as store:
        store.write("press/0.npz", "abc", b"numbers")
        assert store.read("press/0.npz", "other") is None


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-1] + b"?"])
def test_a_damaged_batch_counts_as_not_done(tmp_path, damage):
    with Store(tmp_path / "run", RUN) as store:
        store.write("press/0.npz", "abc", b"numbers")
        path = store.path("press/0.npz")
        path.write_bytes(damage(path.read_bytes()))
        assert store.read("press/0.npz", "abc") is None


def test_a_deleted_batch_counts_as_not_done(tmp_path):
    with Store(tmp_path / "run", RUN) as store:
        store.write("press/0.npz", "abc", b"numbers")
        store.path("press/0.npz").unlink()
        assert store.read("press/0.npz", "abc") is None


def test_a_manifest_cut_anywhere_loses_at_most_its_last_batch(tmp_path):
    with Store(tmp_path / "run", RUN) as store:
        for i in range(3):
            store.write(f"press/{i}.npz", f"id{i}", b"x" * i)
    manifest = tmp_path / "run" / "store" / "manifest.jsonl"
    whole = manifest.read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for cut in range(last, len(whole)):
        manifest.write_bytes(whole[:cut])
        with Store(tmp_path / "run", RUN) as store:
            assert store.read("press/0.npz", "id0") == b"" and store.read("press/1.npz", "id1") == b"x"
            store.write("press/3.npz", "id3", b"new")
        with Store(tmp_path / "run", RUN) as store:
            assert store.read("press/3.npz", "id3") == b"new", "a line after a torn one must be readable"


def test_once_computes_only_what_is_missing(tmp_path):
    calls = []

    def compute() -> bytes:
        calls.append(1)
        return b"result"

    with Store(tmp_path / "run", RUN) as store:
        assert store.once("a.json", "id", compute) == b"result"
        assert store.once("a.json", "id", compute) == b"result"
    assert len(calls) == 1


def test_a_folder_of_another_run_is_refused_and_named(tmp_path):
    with Store(tmp_path, RUN) as store:
        store.write("press/0.npz", "abc", b"numbers")
    before = (tmp_path / "run.json").read_bytes()
    refuses(StoreError, r"another run \(seed: there 0, here 1\).*--overwrite", Store, tmp_path, {**RUN, "seed": 1})
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_run_refused_before_its_first_batch_does_not_occupy_the_folder(tmp_path):
    Store(tmp_path, RUN).close()
    Store(tmp_path, {**RUN, "seed": 1}).close()
    assert json.loads((tmp_path / "run.json").read_text())["identity"]["seed"] == 1


def test_results_without_their_store_are_not_replaced_by_another_run(tmp_path):
    Store(tmp_path, RUN, OUTPUTS).close()
    (tmp_path / "ranking.csv").write_text("rank\n1\n")
    refuses(StoreError, "another run", Store, tmp_path, {**RUN, "seed": 1}, OUTPUTS)


def test_a_folder_with_a_users_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    refuses(StoreError, "not empty", Store, tmp_path, RUN)
    assert not (tmp_path / "store").exists()


def test_overwrite_removes_results_and_nothing_else(tmp_path):
    with Store(tmp_path, RUN) as store:
        store.write("press/0.npz", "abc", b"numbers")
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "structures").mkdir()
    (tmp_path / "structures" / "rank_001.cif").write_text("old")
    (tmp_path / "structures" / "mine.cif").write_text("mine")
    with Store(tmp_path, {**RUN, "seed": 1}, OUTPUTS, overwrite=True) as store:
        assert store.read("press/0.npz", "abc") is None
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert [p.name for p in (tmp_path / "structures").iterdir()] == ["mine.cif"]


def test_overwrite_of_the_same_run_keeps_what_is_computed(tmp_path):
    with Store(tmp_path, RUN) as store:
        store.write("press/0.npz", "abc", b"numbers")
    with Store(tmp_path, RUN, overwrite=True) as store:
        assert store.read("press/0.npz", "abc") == b"numbers"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"identity": 3}'])
def test_a_damaged_run_json_is_refused_without_touching_the_results(tmp_path, text):
    with Store(tmp_path, RUN) as store:
        store.write("press/0.npz", "abc", b"numbers")
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(StoreError):
        Store(tmp_path, RUN)
    assert (tmp_path / "store" / "press" / "0.npz").read_bytes() == b"numbers"


def test_a_further_stage_keeps_what_others_wrote_and_its_own_settings_are_named_to_the_last(tmp_path):
    (tmp_path / "frames.npz").write_bytes(b"first stage")
    with JobFolder(tmp_path, {"net": {"width": 8}}, ("student.*",), name="distill", among=True) as job:
        (tmp_path / "student.json").write_text("{}")
        job.write_run(status="done")
    assert JobFolder(tmp_path, {"net": {"width": 8}}, ("student.*",), name="distill", among=True).done
    with pytest.raises(StoreError, match=r"another distill \(net.width: there 8, here 9\)"):
        JobFolder(tmp_path, {"net": {"width": 9}}, ("student.*",), name="distill", among=True)
    with JobFolder(tmp_path, {"net": {"width": 8}}, ("student.*",), overwrite=True, name="distill", among=True) as job:
        assert not job.done
    assert sorted(p.name for p in tmp_path.iterdir()) == ["distill.json", "frames.npz", "lock"]


def test_outputs_whose_description_is_gone_are_not_replaced(tmp_path):
    with JobFolder(tmp_path, RUN, ("log.csv",)):
        (tmp_path / "log.csv").write_text("")
    (tmp_path / "run.json").unlink()
    refuses(StoreError, r"run\.json: there \"missing\"", JobFolder, tmp_path, RUN, ("log.csv",))


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job of one code or another."""

    def opened(code: str, overwrite: bool = False) -> JobFolder:
        monkeypatch.setattr("molflow_sim.runs.folder.code_identity", lambda *_: code)
        roots = (code,) if code else ()
        return JobFolder(tmp_path / "run", RUN, ("log.csv",), overwrite=overwrite, code=roots)

    return opened


@pytest.mark.parametrize("before", ["old", ""])
def test_an_unfinished_job_of_other_code_is_not_gone_on_with(job, before):
    with job(before) as first:
        (first.folder / "log.csv").write_text("1")
    with job("new") as second:
        refuses(StoreError, r"unfinished run of other code .*here new.*--overwrite", second.check_code, False)
        assert (second.folder / "log.csv").read_text() == "1"
    with job("new", overwrite=True) as third:
        third.check_code(False)
        assert not (third.folder / "log.csv").exists()
    with job("new") as again:
        again.check_code(False)


def test_a_job_of_other_code_that_has_written_nothing_is_begun_anew(job):
    job("old").close()
    with job("new") as second:
        second.check_code(False)
        (second.folder / "log.csv").write_text("1")
    with job("new") as again:
        again.check_code(False)


def test_a_finished_job_of_other_code_is_read_and_stays_that_of_its_code(job):
    with job("old") as first:
        (first.folder / "log.csv").write_text("1")
    for _ in range(2):
        with job("new") as second, pytest.warns(UserWarning, match=r"other code .*code old; here new.*read as it is"):
            second.check_code(True)
            second.write_run(status="done")


def test_a_finished_job_of_a_version_that_did_not_say_its_code_is_read(job, recwarn):
    with job("") as first:
        (first.folder / "log.csv").write_text("1")
    with job("new") as second:
        second.check_code(True)
    assert not recwarn.list


def test_results_of_another_format_are_refused_with_what_to_do_and_stay(tmp_path):
    with Store(tmp_path, RUN) as store:
        store.write("press/0.npz", "abc", b"numbers")
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**run, "format": 1}))
    with pytest.raises(StoreError, match=r"run of format 1, .* writes format 2; give another folder, or --overwrite"):
        Store(tmp_path, RUN)
    assert (tmp_path / "store" / "press" / "0.npz").read_bytes() == b"numbers"
    with Store(tmp_path, RUN, overwrite=True) as store:
        assert store.read("press/0.npz", "abc") is None


def test_a_file_as_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    refuses(StoreError, "is a file", Store, tmp_path / "file", RUN)


def test_two_runs_do_not_write_at_once_and_the_lock_ends_with_its_process(tmp_path):
    with Store(tmp_path, RUN), pytest.raises(StoreError, match=f"being written by process {os.getpid()}"):
        Store(tmp_path, RUN)
    hold = (
        "import sys, time; from molflow_sim.runs.store import Store\n"
        f"s = Store({str(tmp_path)!r}, {RUN!r}); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        refuses(StoreError, f"process {process.pid}", Store, tmp_path, RUN)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    Store(tmp_path, RUN).close()
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["lock"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "landscape.db"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("disk full")
    assert path.read_bytes() == b"old"
    write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["landscape.db"]


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path):
    with Store(tmp_path, RUN) as store:
        store.write("press/0.npz", "abc", b"numbers")
    litter = [
        tmp_path / ".report.html.x1.part",
        tmp_path / "store" / "press" / ".0.npz.y2.part",
        tmp_path / ".a.7.part.db",
    ]
    for path in litter:
        path.write_bytes(b"half")
    with Store(tmp_path, RUN) as store:
        assert store.read("press/0.npz", "abc") == b"numbers"
    assert not any(path.exists() for path in litter)


def test_arrays_travel_exactly_and_objects_are_refused():
    arrays = {
        "x": np.random.default_rng(0).normal(size=(3, 4)),
        "n": np.array(7),
        "empty": np.empty((0, 3), dtype=np.int8),
    }
    back = unpack_arrays(pack_arrays(arrays))
    assert all(np.array_equal(arrays[k], back[k]) and arrays[k].dtype == back[k].dtype for k in arrays)
    refuses(StoreError, "objects", pack_arrays, {"x": np.array([{}], dtype=object)})


def test_bytes_that_are_no_archive_are_refused_whatever_is_wrong_with_them(tmp_path):
    good = pack_arrays({"x": np.random.default_rng(0).normal(size=500)})
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    for data in (b"", b"words", good[: len(good) // 2], bytes(flipped), single.getvalue()):
        refuses(ValueError, "no archive", unpack_arrays, data)
        (tmp_path / "a.npz").write_bytes(data)
        refuses(ValueError, "no archive", unpack_arrays, tmp_path / "a.npz")
    refuses(OSError, "", unpack_arrays, tmp_path / "b.npz")


def test_identities_depend_on_every_part_and_on_nothing_else():
    assert digest("a", 1, {"x": 1, "y": 2}) == digest("a", 1, {"y": 2, "x": 1})
    assert digest("a", np.float64(0.5), np.array([1, 2])) == digest("a", 0.5, [1, 2])
    assert json.dumps(digest("é")) == json.dumps(digest("é"))
