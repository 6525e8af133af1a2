"""What counts as the code of a stage: all that its imports lead to, and nothing else."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from shutil import copytree

import molflow_openmm.cg.simulate as beads
import molflow_openmm.cluster.record as record
import molflow_openmm.cluster.simulate as cluster
import molflow_openmm.crystal.simulate as crystal
import pytest
from refusals import refuses
from torch import nn

import molflow_sim
from molflow_sim.cg import pipeline
from molflow_sim.cg.student.cgnet import CGNet
from molflow_sim.errors import StoreError
from molflow_sim.generators import batches
from molflow_sim.runs import identity
from molflow_sim.runs.identity import code_identity, modules_of, parts
from molflow_sim.training import TensorBatches

TREE = {
    "__init__.py": "import lazy_loader\n"
    "__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={'deep.face': ['press', 'rank']})\n",
    "stages.py": "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
    "if TYPE_CHECKING:\n    from toy.typed import Thing\n"
    "def press(x: Thing):\n    from toy import press as run\n    return run(x, CUT)\n"
    "def rank(x):\n    from toy import ranks\n    return ranks.order(x)\n"
    "CUT = 3\n",
    "deep/__init__.py": "",
    "deep/face/__init__.py": "from ..pressing import press\nfrom toy.ranks import rank\n",
    "deep/pressing.py": "import numpy as np\nimport toy.bonds\n"
    "def press(x, cut):\n    return toy.bonds.length(x) + np.sum(cut)\n",
    "bonds.py": "def length(x):\n    '''Å.'''\n    return TABLE + x\nTABLE = open_table('table.json')\n",
    "table.json": "[1.5]",
    "ranks.py": "import scipy\ndef rank(x):\n    return x\ndef order(x):\n    return sorted(x)\n",
    "typed.py": "class Thing: ...\n",
}  # fmt: skip


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Writes the tree, with changes, and gives the identity of roots in it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(changes: dict[str, str] | None = None, root: str = "toy.stages:press") -> str:
        for name, text in {**TREE, **(changes or {})}.items():
            path = tmp_path / "toy" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for cached in (identity._module, identity._path, identity._imports, code_identity):
            cached.cache_clear()
        return code_identity(root)

    yield write
    for cached in (identity._module, identity._path, identity._imports, code_identity):
        cached.cache_clear()


def test_the_closure_is_what_the_function_reaches_through_faces_and_imports_inside_functions(toy):
    toy()
    assert set(parts("toy.stages:press")) == {
        "toy.stages:press", "toy.deep.pressing", "toy.bonds", "toy.bonds/table.json", "library numpy",
    }  # fmt: skip
    assert set(parts("toy.stages:rank")) == {"toy.stages:rank", "toy.ranks", "library scipy"}
    assert {"toy.ranks", "toy.typed", "toy.deep.pressing"} < set(parts("toy"))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("bonds.py", "+ x", "- x"),
        ("table.json", "1.5", "1.6"),
        ("deep/pressing.py", "np.sum", "np.max"),
        ("stages.py", "CUT = 3", "CUT = 4"),
        ("stages.py", "run(x, CUT)", "run(x, 2)"),
        ("deep/face/__init__.py", "..pressing import press", "..other import press"),
    ],
)
def test_a_byte_of_code_or_data_that_is_reached_changes_the_identity(toy, file, old, new):
    assert old in TREE[file]
    other = {"deep/other.py": TREE["deep/pressing.py"]}
    assert toy() != toy({**other, file: TREE[file].replace(old, new)})


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("bonds.py", "Å.", "A length in Å."),
        ("bonds.py", "return TABLE", "# a comment\n    return TABLE"),
        ("ranks.py", "sorted(x)", "x"),
        ("typed.py", "...", "x = 1"),
        ("stages.py", "ranks.order(x)", "x"),
        ("__init__.py", "'rank']", "'rank', 'new']"),
    ],
)
def test_what_is_not_reached_and_what_is_only_said_do_not(toy, file, old, new):
    assert old in TREE[file]
    assert toy() == toy({file: TREE[file].replace(old, new)})


def test_a_module_that_moved_is_followed_to_its_new_place(toy):
    moved = {
        "deep/new/__init__.py": "",
        "deep/new/home.py": TREE["deep/pressing.py"],
        "deep/pressing.py": "",
        "deep/face/__init__.py": "from toy.deep.new.home import press\n",
    }
    before = toy(moved)
    assert "toy.deep.new.home" in parts("toy.stages:press")
    assert before != toy({**moved, "deep/new/home.py": TREE["deep/pressing.py"].replace("np.sum", "np.max")})


def test_a_library_of_another_version_is_other_code(toy, monkeypatch):
    before = toy()
    monkeypatch.setattr(identity, "version", lambda name: "0.0")
    assert before != toy()


@pytest.mark.parametrize("root", ["toy.nothing", "toy.stages:nothing", "toy.stages:press.inner", "no_such_package"])
def test_a_root_that_does_not_exist_is_refused(toy, root):
    refuses(StoreError, r"is not there|defines no", toy, root=root)


def test_no_root_and_an_import_that_leads_nowhere_are_refused(toy):
    refuses(StoreError, "no code is named", code_identity)
    refuses(StoreError, r"toy\.gone is not there", toy, {"bonds.py": "import toy.gone\n"})


@pytest.mark.parametrize(
    ("roots", "reached", "left_out"),
    [
        (crystal.CODE, "forcefield.exp6 OPENMM.crystal.forces systems.crystal", "evaluate OPENMM.crystal.analysis"),
        (cluster.CODE, "forcefield.exp6 OPENMM.cluster.system OPENMM.compiled", "evaluate runs.pages"),
        (record.CODE, "forcefield.exp6 OPENMM.cluster.recipe packing.clusters", "evaluate OPENMM.cluster.drift"),
        (beads.CODE, "cg.forcefield OPENMM.cg.replicas OPENMM.cg.settings", "cg.reports evaluate"),
        (pipeline.CODE["fit"], "cg.teacher.flow training.loop", "cg.student cg.reports"),
        (pipeline.CODE["distill"], "cg.teacher.flow cg.student.cgnet training.loop", "cg.reports evaluate"),
        (batches.CODE, "relax.intramolecular so3lr.network forcefield.mmff_minimise", "screening cli"),
    ],
)
def test_long_jobs_depend_on_what_decides_their_numbers(roots, reached, left_out):
    def full(names: str) -> list[str]:
        return [n.replace("OPENMM", "molflow_openmm") if "OPENMM" in n else f"molflow_sim.{n}" for n in names.split()]

    found = set(parts(*roots))
    assert set(full(reached)) <= found
    assert not [name for name in found for other in full(left_out) if name.startswith(other)]


def test_a_training_depends_on_the_modules_of_network_loss_and_batches():
    def loss(module, batch): ...

    assert modules_of(nn.Linear, partial(loss, batch=1), type(TensorBatches), CGNet) == [
        "molflow_sim.cg.student.cgnet", __name__,
    ]  # fmt: skip
    assert modules_of(TensorBatches) == ["molflow_sim.training.batches"]


SEARCH = """
import sys
from molflow_sim import screen
from molflow_sim.screening import ScreenSettings
from toy_stages import TOY
settings = ScreenSettings(candidates=8, relax_top=4, minimum_density=0.001, generator="random", space_groups="P-1")
screen("NC=O", output=sys.argv[1], settings=settings, stages=TOY)
"""


@pytest.mark.slow
def test_a_search_computes_again_what_changed_code_decides_and_nothing_else(tmp_path):
    tree = copytree(Path(molflow_sim.__file__).parent, tmp_path / "tree" / "molflow_sim")
    environment = {**os.environ, "PYTHONPATH": f"{tree.parent}:{Path(__file__).parents[1] / 'workflow'}"}

    def computed() -> set[str]:
        manifest = tmp_path / "run" / "store" / "manifest.jsonl"
        before = len(manifest.read_text().splitlines()) if manifest.exists() else 0
        run = [sys.executable, "-c", SEARCH, str(tmp_path / "run")]
        subprocess.run(run, env=environment, check=True, capture_output=True, cwd=tmp_path)
        return {json.loads(line)["key"].split("/")[0] for line in manifest.read_text().splitlines()[before:]}

    def append(file: str, text: str) -> None:
        (tree / file).write_text((tree / file).read_text() + text)

    every = {"sites.npz", "press", "compare", "evaluate", "judge", "relax", "unique", "energy", "refine"}
    assert computed() == every
    append("cli/main.py", "_x = 1\n")
    append("screening/report.py", "_x = 1\n")
    append("chemistry/bonds.py", "# no code\n")
    assert computed() == set()
    append("evaluate/validity.py", "_x = 1\n")
    assert computed() == {"relax", "unique", "energy", "refine"}
    append("chemistry/bonds.py", "_x = 1\n")
    assert computed() == every
