"""The network's velocities belong to the crystal, not to how it is written down."""

import numpy as np
import pytest
import torch
from crystal_examples import molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from p1_examples import TINY, haar, network, random_state
from scipy.spatial.transform import Rotation

from molflow_sim.models.mol_crystal_flow.batch import Poses
from molflow_sim.models.mol_crystal_flow.data import Shape, shape_tensors
from molflow_sim.models.mol_crystal_flow.embedder import MoleculeEmbedder
from molflow_sim.models.mol_crystal_flow.features import chemical_features
from molflow_sim.models.mol_crystal_flow.interpolants import Velocities
from molflow_sim.models.mol_crystal_flow.settings import P1Settings

F64 = torch.float64
NET = network()
TIME = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
seeds = st.integers(0, 10_000)
few = settings(max_examples=12, deadline=None)


def _turned(seed: int, *shape: int) -> torch.Tensor:
    return haar(shape, seed)


def _close(a: Velocities, b: Velocities, tolerance: float = 1e-8) -> bool:
    pairs = ((a.cell, b.cell), (a.frac, b.frac), (a.omega, b.omega))
    return all((x - y).abs().max() < tolerance for x, y in pairs)


def _differ(a: Velocities, b: Velocities) -> bool:
    return all((x - y).abs().max() > 1e-5 for x, y in ((a.cell, b.cell), (a.frac, b.frac), (a.omega, b.omega)))


@given(seed=seeds)
@few
def test_lattice_shifts_of_molecules_change_nothing(seed):
    batch = random_state(seed)
    p = batch.poses
    shift = torch.randint(-3, 4, p.frac.shape, generator=torch.Generator().manual_seed(seed)).to(F64)
    moved = batch.with_poses(Poses(p.cell, p.frac + shift, p.rotation, p.chi))
    assert _close(NET(batch, TIME), NET(moved, TIME))


@given(seed=seeds)
@few
def test_the_choice_of_chi_within_a_hand_is_free(seed):
    batch = random_state(seed)
    p = batch.poses
    signs = torch.randint(0, 2, (*batch.mask.shape, 2), generator=torch.Generator().manual_seed(seed)).to(F64) * 2 - 1
    flip = torch.cat([signs, signs.prod(-1, keepdim=True)], -1)  # proper
    other = batch.with_poses(Poses(p.cell, p.frac, p.rotation * flip.unsqueeze(-2), p.chi * flip))
    assert torch.allclose(other.positions(), batch.positions(), atol=1e-10)
    assert _close(NET(batch, TIME), NET(other, TIME))


