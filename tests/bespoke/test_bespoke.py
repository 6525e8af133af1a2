"""A molecule's own potential: its sums are the potential's, its teacher's words are derivatives, and it is judged."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch
import torch_sim
from molflow_ase import CrystalCalculator
from molflow_openmm import crystalSystem
from openmm import unit

from molflow_sim.bespoke import Bespoke, DistilSettings, distil
from molflow_sim.bespoke.distillation import Agreement
from molflow_sim.bespoke.fit import fit
from molflow_sim.bespoke.lessons import Lessons, class_parameters, distinct, disturbed, learn
from molflow_sim.errors import InputError, StoreError, UnsupportedElementError
from molflow_sim.forcefield import CrystalPotential, parametrize
from molflow_sim.forcefield.exp6 import GUARD_RADIUS
from molflow_sim.packing import press, random_packings
from molflow_sim.relax.symmetry import atom_permutations
from molflow_sim.so3lr.potential import SO3LR
from molflow_sim.systems.molecule import Molecule
from molflow_sim.units import KJ_PER_MOL

SMALL = DistilSettings(candidates=50, first=30, second=20, disturbed=15)


@pytest.fixture(scope="module")
def molecule() -> Molecule:
    return Molecule.from_smiles("NC=O", n_conformers=1, seed=1)


@pytest.fixture(scope="module")
def packings(molecule):
    return distinct(press(random_packings(molecule, 60, seed=3), parametrize(molecule)))


@pytest.fixture(scope="module")
def lessons(packings) -> Lessons:
    return learn(packings.select(np.arange(24)), SO3LR(dtype="float64"), np.arange(24), True)


@pytest.fixture(scope="module")
def other(molecule):
    """Parameters that differ from FIT in everything, by class."""
    p, rng = parametrize(molecule), np.random.default_rng(0)
    kind = np.unique(p.charges, return_inverse=True)[1]
    a, b, c, q = rng.normal(0.0, 0.1, (4, kind.max() + 1))[:, kind]
    q = p.charges + q
    return replace(
        p, exp6_a=p.exp6_a * np.exp(a), exp6_b=p.exp6_b + b, exp6_c=p.exp6_c * np.exp(c), charges=q - q.mean()
    )


@pytest.fixture(scope="module")
def made(molecule) -> Bespoke:
    return distil(molecule, SMALL)


def state(crystals):
    return torch_sim.initialize_state([c.to_ase() for c in crystals], torch.device("cpu"), torch.float64)


def test_the_sums_give_the_energy_forces_and_torques_of_the_crystal_potential(lessons, packings, other) -> None:
    crystals = [packings.crystal(i) for i in range(len(lessons))]
    out = CrystalPotential([other])(state(crystals))
    rows, first = lessons.rows_of(other), 0
    for row, c, energy, x, centres in zip(
        rows, crystals, out["intermolecular_energy"], lessons.positions, lessons.centres
    ):
        n = len(other.numbers)
        gradient = -out["forces"][first : first + n].numpy()
        first += len(x)
        assert row[0] == pytest.approx(float(energy) / c.z, abs=2e-6)  # sums are kept in float32
        assert row[1:4] == pytest.approx(gradient.sum(0), abs=5e-6)
        assert row[4:7] == pytest.approx(np.cross(x[:n] - centres[0], gradient).sum(0), abs=5e-6)


@pytest.mark.parametrize("which", ["teacher", "sums"])
def test_expansion_is_the_derivative_of_the_energy(packings, other, which) -> None:
    teacher, h = SO3LR(dtype="float64"), 2e-3
    some = packings.select(np.arange(4))

    def rows(p):
        told = learn(p, teacher, np.arange(len(p)), True)
        return told.teacher if which == "teacher" else told.rows_of(other)

    here = rows(some)
    up, down = (rows(replace(some, cell=some.cell * np.exp(s)))[:, 0] for s in (h, -h))
    assert (up - down) / (2 * h) == pytest.approx(here[:, 7], abs=2e-3)


def test_disturbed_packings_keep_the_symmetry(packings) -> None:
    moved = disturbed(packings, np.random.default_rng(0))
    assert np.abs(moved.volume / packings.volume - 1.0).max() > 0.05
    for i in range(len(moved)):
        atom_permutations(moved.crystal(i), tolerance=1e-6)


def test_each_minimum_is_taken_once(packings) -> None:
    twice = type(packings).concatenate([packings, packings])
    assert len(distinct(twice)) == len(packings)


def test_the_fit_finds_parameters_that_made_the_energies(lessons, molecule, other) -> None:
    target = lessons.rows_of(other)
    start = parametrize(molecule)
    found = lessons.rows_of(fit(lessons, target, start))
    before = (lessons.rows_of(start)[:, 0] - target[:, 0]) / KJ_PER_MOL
    after = (found[:, 0] - target[:, 0]) / KJ_PER_MOL
    assert after.std() < 0.15 * before.std()


def test_equivalent_atoms_share_their_parameters_and_the_molecule_is_neutral(made, lessons) -> None:
    p = made.parameters
    assert class_parameters(p, lessons.classes)[:, lessons.classes] == pytest.approx(
        np.stack([np.log(p.exp6_a), p.exp6_b, np.log(p.exp6_c), p.charges])
    )
    assert abs(p.charges.sum()) < 1e-12


def test_it_serves_packings_it_has_not_seen_better_than_fit(made) -> None:
    told = made.report
    assert told.kept and made.parameters.charge_model == "bespoke"
    assert told.bespoke.rms < told.fit.rms and told.bespoke.rho >= told.fit.rho
    assert told.n_held_out > 5 and "held out" in str(told)


def test_every_pair_repels_from_its_minimum_inwards(made) -> None:
    p, r = made.parameters, np.linspace(0.8, 6.0, 521)
    a, c = np.sqrt(np.outer(p.exp6_a, p.exp6_a)), np.sqrt(np.outer(p.exp6_c, p.exp6_c))
    b = 0.5 * np.add.outer(p.exp6_b, p.exp6_b)
    energy = a[..., None] * np.exp(-b[..., None] * r) + c[..., None] * (GUARD_RADIUS**6 / r**12 - 1.0 / r**6)
    lowest = energy.argmin(-1)
    for row, k in zip(energy.reshape(-1, len(r)), lowest.ravel()):
        assert (np.diff(row[: k + 1]) <= 0.0).all()


def test_where_nothing_is_gained_fit_stays_and_a_line_says_so(molecule, monkeypatch) -> None:
    def worse(lessons, target, start, settings=None):
        return replace(start, exp6_a=start.exp6_a[::-1], charges=start.charges[::-1], charge_model="bespoke")

    monkeypatch.setattr("molflow_sim.bespoke.distillation.fit", worse)
    kept = distil(molecule, replace(SMALL, disturbed=0))
    assert not kept.report.kept and kept.parameters.charge_model == "mmff94" and "FIT stays" in str(kept.report)
    assert kept.parameters.exp6_a == pytest.approx(parametrize(molecule).exp6_a)


def test_the_same_seed_gives_the_same_parameters(made, molecule) -> None:
    again = distil(molecule, SMALL).parameters
    for name in ("exp6_a", "exp6_b", "exp6_c", "charges"):
        assert getattr(again, name) == pytest.approx(getattr(made.parameters, name), abs=1e-5, rel=1e-4)


def test_it_is_written_and_read_whole_or_not_at_all(made, molecule, tmp_path) -> None:
    path = tmp_path / "bespoke.json"
    made.save(path)
    back = Bespoke.load(path, molecule)
    assert back.report == made.report
    for name in ("exp6_a", "exp6_b", "exp6_c", "charges"):
        assert (getattr(back.parameters, name) == getattr(made.parameters, name)).all()
    content = json.loads(path.read_text())
    content["charges"][0] += 0.01
    for damaged in (json.dumps(content), path.read_text()[:-20], "[]", "{}"):
        path.write_text(damaged)
        with pytest.raises(StoreError, match="damaged"):
            Bespoke.load(path, molecule)
    made.save(path)
    with pytest.raises(StoreError, match="another molecule"):
        Bespoke.load(path, Molecule.from_smiles("CC#N"))
    with pytest.raises(StoreError, match="cannot be read"):
        Bespoke.load(tmp_path / "none.json", molecule)


def test_ase_openmm_and_torch_see_one_energy(made, packings) -> None:
    crystal, p = packings.crystal(0), made.parameters
    atoms = crystal.to_ase()
    atoms.calc = CrystalCalculator(p, cutoff=7.0)
    expected = float(CrystalPotential([p], cutoff=7.0)(state([crystal]))["energy"])
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-9)
    torch_loop = CrystalPotential([p], cutoff=7.0, backend="torch")(state([crystal]))["energy"]
    assert float(torch_loop) == pytest.approx(expected, rel=1e-7)
    _, system, positions = crystalSystem(crystal, parameters=[p], nonbondedCutoff=0.7, ewaldErrorTolerance=1e-7)
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    energy = context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoules_per_mole)
    cells = system.getNumParticles() / len(atoms)
    assert energy * KJ_PER_MOL / cells == pytest.approx(expected, abs=2e-4)


def test_agreement_leaves_a_common_shift_out_of_the_error() -> None:
    teacher = np.linspace(-1.0, -0.5, 30)
    assert Agreement.of(teacher + KJ_PER_MOL, teacher) == Agreement(1.0, 0.0, 1.0, 1.0, 0.0)


def test_what_the_teacher_does_not_know_is_refused() -> None:
    with pytest.raises(UnsupportedElementError, match="Br"):
        distil(Molecule.from_smiles("CBr"))
    with pytest.raises(InputError, match="unknown teacher"):
        DistilSettings(teacher="dft")
    with pytest.raises(InputError, match="at least 20"):
        DistilSettings(first=5)
