"""A small coarse-grained model for tests of the engines: five backbone beads, an untrained network and its prior."""

from pathlib import Path

import numpy as np
import torch

from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.model import ModelFolder
from molflow_sim.cg.student.cgnet import CGNet, CGNetSettings
from molflow_sim.cg.teacher.internal import InternalCoordinates
from molflow_sim.coarse.topology import BeadTopology, backbone_topology


def backbone_frames(n: int = 200, topology: BeadTopology | None = None, seed: int = 0) -> BeadFrames:
    """Frames of a molecule with bonds of 1.42 ± 0.04 Å, angles of 115 ± 5° and torsions around -80 ± 40°."""
    topology = topology or backbone_topology()
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int, mean: float, width: float) -> torch.Tensor:
        return mean + width * torch.randn(n, count, generator=generator, dtype=torch.float64)

    size = topology.n_beads
    torsions = torch.remainder(draw(size - 3, -1.4, 0.7) + torch.pi, 2 * torch.pi) - torch.pi
    x, _ = InternalCoordinates(topology).to_cartesian(draw(size - 1, 1.42, 0.04), draw(size - 2, 2.0, 0.09), torsions)
    return BeadFrames.from_arrays(x.numpy(), topology, 300.0)


def small_net(frames: BeadFrames | None = None, width: int = 16, seed: int = 0) -> CGNet:
    """An untrained CGnet with the statistics and the prior of the frames."""
    frames = frames or backbone_frames()
    settings = CGNetSettings(width=width, depth=3)
    return CGNet.from_data(frames.positions, frames.topology, frames.temperature, settings, seed=seed)


def save_model(folder: Path, net: CGNet | None = None) -> Path:
    """A model folder with such a force field."""
    ModelFolder(folder).save_student(net or small_net())
    return folder


def group_topology() -> BeadTopology:
    """A branched molecule of five beads that are groups, not atoms."""
    masses = np.array([30.0, 28.0, 45.0, 31.0, 27.0])
    return BeadTopology(("A", "B", "C", "D", "E"), masses, np.array([[0, 1], [1, 2], [2, 3], [2, 4]]))
