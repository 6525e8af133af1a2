"""Packages that add a generator or an energy: found by the command line, and named where they are broken."""

import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from refusals import refuses

from molflow_sim import Molecule, generate
from molflow_sim.cli.main import run
from molflow_sim.energies.foreign import energy_identity, energy_model
from molflow_sim.errors import InputError, PluginError, RequestError
from molflow_sim.generators.protocol import CrystalRequest, make_generator
from molflow_sim.registry import ENERGIES, GENERATORS, MODELS, Registry, build
from molflow_sim.screening import ScreenSettings
from molflow_sim.testing import validate_generator

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install packages by hand: modules, and metadata that name their entry points."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def install(name: str, groups: dict[str, dict[str, str]], *modules: Path, version: str = "0.1.0") -> None:
        for module in modules:
            shutil.copy(module, site)
            monkeypatch.delitem(sys.modules, module.stem, raising=False)
        about = site / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items()]
        (about / "entry_points.txt").write_text("\n".join(lines))

    return install


@pytest.fixture
def examples(installed):
    for folder in ("plugin_generator", "plugin_energy"):
        project = tomllib.loads((EXAMPLES / folder / "pyproject.toml").read_text())["project"]
        installed(project["name"], project["entry-points"], *(EXAMPLES / folder).glob("*.py"))


def test_the_examples_are_one_short_file_each():
    for folder in ("plugin_generator", "plugin_energy"):
        (module,) = (EXAMPLES / folder).glob("*.py")
        assert len(module.read_text().splitlines()) <= 60


def test_a_new_generator_passes_the_kit(examples):
    validate_generator(make_generator("crystals", "box"), CrystalRequest(Molecule.from_smiles("NC=O"), "P21/c,C2"))
    refuses(RequestError, "z_prime=1", generate, "crystals", "NC=O", 2, method="box", z_prime=2)
    with pytest.raises(RequestError, match="Sohncke"):
        generate("crystals", "C[C@H](O)C#N", 2, method="box", space_groups="P-1")


def test_generate_and_screen_find_a_new_generator_and_energy(examples, tmp_path, capsys):
    options = ["--option", "margin=0.5", "-n", "4", "-o", str(tmp_path / "out.extxyz")]
    assert run(["generate", "crystals", "NC=O", "--method", "box", "--press", *options]) == 0
    text = (tmp_path / "out.extxyz").read_text()
    assert "generator=box" in text and "margin=0.5" in text and 'package="molflow-box 0.1.0+' in text
    options = ["-n", "60", "--relax-top", "4", "--energy-top", "2", "-o", str(tmp_path / "screening"), "-q"]
    assert run(["screen", "NC=O", "--generator", "box", "--energy", "contacts", *options]) == 0, capsys.readouterr().err
    ranking = (tmp_path / "screening" / "ranking.csv").read_text()
    assert "contacts" in ranking.lower()


def test_results_depend_on_the_code_of_the_plug_in(examples):
    identity = ScreenSettings(generator="box").identity()["packings"]
    assert identity["package"].startswith("molflow-box 0.1.0+") and identity["margin"] == 1.0
    energy_model("contacts")
    assert energy_identity("contacts").startswith("molflow-contacts 0.1.0+")


def test_help_and_doctor_list_what_is_installed(examples, capsys):
    run(["doctor"])
    out = capsys.readouterr().out
    assert "crystals/box" in out and "molflow-box 0.1.0" in out and "contacts" in out
    assert "box" in GENERATORS.names("crystals") and "contacts" in ENERGIES.names()


def test_a_plug_in_that_cannot_be_imported_is_one_line_and_does_not_break_the_others(installed, capsys, tmp_path):
    installed("broken", {"molflow.generators": {"crystals/bad": "module_that_is_not_there:Bad"}})
    with pytest.raises(PluginError, match=r"'crystals/bad' of broken 0\.1\.0 cannot be imported: No module named"):
        make_generator("crystals", "bad")
    out = str(tmp_path / "out.extxyz")
    assert run(["generate", "crystals", "NC=O", "-n", "2", "--method", "bad", "-o", out]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["generate", "crystals", "NC=O", "-n", "2", "--method", "random", "-o", out]) == 0
    run(["doctor"])
    assert "broken" in capsys.readouterr().out


def test_two_of_one_name_are_both_named_and_others_work(installed):
    target = "molflow_sim.generators.crystals:RandomGenerator"
    installed("one", {"molflow.generators": {"crystals/twice": target}})
    installed("two", {"molflow.generators": {"crystals/twice": target}})
    with pytest.raises(PluginError, match=r"two generators are called 'crystals/twice': .*one 0.1.0 and .*two 0.1.0"):
        make_generator("crystals", "twice")
    assert make_generator("crystals", "random")
    installed("thief", {"molflow.generators": {"crystals/random": "molflow_box:BoxGenerator"}})
    refuses(PluginError, r"of molflow-sim and molflow_box:BoxGenerator of thief", make_generator, "crystals", "random")


def test_what_is_no_generator_is_refused(installed, tmp_path):
    (tmp_path / "other.py").write_text("from dataclasses import dataclass\n\n@dataclass\nclass A:\n    x: int = 0\n")
    names = {"crystals/function": "os.path:join", "crystals/empty": "other:A"}
    installed("odd", {"molflow.generators": names}, tmp_path / "other.py")
    refuses(PluginError, "not a dataclass", make_generator, "crystals", "function")
    refuses(InputError, "no generator", make_generator, "crystals", "empty")


@pytest.mark.parametrize("registry", [GENERATORS, MODELS, ENERGIES], ids=lambda r: r.group)
def test_everything_that_is_built_in_is_there(registry: Registry):
    for name in registry.builtin:
        assert registry.get(name) is not None and registry.origin(name) == ""


def test_a_whole_number_does_where_a_number_or_nothing_is_asked_for():
    @dataclass
    class Options:
        width: float | None = None
        count: int | None = None

    made = build(Options, {"width": 3, "count": 2}, "here")
    assert (made.width, type(made.width), made.count) == (3.0, float, 2)
    refuses(InputError, "width", build, Options, {"width": "wide"}, "here")
    refuses(InputError, "count", build, Options, {"count": 2.5}, "here")
