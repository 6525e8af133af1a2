"""The P 1 flow trains, samples any cell content, and keeps what it must."""

from dataclasses import asdict

import numpy as np
import pytest
import roma
import torch
from crystal_examples import crystal, molecule
from p1_examples import TINY, cocrystal, data, haar, path, random_state, same_crystal
from processes import threads, without_chemistry
from rdkit import Chem
from refusals import refuses

from molflow_sim import Molecule
from molflow_sim.errors import InputError, WeightsError
from molflow_sim.flow.manifolds import wrap
from molflow_sim.forcefield import parametrize
from molflow_sim.models.mol_crystal_flow import MolCrystalFlow, P1Batches, P1Data, P1Settings
from molflow_sim.models.mol_crystal_flow.batch import Poses
from molflow_sim.models.mol_crystal_flow.frames import body_frame
from molflow_sim.models.mol_crystal_flow.interpolants import Velocities, draw_prior, without_mean
from molflow_sim.models.mol_crystal_flow.molecules import fill
from molflow_sim.models.mol_crystal_flow.sampler import integrate, scaled_step
from molflow_sim.packing import RigidPackings, press, random_packings
from molflow_sim.symmetry.placements import general_placement
from molflow_sim.training import TrainSettings, train
from molflow_sim.training.model import load_model, save_model

UREA, ASPIRIN, ALANINE = "NC(N)=O", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O"


def model(seed: int = 0, settings: P1Settings = TINY) -> MolCrystalFlow:
    torch.manual_seed(seed)
    return MolCrystalFlow(settings)


def crystals_of(samples) -> list:
    return [samples.crystal(k) for k in range(len(samples))]


def hands(samples) -> np.ndarray:
    """Hands (n, Z), measured on the atoms of the crystals, not read from notes."""
    found = []
    for c in crystals_of(samples):
        numbers, positions, index, _ = c.unit_cell()
        row = []
        for k in np.unique(index):
            x = positions[index == k]
            row.append(body_frame(numbers[index == k], x - x.mean(0)).hand)
        found.append(row)
    return np.array(found)


def test_trap_5_racemic_packings_are_reachable():
    """A flexible achiral molecule with a chiral shape: cells with both hands occur, and in equal parts on request."""
    found = hands(model().sample(molecule(ASPIRIN), 4, 24, seed=0))
    mixed = np.abs(found.sum(1)) < 4
    assert mixed.any() and (~mixed).any()
    both = hands(model().sample(molecule(ASPIRIN), 4, 6, seed=0, hands="both"))
    assert (both.sum(1) == 0).all()
    assert (np.abs(hands(model().sample(molecule(ASPIRIN), 4, 6, hands="same")).sum(1)) == 4).all()


def test_trap_5_each_molecule_of_a_cell_has_its_own_chi():
    found = fill(molecule(ASPIRIN), 4, [np.random.default_rng(k) for k in range(200)], "both")
    assert len({tuple(row) for row in found.hand}) == 6  # every way of choosing two of four


def test_an_enantiopure_molecule_keeps_its_hand_whatever_is_asked_for():
    alanine = Molecule.from_smiles(ALANINE, n_conformers=2)
    assert alanine.is_enantiopure
    with pytest.warns(UserWarning, match="enantiopure"):
        crystals = model().sample(alanine, 4, 8, seed=2, hands="both")
    for c in crystals_of(crystals):
        for positions in (c.copies(k)[0] for k in range(4)):
            rdmol = Chem.Mol(alanine.rdmol)
            conformer = Chem.Conformer(alanine.n_atoms)
            conformer.SetPositions(positions)
            rdmol.AddConformer(conformer)
            Chem.AssignStereochemistryFrom3D(rdmol)
            assert Chem.MolToSmiles(Chem.RemoveHs(rdmol)) == alanine.smiles


def test_a_racemic_compound_may_hold_both_hands():
    with pytest.warns(UserWarning, match="stereochemistry"):
        alanine = Molecule.from_smiles("CC(N)C(=O)O", n_conformers=1)
    assert alanine.racemic
    assert (hands(model().sample(alanine, 4, 5, hands="both")).sum(1) == 0).all()


