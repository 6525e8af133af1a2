"""Small crystals as the P 1 flow sees them."""

from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import torch
from crystal_examples import crystal, molecule

from molflow_sim.flow import priors
from molflow_sim.models.mol_crystal_flow import P1Batch, P1Data, P1Settings
from molflow_sim.models.mol_crystal_flow.batch import Poses
from molflow_sim.models.mol_crystal_flow.interpolants import FlowPath, make_path
from molflow_sim.models.mol_crystal_flow.network import P1Network
from molflow_sim.symmetry import SpaceGroup, cell_matrix
from molflow_sim.systems.crystal import MolecularCrystal, RigidMolecule

NAMES = ("urea", "formamide", "acetonitrile", "glycolic", "aspirin")
TINY = P1Settings(
    embedder_layers=2, embedder_width=16, layers=2, width=32, frequencies=4, time_width=8, body_tensors=4, radial=4,
    steps=10,
)  # fmt: skip


def haar(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Random rotations (*shape, 3, 3) in double precision."""
    return torch.tensor(priors.rotations(np.random.default_rng(seed).random((*shape, 3))))


@lru_cache
def data() -> P1Data:
    """Five crystals of five molecules in P 21/c, P -1 and P 21 21 21."""
    return P1Data.from_crystals([crystal(name) for name in NAMES])


def path(batch: P1Batch, seed: int = 0) -> FlowPath:
    """Crystals on their paths from a prior."""
    return make_path(batch, TINY, np.random.default_rng(seed))


def cocrystal() -> MolecularCrystal:
    """Urea and acetonitrile, two and one in P 1."""
    species = (molecule("NC(N)=O"), molecule("CC#N"))
    rng = np.random.default_rng(5)
    unit = []
    for k, s in enumerate((0, 0, 1)):
        turn = haar((), k).numpy()
        unit.append(RigidMolecule(s, species[s].conformers[0], rng.random(3), turn, (0,)))
    cell = cell_matrix(np.array([6.1, 7.2, 8.3, 80.0, 95.0, 100.0]))
    return MolecularCrystal(species, tuple(unit), SpaceGroup.from_name("P 1"), cell)


def network(seed: int = 0, settings: P1Settings = TINY) -> P1Network:
    """A network with random weights, in double precision, whose outputs depend visibly on its inputs."""
    torch.manual_seed(seed)
    return P1Network(settings).double().eval()


def random_state(seed: int = 0, indices: tuple[int, ...] = (0, 2, 4)) -> P1Batch:
    """Crystals of different sizes in random poses, in double precision."""
    batch = data().batch(indices).to(torch.float64)
    g = torch.Generator().manual_seed(seed)
    frac = torch.rand(batch.poses.frac.shape, generator=g, dtype=torch.float64)
    rotation = haar(tuple(batch.mask.shape), seed)
    return batch.with_poses(Poses(batch.poses.cell, frac, rotation, batch.poses.chi))


def cloud(crystal: MolecularCrystal | P1Batch, reach: float = 6.0, k: int = 0) -> np.ndarray:
    """Sorted list of (element, element, distance) of all pairs closer than `reach` in a crystal; its fingerprint."""
    if isinstance(crystal, P1Batch):
        keep = (crystal.shapes.numbers[crystal.species[k]] > 0) & crystal.mask[k][:, None]
        positions = crystal.positions()[k][keep].double().numpy()
        numbers = crystal.shapes.numbers[crystal.species[k]][keep].numpy()
        cell = crystal.poses.cell[k].double().numpy()
    else:
        numbers, positions, _, _ = crystal.unit_cell()
        cell = crystal.cell
    heights = abs(np.linalg.det(cell)) / np.linalg.norm(np.cross(np.roll(cell, -1, 0), np.roll(cell, -2, 0)), axis=1)
    frac = positions @ np.linalg.inv(cell)
    positions = (frac - np.floor(frac)) @ cell
    spans = [np.arange(-n, n + 1) for n in np.ceil(reach / heights).astype(int) + 1]
    shifts = np.stack(np.meshgrid(*spans, indexing="ij"), -1).reshape(-1, 3) @ cell
    found = []
    for shift in shifts:
        r = np.linalg.norm(positions[:, None] - positions[None] - shift, axis=-1)
        i, j = np.nonzero((r < reach) & (r > 1e-6))
        found.append(np.stack([np.minimum(numbers[i], numbers[j]), np.maximum(numbers[i], numbers[j]), r[i, j]], 1))
    rows = np.concatenate(found)
    return rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]


def same_crystal(a, b, tolerance: float = 2e-3, **which: int) -> bool:
    """Whether all distances up to 5.83 Å agree."""
    x, y = (cloud(c, **(which if isinstance(c, P1Batch) else {})) for c in (a, b))
    x, y = x[x[:, 2] < 5.83], y[y[:, 2] < 5.83]
    # Pairs at the edge may fall on either side of it.
    for kind in {tuple(row) for row in np.concatenate([x, y])[:, :2]}:
        u, v = (c[(c[:, :2] == kind).all(1)][:, 2] for c in (x, y))
        n = min(len(u), len(v))
        if abs(len(u) - len(v)) > 4 or n == 0 or np.abs(u[:n] - v[:n]).max() > tolerance:
            return False
    return True


def record(name: str) -> SimpleNamespace:
    """One of the crystals in the shape of a data set's record."""
    c = crystal(name)
    unit, group = c.asymmetric_unit[0], c.space_group
    return SimpleNamespace(
        numbers=c.molecules[0].numbers, conformers=unit.conformer[None], images=(unit.images,),
        rotations=group.rotations, translations=group.translations, cartesian_rotations=group.cartesian_rotations,
        cell=c.cell, centroid=unit.centroid[None], orientation=unit.orientation[None],
        smiles=c.molecules[0].smiles, name=name,
    )  # fmt: skip
