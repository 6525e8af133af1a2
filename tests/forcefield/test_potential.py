"""What the crystal potential is: its sums, its invariances, and that history, batch and backend leave no trace."""

import dataclasses

import numpy as np
import pytest
import torch
import torch_sim as ts
import torchpme
from crystal_examples import crystal, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers
from refusals import refuses
from scipy.spatial.transform import Rotation
from vesin import NeighborList

from molflow_sim import CrystalPotential, parametrize
from molflow_sim.errors import CrystalError, InputError
from molflow_sim.forcefield.batch import MIN_VOLUME_PER_ATOM
from molflow_sim.forcefield.topology import match_molecules
from molflow_sim.symmetry import cell_matrix
from molflow_sim.units import COULOMB, KCAL_PER_MOL

CPU = torch.device("cpu")


def state(*atoms, dtype=torch.float64):
    return ts.io.atoms_to_state(list(atoms), CPU, dtype)


def potential(*names: str, **options) -> CrystalPotential:
    return CrystalPotential.from_crystals([crystal(n) for n in names], **options)


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def direct_sum(parameters, atoms, molecule_index, cutoff):
    """Switched exp-6 energy by an unhurried sum over images, in NumPy alone."""
    p, n = parameters, len(atoms) // len(parameters.numbers)
    a, b, c = (np.tile(v, n) for v in (p.exp6_a, p.exp6_b, p.exp6_c))
    x, h = atoms.get_positions(), atoms.cell.array
    reach = np.ceil((cutoff + 12.0) * np.linalg.norm(np.linalg.inv(h), axis=0)).astype(int)
    total = 0.0
    for shift in np.ndindex(*(2 * reach + 1)):
        delta = x[None] + (np.array(shift) - reach) @ h - x[:, None]
        r = np.linalg.norm(delta, axis=-1)
        use = r < cutoff
        if (np.array(shift) == reach).all():
            use &= molecule_index[:, None] != molecule_index[None]
        i, j = np.nonzero(use)
        r = r[i, j]
        energy = np.sqrt(a[i] * a[j]) * np.exp(-0.5 * (b[i] + b[j]) * r)
        energy += np.sqrt(c[i] * c[j]) * (1.1**6 / r**12 - 1.0 / r**6)
        t = np.clip((r - cutoff + 2.0) / 2.0, 0.0, 1.0)
        total += 0.5 * (energy * (1.0 - 10.0 * t**3 + 15.0 * t**4 - 6.0 * t**5)).sum()
    return total


@pytest.mark.parametrize("name", ["acetonitrile", "urea"])
def test_exp6_is_the_sum_over_all_images_even_when_the_cutoff_exceeds_the_cell(name):
    atoms = crystal(name).to_ase()
    p = parametrize(crystal(name).molecules[0])
    neutral = dataclasses.replace(p, charges=np.zeros_like(p.charges))
    got = CrystalPotential([neutral], cutoff=9.0)(state(atoms))["intermolecular_energy"].item()
    assert got == pytest.approx(direct_sum(p, atoms, atoms.arrays["molecule"], 9.0), rel=1e-11)