def test_trap_6_sampling_is_told_neither_the_true_conformer_nor_chi():
    """Conformers are the molecule's own; hands are drawn, not read from a crystal (P 21/c: always two of each)."""
    m = molecule(ASPIRIN)
    crystals = model().sample(m, 4, 30, seed=5)
    assert len({abs(int(row.sum())) for row in hands(crystals)}) > 1
    own = np.linalg.norm(m.conformers[0][:, None] - m.conformers[0][None], axis=-1)
    for c in crystals_of(crystals):
        for unit in c.asymmetric_unit:
            distances = np.linalg.norm(unit.conformer[:, None] - unit.conformer[None], axis=-1)
            assert np.allclose(distances, own, atol=1e-8)


def test_shapes_without_a_hand_have_one_group():
    batch = P1Data.from_crystals([crystal("acetonitrile")]).batch([0])  # P -1
    assert len(batch.group.unique()) == 1
    assert (fill(molecule("CC#N"), 4, [np.random.default_rng(k) for k in range(20)], "both").hand == 1).all()


def test_any_content_of_the_cell_can_be_asked_for():
    for z in (1, 2, 3, 6):
        found = crystals_of(model().sample(molecule(UREA), z, 2))
        assert [c.z for c in found] == [z, z] and found[0].space_group.number == 1
    pair = crystals_of(model().sample([molecule(UREA), molecule("CC#N")], [2, 1], 3, seed=1))
    assert all([u.species for u in c.asymmetric_unit] == [0, 0, 1] for c in pair)
    assert pair[0].formula == "(CH4N2O)2(C2H3N)"


def test_samples_repeat_with_their_seed_and_do_not_depend_on_how_many_are_drawn_before():
    """Bit for bit: 40 at once, one, and a run across the borders of the chunks; on one thread and on two."""
    m = model(settings=P1Settings.small()).requires_grad_(False)
    for p in m.parameters():  # far from the start of a training, where velocities are small
        p.mul_(2.0)
    whole = m.sample(molecule(ASPIRIN), 3, 40, seed=7, steps=5)
    for first, n in ((0, 1), (17, 1), (10, 25), (39, 1)):
        with threads(2):
            part = m.sample(molecule(ASPIRIN), 3, n, seed=7, first_index=first, steps=5)
        assert part.index.tolist() == list(range(first, first + n))
        for name in ("cell", "frac", "orientation"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[first : first + n])
    assert not np.array_equal(whole.cell, m.sample(molecule(ASPIRIN), 3, 40, seed=8, steps=5).cell)


def test_molecules_of_samples_are_whole_and_cells_in_the_standard_frame():
    for c in crystals_of(model().sample([molecule(UREA), molecule(ASPIRIN)], 2, 4)):
        assert np.allclose(c.cell, np.tril(c.cell)) and c.volume > 10
        _, positions, index, species = c.unit_cell()
        for k, s in enumerate(species):
            x = positions[index == k]
            r = np.linalg.norm(x[:, None] - x[None], axis=-1)
            ideal = c.molecules[s].conformers[0]
            assert np.allclose(r, np.linalg.norm(ideal[:, None] - ideal[None], axis=-1), atol=1e-6)


@pytest.mark.parametrize("scales", [(0.0, 0.0), (9.0, 3.0)])
def test_a_perfect_velocity_field_leads_to_the_crystal(scales):
    """Also with time-scaled velocities, since no step goes beyond the end of its path."""
    batch = data().batch([0, 2, 4]).to(torch.float64)
    end = batch.poses

    def field(state, t):
        p, left = state.poses, (1.0 - t)[:, None, None]
        frac = without_mean(wrap(end.frac - p.frac), batch.mask) / left
        return Velocities((end.cell - p.cell) / left, frac, roma.rotmat_to_rotvec(end.rotation @ p.rotation.mT) / left)

    chosen = P1Settings(centroid_scale=scales[0], rotation_scale=scales[1], steps=60)
    prior = draw_prior(batch.volume, batch.poses.chi, chosen, np.random.default_rng(0)).to(torch.float64)
    near = torch.remainder(end.frac + 0.3 * (prior.frac - 0.5), 1.0)
    start = batch.with_poses(Poses(prior.cell, near, prior.rotation, prior.chi))
    found = integrate(field, start, chosen)
    assert all(same_crystal(batch, found, k=k, tolerance=1e-3) for k in range(3))


