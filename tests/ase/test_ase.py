"""The ASE calculator: the same numbers as the potential, in ASE's units, signs and orders, usable by ASE's tools."""

from functools import partial

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms, units
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from crystal_examples import crystal
from molflow_ase import CrystalCalculator
from refusals import refuses

from molflow_sim import CrystalPotential, parametrize
from molflow_sim.energies import EnsemblePotential
from molflow_sim.energies.models import Best
from molflow_sim.errors import CrystalError, InputError, NonFiniteError
from molflow_sim.relax.flexible import relax_flexible
from molflow_sim.so3lr.potential import SO3LR
from molflow_sim.systems.crystal import MolecularCrystal


def with_calculator(name: str, **options):
    made = crystal(name)
    atoms = made.to_ase()
    atoms.calc = CrystalCalculator(made, **options)
    return atoms


def test_energy_forces_and_voigt_stress_are_those_of_the_potential():
    atoms = with_calculator("acetonitrile")
    out = CrystalPotential.from_crystals([crystal("acetonitrile")])(
        ts.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64)
    )
    s = out["stress"][0].numpy()
    assert atoms.get_potential_energy() == out["energy"].item()
    assert atoms.get_potential_energy(force_consistent=True) == out["energy"].item()
    assert np.array_equal(atoms.get_forces(), out["forces"].numpy())
    assert np.allclose(atoms.get_stress(), [s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]], rtol=1e-14)


@pytest.mark.parametrize("energy", ["best", "so3lr", "fit"])
def test_other_energies_by_name_are_those_of_their_potentials(energy):
    atoms = with_calculator("formamide", energy=energy)
    state = ts.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64)
    table = [parametrize(crystal("formamide").molecules[0], sites=energy == "best")]
    fit = partial(CrystalPotential, intramolecular=False)
    model = {"best": partial(EnsemblePotential, spec=Best().spec), "so3lr": lambda _: SO3LR(), "fit": fit}
    out = model[energy](table)(state)
    assert atoms.get_potential_energy() == pytest.approx(float(out["energy"][0]), abs=1e-9)
    assert atoms.get_forces() == pytest.approx(out["forces"].numpy(), abs=1e-9)
    assert atoms.get_stress(voigt=False) == pytest.approx(out["stress"][0].numpy(), abs=1e-12)


def test_parameters_that_no_longer_count_are_not_taken():
    atoms = with_calculator("formamide")
    refuses(InputError, "cutoff", atoms.calc.set, cutoff=8.0)
    assert atoms.get_potential_energy() == with_calculator("formamide").get_potential_energy()


def test_an_energy_of_another_name_is_refused():
    refuses(InputError, "unknown energy 'dft'; use potential, best", CrystalCalculator, energy="dft")


def test_a_stretched_crystal_is_under_tension():
    atoms = with_calculator("glycolic")
    atoms.set_cell(atoms.cell * 1.15, scale_atoms=False)
    shift = atoms.get_positions() * 0.0
    for m in range(4):
        here = atoms.arrays["molecule"] == m
        shift[here] = 0.15 * atoms.positions[here].mean(axis=0)
    atoms.positions += shift
    assert atoms.get_stress()[:3].mean() > 0.0


def test_only_what_changed_is_computed_again():
    atoms = with_calculator("acetonitrile")
    count = 0
    potential_forward = atoms.calc.potential.forward

    def counting(state, **kwargs):
        nonlocal count
        count += 1
        return potential_forward(state, **kwargs)

    atoms.calc.potential.forward = counting
    for _ in range(3):
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    assert count == 1
    atoms.positions[0, 0] += 0.01
    atoms.get_forces()
    atoms.set_cell(atoms.cell * 1.001, scale_atoms=True)
    atoms.get_stress()
    assert count == 3
    atoms.info["note"] = "changes no energy"
    atoms.get_forces()
    assert count == 3


def test_species_may_be_given_as_molecules_parameters_or_crystals():
    made = crystal("urea")
    atoms = made.to_ase()
    energies = []
    for source in (made, made.molecules[0], parametrize(made.molecules[0]), [made.molecules[0], crystal("formamide")]):
        atoms.calc = CrystalCalculator(source, cutoff=9.0)
        energies.append(atoms.get_potential_energy())
    assert energies == [energies[0]] * 4


def test_supercells_made_by_ase_have_the_energy_of_their_cells():
    atoms = with_calculator("acetonitrile", cutoff=8.0)
    big = atoms.repeat((2, 1, 3))
    big.calc = atoms.calc
    assert big.get_potential_energy() == pytest.approx(6 * atoms.get_potential_energy(), rel=1e-9)


def test_what_it_cannot_evaluate_is_refused_by_name():
    made = crystal("urea")
    calc = CrystalCalculator(made)
    atoms = made.to_ase()
    shuffled = atoms[::-1]
    shuffled.calc = calc
    refuses(CrystalError, "order of its Molecule", shuffled.get_potential_energy)
    slab = atoms.copy()
    slab.pbc = (True, True, False)
    slab.calc = calc
    refuses(CrystalError, "periodic", slab.get_potential_energy)
    lost = atoms.copy()
    lost.positions[0] = np.nan
    lost.calc = calc
    refuses(NonFiniteError, "not finite", lost.get_potential_energy)
    refuses(InputError, "are read from them", CrystalCalculator, Atoms("H2"))


