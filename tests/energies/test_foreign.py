"""Second energy models: what can be named, what is refused, and how cells are treated."""

import sys

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from hypothesis import given
from hypothesis import strategies as st
from refusals import refuses
from screening_examples import crystal, formamide

from molflow_sim.energies.foreign import (
    MINIMUM_AXIS,
    EnergyModel,
    energy_identity,
    energy_model,
)
from molflow_sim.energies.models import check_energy_spec
from molflow_sim.errors import InputError, MissingDependencyError, MolflowError, NonFiniteError
from molflow_sim.symmetry import cell_matrix
from molflow_sim.symmetry.spacegroup import repeats_for_axis


class PerAtom(Calculator):
    """-1 eV an atom: the simplest size-consistent model."""

    implemented_properties = ("energy",)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": -1.0 * len(atoms)}


class Broken(PerAtom):
    """A calculator that fails in its own way."""

    def calculate(self, *arguments, **named):
        raise ArithmeticError("the SCF went wild")


def not_a_calculator():
    return 42


def failing_factory():
    raise OSError("no licence")


@given(
    st.lists(st.floats(2.5, 30.0), min_size=3, max_size=3),
    st.lists(st.floats(60.0, 110.0), min_size=3, max_size=3),
    st.floats(5.0, 15.0),
)
def test_repeated_cells_are_wide_enough_and_no_wider_than_needed(lengths, angles, minimum):
    cell = cell_matrix(np.array([*lengths, *angles]))
    if np.linalg.det(cell) < 0.2 * np.prod(lengths):
        return
    n = np.array(repeats_for_axis(cell, minimum))
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    assert np.all(n * heights >= minimum - 1e-6) and np.all(((n - 1) * heights < minimum) | (n == 1))
    assert np.all(n * np.linalg.norm(cell, axis=1) >= minimum - 1e-6), "so every axis is long enough, too"


@pytest.mark.parametrize("minimum_axis", [0.0, 10.0, 17.0])
def test_energies_are_per_molecule_however_far_the_cell_is_blown_up(minimum_axis):
    model = EnergyModel("x", "x", lambda atoms: -1.0 * len(atoms), minimum_axis)
    assert model.energy(crystal(formamide(), "P 1 21/c 1")) == pytest.approx(-6.0)


def test_an_ase_calculator_is_named_by_its_factory():
    model = energy_model(f"ase:{__name__}:PerAtom")
    assert model.name == "PerAtom" and model.energy(crystal(formamide())) == pytest.approx(-6.0)


def test_a_users_module_in_the_working_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "my_model_xyz.py").write_text("from ase.calculators.lj import LennardJones as make\n")
    monkeypatch.chdir(tmp_path)
    assert energy_model("ase:my_model_xyz:make").name == "LennardJones"


def test_a_torch_sim_model_is_named_by_its_factory(tmp_path, monkeypatch):
    (tmp_path / "my_torch_model.py").write_text(
        "from molflow_sim import CrystalPotential, Molecule\n"
        "def make():\n    return CrystalPotential.from_crystals([Molecule.from_smiles('NC=O')])\n"
    )
    monkeypatch.chdir(tmp_path)
    model = energy_model("torchsim:my_torch_model:make")
    assert model.name == "CrystalPotential" and np.isfinite(model.energy(crystal(formamide(), length=7.0)))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("dft", "unknown energy model"),
        ("", "unknown energy model"),
        ("mace:", "unknown energy model"),
        ("mace:absent.model", "no file absent.model"),
        ("ase:json", "package.module:function"),
        ("ase:no_such_module:f", "cannot be imported"),
        ("ase:json:no_such_function", "no function"),
        (f"ase:{__name__}:not_a_calculator", "gave a int, not an ASE calculator"),
        (f"torchsim:{__name__}:not_a_calculator", "not a torch-sim ModelInterface"),
        (f"ase:{__name__}:failing_factory", "OSError: no licence"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused_with_the_reason(spec, words):
    refuses(InputError, words, check_energy_spec, spec)


@pytest.mark.parametrize(
    ("text", "words"), [("def (", "SyntaxError"), ("1 / 0", "ZeroDivisionError"), ("raise SystemExit(3)", "SystemExit")]
)
def test_a_users_module_that_does_not_load_is_refused_with_the_reason(tmp_path, monkeypatch, text, words):
    (tmp_path / "my_broken_model.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    refuses(InputError, f"my_broken_model.*cannot be imported: {words}", check_energy_spec, "ase:my_broken_model:make")


def test_a_changed_model_file_is_another_model(tmp_path):
    file = tmp_path / "x.model"
    file.write_bytes(b"weights")
    first = energy_identity(f"mace:{file}")
    file.write_bytes(b"other weights")
    assert first != energy_identity(f"mace:{file}")
    assert energy_identity(f"ase:{__name__}:PerAtom") and energy_identity("gfn2-xtb")


def test_a_failing_calculator_is_a_reason_and_without_tblite_the_install_command_is_given(monkeypatch):
    with pytest.raises(MolflowError, match="ArithmeticError: the SCF went wild"):
        energy_model(f"ase:{__name__}:Broken").energy(crystal(formamide()))
    with pytest.raises(NonFiniteError):
        EnergyModel("x", "x", lambda atoms: float("nan")).energy(crystal(formamide()))
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    refuses(MissingDependencyError, r"molflow-sim\[xtb\]", energy_model, "gfn2-xtb")


def test_tight_binding_energies_do_not_depend_on_the_cell_once_it_is_large():
    """The energy of a molecule per cell of 10 and of 20 Å agree: the blown-up cell is size-consistent."""
    pytest.importorskip("tblite", reason="tblite is not installed")
    model = energy_model("gfn1-xtb")
    assert model.minimum_axis == MINIMUM_AXIS
    lone = crystal(formamide(), "P 1", length=10.5)
    assert model.energy(lone) == pytest.approx(EnergyModel("", "", model.cell_energy, 20.0).energy(lone), abs=2e-3)