def torchpme_electrostatics(parameters, atoms):
    """Ewald energy from torch-pme, minus the bare 1/r within the whole molecules."""
    q = np.tile(parameters.charges, len(atoms) // len(parameters.charges))
    cutoff, h = 9.0, atoms.cell.array
    i, j, r = NeighborList(cutoff=cutoff, full_list=False).compute(
        points=atoms.get_positions(), box=h, periodic=True, quantities="ijd"
    )
    # torch-pme keeps k up to half of 2π/lr_wavelength along each axis: 0.35 Å leaves exp(-54) out
    calculator = torchpme.EwaldCalculator(
        torchpme.CoulombPotential(smearing=cutoff / (5.5 * np.sqrt(2.0))), lr_wavelength=0.35
    ).to(dtype=torch.float64)
    charges = torch.as_tensor(q).unsqueeze(1)
    phi = calculator(
        charges=charges,
        cell=torch.as_tensor(h),
        positions=torch.as_tensor(atoms.get_positions()),
        neighbor_indices=torch.as_tensor(np.stack([i, j], axis=1).astype(np.int64)),
        neighbor_distances=torch.as_tensor(r),
    )
    bare = 0.0
    for m in range(atoms.arrays["molecule"].max() + 1):
        here = atoms.arrays["molecule"] == m
        d = atoms.get_positions()[here]
        d = np.linalg.norm(d[:, None] - d[None], axis=-1)
        bare += 0.5 * (np.outer(q[here], q[here])[d > 0] / d[d > 0]).sum()
    # torch-pme's potentials already count each pair once: E = Σ q φ
    return COULOMB * (float((charges * phi).sum()) - bare)


@pytest.mark.parametrize("name", ["acetonitrile", "urea", "glycolic"])
@pytest.mark.parametrize("cutoff", [6.0, 15.0])
def test_electrostatics_agree_with_torch_pme_whatever_the_cutoff(name, cutoff):
    p = parametrize(crystal(name).molecules[0])
    bare = dataclasses.replace(p, exp6_a=np.zeros_like(p.exp6_a), exp6_c=np.zeros_like(p.exp6_c))
    atoms = crystal(name).to_ase()
    got = CrystalPotential([bare], cutoff=cutoff)(state(atoms))["intermolecular_energy"].item()
    assert got == pytest.approx(torchpme_electrostatics(p, atoms), rel=1e-7)


def test_a_lone_molecule_has_the_mmff94_energy_that_rdkit_gives():
    mol = molecule("OCC(=O)O")
    atoms = crystal("glycolic").to_ase()[: mol.n_atoms]
    atoms.set_cell([60.0, 60.0, 60.0])
    out = potential("glycolic")(state(atoms))
    rdmol, conformer = Chem.Mol(mol.rdmol), Chem.Conformer(mol.n_atoms)
    conformer.SetPositions(atoms.get_positions())
    rdmol.AddConformer(conformer)
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(
        rdmol, rdForceFieldHelpers.MMFFGetMoleculeProperties(rdmol), nonBondedThresh=1e3
    )
    assert out["intramolecular_energy"].item() == pytest.approx(field.CalcEnergy() * KCAL_PER_MOL, abs=1e-7)
    assert abs(out["intermolecular_energy"].item()) < 1e-3  # dipoles of images 60 Å away


def test_compiled_and_torch_pair_loops_are_one_function():
    names = ["urea", "acetonitrile", "glycolic", "aspirin"]
    tight = [crystal(n, scale=0.85).to_ase() for n in names]  # overlaps included
    a, b = (potential(*names, backend=k, cutoff=10.0)(state(*tight)) for k in ("compiled", "torch"))
    for name, value in b.items():
        assert largest(a[name], value) <= 1e-10 * float(value.abs().max()), name


def test_float32_pairs_stay_within_a_few_millionths():
    s = state(crystal("aspirin").to_ase())
    exact = potential("aspirin")(s)
    rough = potential("aspirin", backend="torch", pair_dtype=torch.float32)(s)
    assert largest(exact["energy"], rough["energy"]) < 5e-6 * float(exact["intermolecular_energy"].abs())
    assert largest(exact["forces"], rough["forces"]) < 1e-4


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), stride=st.sampled_from([0.02, 0.2, 1.0]))
def test_results_do_not_depend_on_what_was_evaluated_before(seed, stride):
    rng = np.random.default_rng(seed)
    veteran = potential("urea", "glycolic", cutoff=8.0)
    walkers = [crystal("urea").to_ase(), crystal("glycolic").to_ase()]
    for _ in range(6):
        for a in walkers:
            strain = np.eye(3) + 0.02 * stride * rng.normal(size=(3, 3))
            a.set_cell(a.cell.array @ strain, scale_atoms=True)
            shift = rng.normal(size=(a.arrays["molecule"].max() + 1, 3)) * 0.3 * stride
            a.positions += shift[a.arrays["molecule"]]
            if rng.random() < 0.3:
                a.wrap()
        got = veteran(state(*walkers))
        fresh = potential("urea", "glycolic", cutoff=8.0)(state(*walkers))
        for name, value in fresh.items():
            assert largest(got[name], value) <= 1e-10 * max(1.0, float(value.abs().max())), name


def test_small_moves_and_strains_reuse_the_neighbour_list():
    atoms, model = crystal("urea").to_ase(), potential("urea", cutoff=8.0)
    for k in range(5):
        atoms.set_cell(atoms.cell.array * (1.0 - 0.002 * k), scale_atoms=True)
        model(state(atoms))
    assert model._verlet.n_built == 1