def test_steps_are_scaled_with_time_and_end_with_it():
    assert scaled_step(0.0, 0.02, 9.0) == pytest.approx(0.02)
    assert scaled_step(0.5, 0.02, 9.0) == pytest.approx(0.11)
    assert scaled_step(0.98, 0.02, 9.0) == pytest.approx(0.02)


def test_impossible_requests_are_named():
    for arguments in ({"z": 0}, {"z": [2, 2]}, {"n": 0}, {"hands": "left"}, {"steps": 0}):
        with pytest.raises(InputError):
            model().sample(molecule(UREA), **arguments)


def test_a_molecule_beyond_the_trained_range_is_warned_about_with_the_range():
    m = model()
    m.remember_range(P1Data.from_crystals([crystal("urea")]))
    with pytest.warns(UserWarning, match="21 atoms are beyond the trained range .at most 8"):
        m.sample(molecule(ASPIRIN), 4, 1)
    with pytest.warns(UserWarning, match="8 molecules in the cell"):
        m.sample(molecule(UREA), 8, 1)


def test_the_loss_is_the_same_for_the_same_crystals_written_differently():
    """Cartesian frame, χ and images of the centroids are free; noise and times are of one seed."""
    m = model().double()
    batch = data().batch([0, 3, 4]).to(torch.float64)
    p = batch.poses
    q = haar((3,))
    flip = torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64)
    other = batch.with_poses(
        Poses(p.cell @ q.transpose(-1, -2), p.frac + 2.0, q.unsqueeze(1) @ p.rotation * flip, p.chi * flip)
    )
    first, second = (m.loss(path(x, 4))["loss"].item() for x in (batch, other))
    assert first == pytest.approx(second, rel=1e-4)


def test_the_loss_is_the_weighted_sum_of_its_terms():
    found = model().loss(path(data().batch([0, 1]), 1))
    total = 2.0 * found["centroid"] + 1.0 * found["rotation"] + 0.1 * found["lattice"]
    assert found["loss"].item() == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.slow
def test_eight_crystals_can_be_learned():
    scaled = [crystal(name, scale) for name in ("urea", "formamide") for scale in (1.0, 1.05, 1.1, 1.15)]
    eight = P1Data.from_crystals(scaled)
    assert len(eight) == 8
    chosen = P1Settings(
        embedder_layers=1, embedder_width=16, layers=3, width=64, frequencies=8, time_width=16, body_tensors=2,
        radial=4, images=1, mirror_images=False,
    )  # fmt: skip
    m = model(settings=chosen)
    run = TrainSettings(max_steps=300, batch_size=16, learning_rate=4e-3, warmup_steps=20, log_every=20, device="cpu")
    torch.set_num_threads(1)
    result = train(m, lambda net, b: net.loss(b), P1Batches(eight, chosen, 16), run, progress=False)
    first = next(value for _, name, value in result.metrics if name == "loss")
    assert result.last("loss") < 0.6 * first
    # and the cells of samples are nearer to what was learned than the prior's are
    batch = eight.batch([0] * 40)
    true = np.array([np.linalg.norm(c.cell, axis=1) for c in eight.crystals[:4]])

    def error(cells: np.ndarray) -> float:
        lengths = np.linalg.norm(cells, axis=-1)
        return float(np.abs(lengths[:, None] - true).max(-1).min(-1).mean())

    prior = error(draw_prior(batch.volume, batch.poses.chi, chosen, np.random.default_rng(0)).cell.numpy())
    assert error(m.sample(molecule(UREA), 4, 20, seed=3).cell) < 0.6 * prior


def test_gradients_reach_every_weight():
    m = model()
    m.loss(path(data().batch([0, 1, 2, 3, 4])))["loss"].backward()
    # the last coordinate update of the embedder has no reader
    idle = {f"network.embedder.layers.{TINY.embedder_layers - 1}.shift"}
    for name, parameter in m.named_parameters():
        if not any(name.startswith(prefix) for prefix in idle):
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_saved_models_sample_the_same_and_damaged_weights_are_named(tmp_path):
    m = model()
    m.remember_range(data())
    save_model(tmp_path, m)
    again = load_model(tmp_path)
    assert again.card == m.card and again.settings == m.settings
    a, b = (x.sample(molecule(UREA), 2, 2, seed=1) for x in (m, again))
    assert np.array_equal(a.cell, b.cell)
    weights = tmp_path / "mol_crystal_flow.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    refuses(WeightsError, "SHA-256", load_model, tmp_path)


