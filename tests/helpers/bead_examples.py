"""Small molecules, trees of beads and trajectories for the coarse-graining tests."""

import math
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from molflow_sim.cg import BeadFrames, InternalCoordinates
from molflow_sim.coarse import BeadTopology, backbone_topology

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "alanine_dipeptide"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the alanine dipeptide data set is not here")


def alanine_data() -> BeadFrames:
    """The 10,000 frames of capped alanine by others, with forces."""
    return BeadFrames.from_arrays(
        np.load(DATA / "ala2_coordinates.npy"),
        backbone_topology(),
        300.0,
        np.load(DATA / "ala2_forces.npy"),
        "kcal/mol/A",
        source="ala2_coordinates.npy",
    )


def tree(parents: list[int], order: list[int] | None = None) -> BeadTopology:
    """Beads 0…n with bond (n, parents[n−1]), renumbered by `order`."""
    n = len(parents) + 1
    number = order or list(range(n))
    bonds = [(number[i + 1], number[p]) for i, p in enumerate(parents)]
    return BeadTopology(tuple(f"B{i}" for i in range(n)), np.full(n, 12.0), np.array(bonds).reshape(-1, 2))


def chain(n: int) -> BeadTopology:
    """Beads bonded one after another."""
    return tree(list(range(n - 1)))


@st.composite
def trees(draw, smallest=3, largest=9):
    """Random trees with random numbering."""
    n = draw(st.integers(smallest, largest))
    parents = [draw(st.integers(0, i)) for i in range(n - 1)]
    return tree(parents, draw(st.permutations(range(n))))


def random_internal(topology: BeadTopology, seed: int, frames: int = 3) -> tuple[torch.Tensor, ...]:
    """Bonds, angles and torsions away from the singular points, float64."""
    rng = np.random.default_rng(seed)
    n = topology.n_beads
    return (
        torch.tensor(rng.uniform(0.8, 3.0, (frames, n - 1))),
        torch.tensor(rng.uniform(0.3, math.pi - 0.3, (frames, max(n - 2, 0)))),
        torch.tensor(rng.uniform(-math.pi, math.pi, (frames, max(n - 3, 0)))),
    )


def fake_frames(
    n: int = 400, seed: int = 0, topology: BeadTopology | None = None, sharpness: float = 3.0
) -> BeadFrames:
    """Frames with narrow bonds and angles and one broad basin in every torsion."""
    topology = topology or backbone_topology()
    rng = np.random.default_rng(seed)
    b = topology.n_beads
    x, _ = InternalCoordinates(topology).to_cartesian(
        torch.tensor(1.45 + 0.03 * rng.normal(size=(n, b - 1))),
        torch.tensor(2.0 + 0.05 * rng.normal(size=(n, b - 2))),
        torch.tensor(rng.vonmises(-1.4, sharpness, size=(n, b - 3))),
    )
    return BeadFrames.from_arrays(x.numpy().astype(np.float32), topology, 300.0, source="made up")


def peptide(n_residues: int = 1, capped: bool = True) -> mdtraj.Topology:
    """Heavy atoms of ACE-(ALA)n-NME, or of a bare chain, with its bonds."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    carbon_end = None

    def residue(name, atoms, bonds, joined):
        nonlocal carbon_end
        new = topology.add_residue(name, chain)
        made = {a: topology.add_atom(a, mdtraj.element.get_by_symbol(a[0]), new) for a in atoms}
        for a, b in bonds:
            topology.add_bond(made[a], made[b])
        if joined and carbon_end is not None:
            topology.add_bond(carbon_end, made[joined])
        carbon_end = made.get("C", carbon_end)

    if capped:
        residue("ACE", ["CH3", "C", "O"], [("CH3", "C"), ("C", "O")], None)
    for _ in range(n_residues):
        residue("ALA", ["N", "CA", "CB", "C", "O"], [("N", "CA"), ("CA", "CB"), ("CA", "C"), ("C", "O")], "N")
    if capped:
        residue("NME", ["N", "CH3"], [("N", "CH3")], "N")
    return topology


def peptide_trajectory(topology: mdtraj.Topology, frames: int = 12, seed: int = 0, box: float | None = None):
    """Frames of a peptide with bonds of 1.4 Å and random torsions, whole, with a cubic box of edge `box` Å or none."""
    names = tuple(a.name for a in topology.atoms)
    atoms = BeadTopology(names, np.ones(len(names)), np.array([(a.index, b.index) for a, b in topology.bonds]))
    rng = np.random.default_rng(seed)
    n = len(names)
    x, _ = InternalCoordinates(atoms).to_cartesian(
        torch.tensor(1.4 + 0.02 * rng.normal(size=(frames, n - 1))),
        torch.tensor(1.95 + 0.05 * rng.normal(size=(frames, n - 2))),
        torch.tensor(rng.uniform(-math.pi, math.pi, size=(frames, n - 3))),
    )
    cells = None if box is None else np.full((frames, 3), box / 10.0)
    angles = None if box is None else np.full((frames, 3), 90.0)
    return mdtraj.Trajectory(
        x.numpy() / 10.0, topology, time=np.arange(frames), unitcell_lengths=cells, unitcell_angles=angles
    )


def wrapped(trajectory: mdtraj.Trajectory, shift: float = 0.0) -> mdtraj.Trajectory:
    """Every atom put into the box on its own, as some programs write them."""
    cells = trajectory.unitcell_vectors.astype(np.float64)
    fractional = (trajectory.xyz.astype(np.float64) + shift) @ np.linalg.inv(cells)
    return mdtraj.Trajectory(
        (fractional - np.floor(fractional)) @ cells,
        trajectory.topology,
        time=trajectory.time,
        unitcell_lengths=trajectory.unitcell_lengths,
        unitcell_angles=trajectory.unitcell_angles,
    )
