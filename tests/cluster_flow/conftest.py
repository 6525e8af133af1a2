"""A few clusters to learn from."""

import numpy as np
import pytest

from molflow_sim.dataset.clusters import ClusterSettings, record_of
from molflow_sim.models.cluster_flow.data import ClusterData
from molflow_sim.symmetry import SpaceGroup
from molflow_sim.systems.molecule import Molecule


def cluster_record(smiles="NC=O", name="a", split="train", size=6, **options):
    """A cluster of a made-up crystal in P -1, whose molecules come in both hands."""
    molecule = Molecule.from_smiles(smiles, n_conformers=1)
    cell = np.array([[6.0, 0, 0], [1.0, 7.0, 0], [0.5, -1.0, 8.0]])
    x = molecule.conformers[0] + [1.0, 1.5, 2.0]
    assert SpaceGroup.from_name("P -1").order == 2
    return record_of(
        ClusterSettings(size=size, **options), numbers=molecule.numbers, bonds=molecule.bonds, masses=molecule.masses,
        positions=np.stack([x, -x]), cell=cell, name=name, smiles=molecule.smiles, source=name, key=molecule.key,
        split=split,
    )  # fmt: skip


@pytest.fixture(scope="session")
def records():
    made = [cluster_record(smiles, f"{smiles}{k}", seed=k) for smiles in ("NC=O", "OO", "C=O") for k in range(2)]
    return [*made, cluster_record("CO", "v", "validation"), cluster_record("CN", "t", "test")]


@pytest.fixture(scope="session")
def data(records):
    return ClusterData(records)
