"""Fixtures of several packages' tests."""

import os

import pytest
from hypothesis import settings

# Two workers share the cores, and networks this small only wait for the threads of one another: four to six times as
# long. Tests that are about threads ask for them. Before torch and tblite are imported, which read it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, so that a failure belongs to the change it appears with.
# pytest --hypothesis-profile explore looks at others.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("same")


@pytest.fixture
def molflow(capsys, monkeypatch):
    """Runs the command line in this process; gives its exit code and what it wrote to stdout and stderr."""
    from molflow_sim.cli.main import run

    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in words])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def stand_in(monkeypatch):
    """Put the stand-in where the crystal flow is looked up."""
    from flow_stand_in import CrystalFlow

    from molflow_sim.registry import GENERATORS, MODELS

    monkeypatch.setitem(GENERATORS.builtin, "crystals/flow", "flow_stand_in:FlowGenerator")
    monkeypatch.setitem(MODELS.builtin, "crystal-flow", "flow_stand_in:CrystalFlow")
    CrystalFlow.calls.clear()
    return CrystalFlow


@pytest.fixture(scope="session")
def frames():
    """Frames of a molecule of five backbone beads."""
    from cg_examples import backbone_frames

    return backbone_frames()


@pytest.fixture(scope="session")
def folder(tmp_path_factory, frames):
    """A model folder with an untrained force field of these beads."""
    from cg_examples import save_model, small_net

    return save_model(tmp_path_factory.mktemp("model"), small_net(frames))


@pytest.fixture(scope="module")
def one_thread():
    """Torch on one thread."""
    from processes import threads

    with threads(1):
        yield