def test_a_full_list_gets_room_and_the_lists_of_other_systems_stay():
    a, b = crystal("urea").to_ase(), crystal("glycolic").to_ase()
    model = potential("urea", "glycolic", cutoff=8.0, skin=1.0)
    model(state(a, b))
    entries = model._verlet._list
    entries.offset[1] = entries.count[:4].sum()  # not an entry to spare
    room = len(entries.atom)
    apart = np.array([[0.45, 0.0, 0.0], [-0.45, 0.0, 0.0], [0.0] * 3, [0.0] * 3])[b.arrays["molecule"]]
    b.positions += apart
    a.set_cell(a.cell.array * 0.85, scale_atoms=True)
    a.positions += np.random.default_rng(0).normal(size=(4, 3))[a.arrays["molecule"]] * 0.5
    model(state(a, b))
    assert len(entries.atom) > room and model._verlet.n_built == 3
    b.positions -= 2.0 * apart
    got, fresh = (m(state(a, b)) for m in (model, potential("urea", "glycolic", cutoff=8.0)))
    for name, value in fresh.items():
        assert largest(got[name], value) <= 1e-10 * max(1.0, float(value.abs().max())), name


CELLS = st.tuples(
    *[st.floats(5.0, 9.0)] * 3, st.floats(50.0, 125.0), st.floats(50.0, 125.0), st.floats(50.0, 125.0)
).filter(lambda p: abs(np.linalg.det(cell_matrix(np.array(p)))) > 0.45 * p[0] * p[1] * p[2])


@settings(max_examples=25, deadline=None)
@given(parameters=CELLS, seed=st.integers(0, 10**6))
def test_molecules_are_found_whole_in_any_cell_however_their_atoms_are_wrapped(parameters, seed):
    rng = np.random.default_rng(seed)
    mol = molecule("NC(N)=O")
    cell = cell_matrix(np.array(parameters)) @ Rotation.random(random_state=seed).as_matrix()
    atoms = crystal("urea").to_ase()[: mol.n_atoms]
    atoms.set_cell(cell)
    model = potential("urea", cutoff=6.0)
    wanted = model(state(atoms))
    atoms.positions += rng.integers(-3, 4, size=(len(atoms), 3)) @ cell
    got = model(state(atoms))
    for name, value in wanted.items():
        assert largest(got[name], value) <= 1e-9 * max(1.0, float(value.abs().max())), name


def test_a_broken_system_is_nan_and_its_neighbours_in_the_batch_are_not():
    good = crystal("urea").to_ase()
    lost, flat, tiny = good.copy(), good.copy(), good.copy()
    lost.positions[3, 1] = np.nan
    flat.set_cell(flat.cell.array * [[1.0], [1.0], [1e-3]])
    tiny.set_cell(np.eye(3) * (0.9 * MIN_VOLUME_PER_ATOM * len(tiny)) ** (1 / 3), scale_atoms=True)
    model = potential("urea")
    alone = model(state(good))
    out = model(state(good, lost, flat, tiny, good))
    assert torch.isfinite(out["energy"]).tolist() == [True, False, False, False, True]
    assert torch.isnan(out["forces"][len(good) : 4 * len(good)]).all()
    assert largest(out["forces"][: len(good)], alone["forces"]) < 1e-12
    assert largest(model(state(good, good, good, good, good))["energy"][2:3], alone["energy"]) < 1e-12


def test_overlapping_atoms_give_large_finite_numbers():
    atoms = crystal("urea").to_ase()
    atoms.positions[8:16] = atoms.positions[:8]
    out = potential("urea")(state(atoms))
    assert torch.isfinite(out["energy"]).all() and torch.isfinite(out["forces"]).all()
    assert out["energy"].item() > 10.0


def test_molecules_of_several_species_are_told_apart_by_their_elements():
    a, b = np.array([6, 1, 1, 1, 1]), np.array([6, 1, 1])
    assert match_molecules(np.concatenate([b, a, b, b]), [a, b]) == [1, 0, 1, 1]
    refuses(CrystalError, "one after another", match_molecules, np.array([6, 1, 1, 1]), [a, b])


def test_atoms_that_are_not_its_molecules_are_refused_by_name():
    refuses(CrystalError, "order of its Molecule", potential("urea"), state(crystal("formamide").to_ase()))
    refuses(InputError, "cutoff", potential, "urea", cutoff=2.0)
    p = parametrize(crystal("urea").molecules[0])
    refuses(InputError, "same sequence", CrystalPotential, [p, p])


def test_forces_and_stress_can_be_left_out():
    out = potential("urea", compute_stress=False, compute_forces=False)(state(crystal("urea").to_ase()))
    assert set(out) == {"energy", "intermolecular_energy", "intramolecular_energy"}