@pytest.mark.parametrize("smiles", ["CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "NC(N)=O", "CC#N"])
def test_the_frame_a_conformer_is_given_in_is_free(smiles):
    """The same copies in space from a conformer turned any way: the same velocities."""
    m = molecule(smiles)
    chemical = chemical_features(m.rdmol)
    batch = random_state(3, (0,))

    def velocity(turn_of_conformer: np.ndarray, k: int = 0) -> tuple[Velocities, int]:
        shape = Shape.of(m.numbers, m.conformers[0] @ turn_of_conformer.T, chemical)
        flip = np.diag([1.0, 1.0, shape.frame.hand])
        frame = turn_of_conformer.T @ shape.frame.rotation @ flip @ shape.frame.symmetry[k] @ flip
        chi = torch.ones(1, 4, 3, dtype=F64)
        chi[..., 2] = shape.frame.hand
        # Copies are `_turned(11, 1, 4)` of the molecule in its original frame.
        poses = Poses(batch.poses.cell, batch.poses.frac, _turned(11, 1, 4) @ torch.as_tensor(frame), chi)
        state = type(batch)(shape_tensors([shape]).to(F64), poses, batch.species, batch.mask)
        return NET(state, TIME[:1]), len(shape.frame.symmetry)

    reference, order = velocity(np.eye(3))
    for seed in (1, 2, 3):
        q = Rotation.random(random_state=seed).as_matrix()
        # Of a symmetric molecule's equivalent frames any may be taken.
        found = [velocity(q, k)[0] for k in range(order)]
        assert min((reference.omega - v.omega).abs().max() for v in found) < 1e-5


def test_trap_3_turning_all_molecules_against_the_cell_changes_the_velocities():
    """L Lᵀ, fractional differences and RᵢᵀRⱼ stay the same; the crystal does not."""
    batch = random_state(1)
    p = batch.poses
    q = _turned(5, 3).unsqueeze(1)
    turned = batch.with_poses(Poses(p.cell, p.frac, q @ p.rotation, p.chi))
    relative = p.rotation.transpose(-1, -2).unsqueeze(2) @ p.rotation.unsqueeze(1)
    r = turned.poses.rotation
    assert torch.allclose(r.transpose(-1, -2).unsqueeze(2) @ r.unsqueeze(1), relative)
    assert _differ(NET(batch, TIME), NET(turned, TIME))
    # so for the published sizes, which have no body vectors
    bare = network(settings=P1Settings(**{**TINY.__dict__, "body_tensors": 0}))
    assert _differ(bare(batch, TIME), bare(turned, TIME))


def test_a_single_molecule_in_the_cell_sees_how_it_is_turned():
    batch = random_state(2, (0,))
    one = type(batch)(batch.shapes, batch.poses, batch.species, torch.tensor([[True, False, False, False]]))
    p = batch.poses
    turned = one.with_poses(Poses(p.cell, p.frac, _turned(9, 1).unsqueeze(1) @ p.rotation, p.chi))
    a, b = NET(one, TIME[:1]), NET(turned, TIME[:1])
    assert (a.omega[:, 0] - b.omega[:, 0]).abs().max() > 1e-4 and (a.cell - b.cell).abs().max() > 1e-4


def test_the_hands_of_the_molecules_are_seen():
    for tensors in (0, 4):
        net = network(settings=P1Settings(**{**TINY.__dict__, "body_tensors": tensors}))
        batch = random_state(1)
        p = batch.poses
        chi = p.chi.clone()
        chi[:, 0, 2] *= -1
        assert _differ(net(batch, TIME), net(batch.with_poses(Poses(p.cell, p.frac, p.rotation, chi)), TIME))


def test_padding_is_not_seen():
    both, alone = random_state(4, (2, 4)), random_state(4, (2, 4))
    p = alone.poses
    cut = Poses(p.cell[:1], p.frac[:1, :2], p.rotation[:1, :2], p.chi[:1, :2])
    small = type(alone)(alone.shapes, cut, alone.species[:1, :2], alone.mask[:1, :2])
    big, little = NET(both, TIME[:2]), NET(small, TIME[:1])
    assert torch.allclose(big.omega[0, :2], little.omega[0]) and torch.allclose(big.cell[0], little.cell[0])
    assert big.frac[0, 2:].abs().max() == 0 and big.omega[0, 2:].abs().max() == 0


def test_centroid_velocities_have_no_common_part():
    assert NET(random_state(6), TIME).frac.sum(1).abs().max() < 1e-12


def test_the_cell_velocity_stays_in_the_standard_frame():
    v = NET(random_state(6), TIME).cell
    assert torch.allclose(v, torch.tril(v), atol=1e-10)


@given(seed=seeds)
@few
def test_edge_features_join_smoothly_where_the_nearest_image_changes(seed):
    batch = random_state(seed)
    p = batch.poses
    direction = torch.rand(p.frac.shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    at_border = p.frac.clone()
    at_border[:, 1, 0] = at_border[:, 0, 0] + 0.5
    below, above = (
        NET(batch.with_poses(Poses(p.cell, at_border + s * 1e-9 * direction, p.rotation, p.chi)), TIME) for s in (-1, 1)
    )
    assert _close(below, above, tolerance=1e-5)


@given(seed=seeds)
@few
def test_the_embedder_is_invariant_and_its_vectors_turn_with_the_body(seed):
    torch.manual_seed(0)
    embedder = MoleculeEmbedder(2, 16, tensors=3).double()
    m = molecule("CC(=O)Oc1ccccc1C(=O)O")
    shapes = shape_tensors([Shape.of(m.numbers, m.conformers[0], chemical_features(m.rdmol))]).to(F64)
    q = _turned(seed, 1)[0] * (-1) ** seed
    order = torch.randperm(21, generator=torch.Generator().manual_seed(seed))
    moved = type(shapes)(
        shapes.numbers[:, order], shapes.positions[:, order] @ q.T, shapes.invariants, shapes.volume, shapes.symmetry
    )
    (f, v, w), (g, x, y) = embedder(shapes), embedder(moved)
    assert torch.allclose(f, g) and torch.allclose(v @ q.T, x) and torch.allclose(q @ w @ q.T, y)


def test_lower_precision_of_the_layers_leaves_the_geometry_alone():
    net = network().float()
    batch = random_state(1).to(torch.float32)
    reference = net(batch, TIME.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net(batch, TIME.float())
    assert found.omega.dtype == found.cell.dtype == torch.float32
    scale = reference.omega.abs().max()
    assert (found.omega - reference.omega).abs().max() < 0.1 * scale
    assert found.frac.sum(1).abs().max() < 1e-5