def strange(made, seed=0):
    """The crystal's atoms in any order, wrapped, on turned axes; and where each of them was."""
    atoms = made.to_ase()
    order = np.random.default_rng(seed).permutation(len(atoms))
    atoms = atoms[order]
    atoms.wrap()
    atoms.rotate(50.0, (3, 1, 2), rotate_cell=True)
    return atoms, order


@pytest.mark.parametrize("name", ["urea", "acetonitrile", "glycolic"])
def test_without_an_argument_it_takes_the_atoms_that_it_is_attached_to(name):
    plain = with_calculator(name)
    atoms, order = strange(crystal(name))
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = CrystalCalculator()
    assert atoms.get_potential_energy() == pytest.approx(plain.get_potential_energy(), abs=1e-8)
    turned = plain.copy()
    turned.set_array("forces", plain.get_forces())
    turn = Atoms("H3", np.eye(3))
    turn.rotate(50.0, (3, 1, 2))
    assert np.allclose(atoms.get_forces(apply_constraint=False), plain.get_forces()[order] @ turn.positions, atol=1e-8)
    stress = turn.positions.T @ plain.get_stress(voigt=False) @ turn.positions
    assert np.allclose(atoms.get_stress(voigt=False), stress, atol=1e-9)


def by_element(made, step=1):
    """The crystal as a POSCAR has it, atoms by element, those of one element in or against their order."""
    atoms = made.to_ase()[::step]
    return atoms[np.argsort(atoms.numbers, kind="stable")]


def test_molecules_are_read_once_and_again_for_other_atoms(monkeypatch):
    calc, reads = CrystalCalculator(cutoff=9.0), []
    from_ase = MolecularCrystal.from_ase
    monkeypatch.setattr(MolecularCrystal, "from_ase", lambda atoms: reads.append(len(atoms)) or from_ase(atoms))
    atoms = by_element(crystal("urea"))
    atoms.calc = calc
    for _ in range(3):
        atoms.rattle(0.01)
        atoms.get_forces()
    assert len(reads) == 1
    polymorph = by_element(crystal("urea", 1.1, seed=3), -1)
    assert np.array_equal(polymorph.numbers, atoms.numbers)  # and other bonds
    for other in (crystal("formamide").to_ase(), polymorph, atoms):
        fresh = other.copy()
        fresh.calc = CrystalCalculator(cutoff=9.0)
        other.calc = calc
        assert other.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-9)


def test_a_bond_that_stretches_little_by_little_is_no_other_molecule():
    atoms, _ = strange(crystal("urea"))
    atoms.calc = CrystalCalculator(cutoff=9.0)
    hydrogen = int(np.flatnonzero(atoms.numbers == 1)[0])
    with pytest.raises(CrystalError, match="should be bonded"):
        for _ in range(10):
            atoms.positions[hydrogen, 2] += 0.3
            atoms.get_potential_energy()


METHYL = [(0.0, 0.0, 0.0), (1.08, 0.0, 0.0), (-0.54, 0.935, 0.0), (-0.54, -0.935, 0.0)]


@pytest.mark.parametrize(
    "words, atoms",
    [
        ("radical", Atoms("CH3", METHYL, cell=[6.0, 6.0, 6.0], pbc=True)),
        ("element Na", bulk("NaCl", "rocksalt", a=5.6)),
        ("endless network", bulk("C", "diamond", a=3.57).repeat(2)),
        ("set atoms.pbc", Atoms("H2", [(0.0, 0.0, 0.0), (0.74, 0.0, 0.0)])),
        ("lie upon each other", Atoms("HHH", [(0, 0, 0), (0.74, 0, 0), (0.05, 0, 0)], cell=[4, 4, 4], pbc=True)),
    ],
)
def test_atoms_that_are_no_molecular_crystal_are_named(words, atoms):
    atoms.calc = CrystalCalculator()
    refuses(InputError, words, atoms.get_potential_energy)


def test_ase_relaxes_cell_and_atoms_to_the_minimum_of_our_own_relaxation():
    made = crystal("formamide")
    potential = CrystalPotential.from_crystals([made], cutoff=9.0)
    ours = relax_flexible([made], potential, fmax=0.002, max_stress_gpa=0.01, symmetric=False)[0]
    atoms = ours.crystal.to_ase()
    atoms.calc = CrystalCalculator(made, cutoff=9.0)
    atoms.set_cell(atoms.cell * 1.005, scale_atoms=True)
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.002, steps=400)  # 0.04 GPa
    assert atoms.get_potential_energy() / 4 == pytest.approx(ours.energy, abs=1e-4)
    assert atoms.get_volume() == pytest.approx(ours.crystal.volume, rel=3e-3)


def test_molecular_dynamics_conserves_energy():
    made = crystal("formamide")
    start = relax_flexible([made], CrystalPotential.from_crystals([made], cutoff=9.0))[0].crystal
    atoms = start.to_ase()
    atoms.calc = CrystalCalculator(made, cutoff=9.0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=150.0, rng=np.random.default_rng(0))
    Stationary(atoms)
    total, step = [], 0.5
    dynamics = VelocityVerlet(atoms, step * units.fs)
    dynamics.attach(lambda: total.append(atoms.get_total_energy()))
    dynamics.run(600)
    per_atom = 1e3 * np.array(total) / len(atoms)
    drift = np.polyfit(step * 1e-3 * np.arange(len(total)), per_atom, 1)[0]
    print(f"drift {drift:+.4f} meV/atom/ps over {len(total) * step:.0f} fs, spread {per_atom.std():.4f} meV/atom")
    assert abs(drift) < 0.5
    assert per_atom.std() < 0.5
