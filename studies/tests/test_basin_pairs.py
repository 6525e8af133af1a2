"""Pairs of random packings with the minima that the press takes them to."""

import numpy as np
import pytest

from molflow_sim import Molecule
from molflow_sim.dataset import CrystalDataset, DatasetSettings, build_crystal_dataset
from studies.basin_pairs import make_basin_pairs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> CrystalDataset:
    folder = tmp_path_factory.mktemp("packings")
    settings = DatasetSettings(candidates=24, keep=8, max_atoms=16)
    build_crystal_dataset(
        ["NC=O formamide", "c1ccccc1 benzene"], folder, settings=settings, processes=1, progress=False
    )
    return CrystalDataset(folder)


def test_basins_pair_starts_with_the_minima_they_press_into(dataset) -> None:
    made = make_basin_pairs(dataset, 2, scale=4.0)
    assert 0.8 * 2 * len(dataset) <= len(made) <= 2 * len(dataset)
    assert {tuple(n[n > 0]) for n in made.numbers} == {
        tuple(dataset[int(r[0])].numbers) for _, r in dataset.molecules()
    }
    assert made.weight.sum() == pytest.approx(1.0) and made.weight.min() < made.weight.max()
    start, end, excess = made.batch(np.arange(len(made)))
    assert float(excess.min()) == 0.0
    assert float((end.volume_per_molecule / start.volume_per_molecule - 1.0).abs().median()) < 0.3
    formamide = Molecule.from_smiles("NC=O")
    again = make_basin_pairs(dataset, 2, scale=4.0)
    np.testing.assert_array_equal(again.end_cell, made.end_cell)
    own = (made.numbers > 0).sum(1) == formamide.n_atoms
    density = formamide.molar_mass * 1.66053907 / np.asarray(end.volume_per_molecule)[own]
    assert 1.0 < float(np.median(density)) < 1.8
