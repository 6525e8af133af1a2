"""Flexible relaxation finds true minima, keeps the space group, and lets no structure spoil another."""

import dataclasses

import numpy as np
import pytest
import torch
import torch_sim as ts
from crystal_examples import crystal
from refusals import refuses

from molflow_sim.errors import InputError
from molflow_sim.forcefield.potential import CrystalPotential
from molflow_sim.relax.flexible import relax_flexible
from molflow_sim.relax.symmetry import atom_permutations
from molflow_sim.units import GPA

CUTOFF = 9.0


@pytest.fixture(scope="module")
def potential():
    return CrystalPotential.from_crystals([crystal(n) for n in ("urea", "formamide", "glycolic")], cutoff=CUTOFF)


def true_forces_and_stress(potential, relaxed):
    out = potential(ts.io.atoms_to_state([relaxed.to_ase()], torch.device("cpu"), torch.float64))
    return out["energy"].item(), out["forces"].norm(dim=1).max().item(), out["stress"].abs().max().item() / GPA


def test_a_relaxed_crystal_has_no_force_and_no_stress_of_its_own(potential):
    start = crystal("glycolic")
    result = relax_flexible([start], potential)[0]
    energy, force, stress = true_forces_and_stress(potential, result.crystal)  # the result's crystal, from scratch
    assert result.converged and result.reason == ""
    assert force < 0.0101 and stress < 0.0505
    assert energy / 4 == pytest.approx(result.energy, abs=1e-6)
    assert result.energy < true_forces_and_stress(potential, start)[0] / 4 - 0.1
    assert result.crystal.space_group.name == start.space_group.name and result.n_steps < 200


def test_the_space_group_stays_exact_and_every_atom_follows_it(potential):
    result = relax_flexible([crystal("formamide")], potential)[0]
    assert result.crystal.space_group.number == 14
    assert np.abs(result.crystal.cell[0, 1]) < 1e-9 and np.abs(result.crystal.cell[1, 2]) < 1e-9
    assert atom_permutations(result.crystal, tolerance=1e-6).shape == (4, 24)


def test_without_symmetry_a_crystal_goes_at_least_as_low(potential):
    start = crystal("formamide")
    kept, free = (relax_flexible([start], potential, symmetric=s, fmax=0.003)[0] for s in (True, False))
    assert kept.converged and free.converged
    assert free.energy < kept.energy + 2e-4


def test_a_hopeless_structure_is_a_row_with_a_reason_and_the_others_go_on(potential):
    start = relax_flexible([crystal("formamide")], potential)[0].crystal
    good = dataclasses.replace(start, cell=start.cell * 1.005)
    flat = dataclasses.replace(start, cell=start.cell * np.array([[1.0], [1.0], [0.02]]))
    alone = relax_flexible([good], potential)[0]
    rows = relax_flexible([flat, good, flat], potential)
    assert [r.converged for r in rows] == [False, True, False]
    assert rows[0].reason.startswith("NonFiniteError") and not np.isfinite(rows[0].energy)
    assert rows[0].crystal is flat
    assert rows[1].energy == pytest.approx(alone.energy, abs=1e-8) and rows[1].n_steps == alone.n_steps


def test_too_few_steps_say_so_and_return_the_best_so_far(potential):
    start = crystal("glycolic")
    result = relax_flexible([start], potential, max_steps=5)[0]
    assert not result.converged and result.n_steps == 5 and "5 steps" in result.reason
    assert result.energy < true_forces_and_stress(potential, start)[0] / 4


def test_rows_come_back_in_order_whatever_the_batches_and_twice_the_same(potential):
    crystals = [crystal("glycolic"), crystal("formamide"), crystal("urea"), crystal("formamide", scale=1.02)]
    runs = [relax_flexible(crystals, potential, batch_size=b, max_steps=40) for b in (1, 3, 3)]
    assert [r.crystal.formula for r in runs[0]] == [c.formula for c in crystals]
    for a, b, c in zip(*runs):
        assert a.energy == b.energy == c.energy
        assert np.array_equal(a.crystal.cell, b.crystal.cell) and np.array_equal(b.crystal.cell, c.crystal.cell)


def test_single_precision_is_refused(potential):
    single = CrystalPotential(potential.parameters, cutoff=CUTOFF, dtype=torch.float32)
    refuses(InputError, "float64", relax_flexible, [crystal("urea")], single)
