"""The command line: help, versions, one-line errors and exit codes."""

import errno
import re
import subprocess
import sys
import time

import pytest

import molflow_sim
from molflow_sim.cli.main import INTERNAL_ERROR, INTERRUPTED
from molflow_sim.errors import MissingDependencyError, StoreError


@pytest.mark.parametrize("verb", [[], ["screen"], ["simulate"], ["doctor"]])
def test_every_verb_explains_itself(molflow, verb):
    code, out, _ = molflow(*verb, "--help")
    assert code == 0 and "Usage" in out


def test_help_of_screen_shows_examples_and_all_options(molflow):
    _, out, _ = molflow("screen", "--help")
    for word in ("molflow screen", "--candidates", "--seed", "--space-groups", "--z-prime", "--charges", "--energy",
                 "--reference", "--relax-top", "--scheduler", "--overwrite", "--top"):  # fmt: skip
        assert word in out


def test_version(molflow):
    assert molflow("--version") == (0, f"molflow-sim {molflow_sim.__version__}\n", "")


def test_help_comes_without_loading_the_science():
    code = (
        "import sys; from molflow_sim.cli.main import run; run(['--help']);"
        "print([m for m in ('torch', 'rdkit', 'numba', 'openmm', 'pymatgen', 'pandas') if m in sys.modules])"
    )
    begin = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    assert time.perf_counter() - begin < 20, "generous: the machine may be busy"


@pytest.mark.parametrize(
    ("molecule", "words"),
    [
        ("CC(", "SMILES"), ("", "SMILES"), ("CCO.O", "components"), ("C[CH2]", "radical"), ("[Na+].[Cl-]", "Na"),
        ("C[Hg]C", "Hg"), ("[Fe]", "Fe"), ("C[N+](C)(C)C", "charge"), ("C" * 100, "large|atoms"),
        ("nothing-here.sdf", "no file nothing-here.sdf"), ("experiment.cif", "--reference"),
        ("CC(=O)N" + "[C@@H](C)C(=O)N" * 19 + "C", "202 atoms"),  # longer than a file's name may be
    ],
)  # fmt: skip
def test_a_molecule_that_cannot_be_used_is_refused_in_one_line(molflow, tmp_path, molecule, words):
    code, out, err = molflow("screen", molecule, "-o", tmp_path / "run")
    assert code == 2 and out == ""
    assert err.startswith("molflow: ") and err.count("\n") == 1 and re.search(words, err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--candidates", "many"], "--candidates"),
        (["--candidates", "0"], "candidates"),
        (["--space-groups", "P99"], "P99"),
        (["--charges", "guess"], "mmff94"),
        (["--energy", "dft"], "gfn2-xtb"),
        (["--energy", "mace:absent.model"], "absent.model"),
        (["--reference", "absent.cif"], "absent.cif"),
        (["--temperature", "0"], "above 0 K"),
        (["--temperature", "nan"], "above 0 K"),
        (["--option", "share=[1"], "'[1'"),
        (["--block", "I"], "--reference"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_an_option_that_means_nothing_is_refused_in_one_line(molflow, tmp_path, options, words):
    code, _, err = molflow("screen", "NC=O", "-o", tmp_path / "run", *options)
    assert code == 2 and err.startswith("molflow: ") and err.count("\n") == 1 and words in err
    assert not (tmp_path / "run").exists()


def test_without_a_command_the_help_is_shown_and_nothing_else(molflow):
    code, out, err = molflow()
    assert code == 2 and "Usage" in out + err and "(see --help)" not in err


def test_a_path_that_is_no_molecule_file_is_not_taken_for_a_smiles(molflow, tmp_path):
    (tmp_path / "urea.pdb").write_text("ATOM\n")
    code, _, err = molflow("screen", tmp_path / "urea.pdb", "-o", tmp_path / "run")
    assert code == 2 and ".sdf" in err and "SMILES" not in err


def test_a_missing_output_is_named(molflow):
    code, _, err = molflow("screen", "NC=O")
    assert code == 2 and "--output" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (StoreError("the folder belongs\nto another run"), 2, "the folder belongs to another run"),
        (MissingDependencyError("tblite", "xtb"), 1, "pip install 'molflow-sim[xtb]'"),
        (KeyboardInterrupt(), INTERRUPTED, "carry on"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x.npz"), 1, "out/x.npz: No space left on device"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(molflow, monkeypatch, tmp_path, error, code, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("molflow_sim.screening.screen", fail)
    got, _, err = molflow("screen", "NC=O", "-o", tmp_path)
    assert got == code and words in err and err.count("\n") == 1


def test_a_warning_is_a_one_line_note(molflow, monkeypatch, tmp_path):
    monkeypatch.setattr("molflow_sim.screening.screen", lambda *_, **__: None)
    code, _, err = molflow("screen", "CC(O)C#N", "-q", "-o", tmp_path / "run")
    assert code == 0 and err.startswith("molflow: note: CC(O)C#N: stereochemistry") and err.count("\n") == 1


def test_a_defect_is_one_line_and_a_log(molflow, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ZeroDivisionError("inside")

    monkeypatch.setattr("molflow_sim.screening.screen", fail)
    monkeypatch.setattr("tempfile.tempdir", tmp_path)
    code, _, err = molflow("screen", "NC=O", "-o", tmp_path / "run")
    assert code == INTERNAL_ERROR and err.count("\n") == 1 and "Traceback" not in err
    (log,) = tmp_path.glob("molflow-error-*.log")
    assert str(log) in err and "ZeroDivisionError: inside" in log.read_text()
    monkeypatch.setattr("tempfile.tempdir", tmp_path / "nowhere")
    code, _, err = molflow("screen", "NC=O", "-o", tmp_path / "run")
    assert code == INTERNAL_ERROR and err.count("\n") == 1 and "no log" in err and "ZeroDivisionError" in err


def test_the_installed_command_passes_its_exit_code_on(tmp_path):
    code = "from molflow_sim.cli import main; main(['screen', 'CC(', '-o', 'x'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