def test_settings_come_back_from_yaml_and_wrong_ones_are_named(tmp_path):
    for chosen in (P1Settings(), P1Settings.published(), P1Settings.small()):
        chosen.to_yaml(tmp_path / "p1.yaml")
        assert P1Settings.from_yaml(tmp_path / "p1.yaml") == chosen
    (tmp_path / "p1.yaml").write_text("layers: 0\n")
    refuses(InputError, "layers", P1Settings.from_yaml, tmp_path / "p1.yaml")


def test_the_published_sizes_are_the_published_ones():
    s = P1Settings.published()
    assert (s.embedder_layers, s.embedder_width, s.embedder_cutoff) == (6, 64, 6.0)
    assert (s.layers, s.width, s.frequencies, s.steps) == (6, 256, 32, 50)
    assert (s.centroid_weight, s.rotation_weight, s.lattice_weight) == (2.0, 1.0, 0.1)
    assert (s.centroid_scale, s.rotation_scale) == (9.0, 3.0)
    sizes = [sum(p.numel() for p in MolCrystalFlow(x).parameters()) for x in (P1Settings.small(), s)]
    assert sizes[0] < 0.5e6 < 3e6 < sizes[1]


def test_cocrystals_train():
    both = P1Data.from_crystals([cocrystal(), crystal("urea")])
    assert torch.isfinite(model().loss(path(both.batch([0, 1])))["loss"])
    assert asdict(TINY)["steps"] == 10 and random_state().mask.shape == (3, 4)


def test_training_needs_no_chemistry_library(tmp_path):
    data().save(tmp_path / "crystals.npz")
    script = """
        from molflow_sim.models.mol_crystal_flow import MolCrystalFlow, P1Batches, P1Data, P1Settings

        data, _ = P1Data.load(sys.argv[1])
        settings = P1Settings(embedder_layers=1, layers=1, width=16)
        loss = MolCrystalFlow(settings).loss(P1Batches(data, settings, 4).batch(0))
        loss["loss"].backward()
        print("trained")
    """
    assert without_chemistry(script, tmp_path / "crystals.npz", also="numba").startswith("trained")


def test_samples_of_both_hands_are_packings_that_the_press_takes():
    """Copies of the other hand are improper orientations: atoms are the crystal's before the press and after it."""
    samples = model().sample(molecule(ASPIRIN), 2, 4, seed=3, hands="both")
    packings = samples.packings()
    assert (np.sign(np.linalg.det(packings.rotation)).sum(1) == 0).all()
    for k, c in enumerate(crystals_of(samples)):
        assert same_crystal(c, packings.crystal(k))
        assert all(np.linalg.det(unit.orientation) > 0 for unit in packings.crystal(k).asymmetric_unit)
    pressed = press(packings, parametrize(molecule(ASPIRIN)))
    assert pressed.ok.all() and (pressed.density > 1.0).all() and (pressed.energy < 0.0).all()
    assert (np.sign(np.linalg.det(pressed.rotation)).sum(1) == 0).all()


def test_the_press_finds_a_centrosymmetric_minimum_again_where_it_is_written_in_p1():
    """In P 1 the inverted copy is an improper orientation; energy and volume stay what they were in P -1."""
    m = molecule(ASPIRIN)
    minimum = press(random_packings(m, 1, space_groups=["P -1"], seed=1), parametrize(m))
    place = minimum.placements[0]
    centroid = np.stack([minimum.centroid[:, 0], -minimum.centroid[:, 0]], 1)
    rotation = np.einsum("gij,njk->ngik", place.cart_rot, minimum.rotation[:, 0])
    in_p1 = RigidPackings.proposed(
        m, minimum.conformers, (general_placement("P 1"),), np.zeros(1, int), minimum.conformer, minimum.cell,
        centroid + place.frac_tran, rotation,
    )  # fmt: skip
    again = press(in_p1, parametrize(m))
    assert same_crystal(minimum.crystal(0), in_p1.crystal(0))
    assert again.energy == pytest.approx(minimum.energy, abs=2e-3)
    assert again.volume == pytest.approx(minimum.volume, rel=0.02)
