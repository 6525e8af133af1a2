"""Straight paths between symmetric crystals, their velocities, and steps along a velocity.

The cell goes linearly, the centre along the shortest way on the torus, the orientation along a geodesic of SO(3).
Velocities are written so that they can be read off forces, torques and a virial: the strain is symmetric, and
displacement and turn are those left when the crystal has been strained. The cell matrix stays lower triangular, so a
shear comes with a turn of the frame; that part is added to the molecule's turn in a step and taken off in a target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from molflow_sim.flow.manifolds import rotation_step
from molflow_sim.flow.paths import rigid_path
from molflow_sim.models.crystal_flow.network import Velocity, project
from molflow_sim.models.crystal_flow.state import CrystalBatch
from molflow_sim.ordered import inverse, product


def interpolate(start: CrystalBatch, end: CrystalBatch, time: Tensor) -> tuple[CrystalBatch, Velocity]:
    """The crystals between `start` and `end` at `time` (B,), and the velocities of their paths.

    Both have the same molecules and symmetry; `end` is described so that it is near `start` (see `equivalents`).
    """
    (cell, centroid, rotation), (change, drift, omega) = rigid_path(
        (start.cell, start.centroid, start.rotation), (end.cell, end.centroid, end.rotation), time
    )
    deformation = torch.linalg.solve(cell, change)
    strain = 0.5 * (deformation + deformation.transpose(1, 2))
    turn = omega - _frame_turn(strain)[:, None]
    return start.moved(cell, centroid, rotation), project(start, Velocity(drift @ cell, turn, strain))


def step(batch: CrystalBatch, velocity: Velocity, dt: float) -> CrystalBatch:
    """One Euler step of `dt`."""
    lower = torch.tril(2.0 * velocity.strain, -1) + torch.diag_embed(velocity.strain.diagonal(dim1=1, dim2=2))
    # Bounded, so that a wild velocity cannot turn a cell inside out.
    deformation = (dt * lower).clamp(-0.3, 0.3)
    centroid = batch.centroid + dt * product(velocity.centre, inverse(batch.cell))
    omega = velocity.turn + _frame_turn(velocity.strain)[:, None]
    cell = batch.cell + product(batch.cell, deformation)
    return batch.moved(cell, torch.remainder(centroid, 1.0), rotation_step(batch.rotation, omega, dt))


def distance(batch: CrystalBatch, a: Velocity, b: Velocity | None = None) -> Tensor:
    """Squared lengths (B,) in Å² of velocities, or of their differences.

    Centres count as they are, turns with the molecule's radius of gyration, strains with the cube root of the volume
    of a molecule: roughly how far atoms move.
    """
    count = batch.n_atoms.to(batch.cell.dtype)
    gyration = batch.conformer.square().sum((1, 2)) / count
    length = batch.volume_per_molecule.clamp_min(1.0) ** (2.0 / 3.0)
    if b is not None:
        a = Velocity(a.centre - b.centre, a.turn - b.turn, a.strain - b.strain)
    centre = a.centre.square().sum(-1).mean(-1)
    turn = gyration * a.turn.square().sum(-1).mean(-1)
    return centre + turn + length * a.strain.square().sum((1, 2))


def _frame_turn(strain: Tensor) -> Tensor:
    """Rotation vector (B, 3) that keeps a cell strained by a symmetric `strain` lower triangular."""
    return torch.stack([-strain[:, 2, 1], strain[:, 2, 0], -strain[:, 1, 0]], -1)
