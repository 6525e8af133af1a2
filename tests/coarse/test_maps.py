"""Molecules divided into beads: by rings, by torsions, and as published for Y6."""

import numpy as np
import pytest
from rdkit import Chem

from molflow_sim.coarse import MoleculeBeads, atom_features, bead_features, bead_map
from molflow_sim.coarse.features import _KINDS, N_ATOM_FEATURES, N_BEAD_FEATURES
from molflow_sim.errors import MappingError

Y6 = (
    r"CCCCCCCCCCCc1c(/C=C2\C(=O)c3cc(F)c(F)cc3C2=C(C#N)C#N)sc2c1sc1c3c4nsnc4c4c5sc6c(CCCCCCCCCCC)c(/C=C7\C(=O)c8cc(F)"
    r"c(F)cc8C7=C(C#N)C#N)sc6c5n(CC(CC)CCCC)c4c3n(CC(CC)CCCC)c21"
)


def mol(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def sizes(smiles: str, name: str) -> list[int]:
    beads = bead_map(mol(smiles), name)
    return sorted(np.bincount(beads.owner[beads.owner >= 0]).tolist())


def test_y6_has_the_thirteen_beads_of_the_published_map():
    beads = bead_map(mol(Y6), "y6")
    twice = ("C11", "C8", "C13F2N2O", "C2S", "C3S", "C3N")
    assert sorted(beads.topology.names) == sorted([*twice, *twice, "C2N2S"])
    assert (beads.owner >= 0).sum() == 101 and len(beads.topology.components) == 1


@pytest.mark.parametrize(
    ("smiles", "name", "expected"),
    [
        ("c1ccccc1", "rings", [6]),
        ("c1ccc2ccccc2c1", "rings", [10]),  # two fused rings are one bead
        ("c1ccc2cc3ccccc3cc2c1", "rings", [4, 4, 6]),  # three are divided, alike on both sides
        ("CC(C)Cc1ccc(cc1)C(C)C(=O)O", "rings", [4, 5, 6]),
        ("Cc1ccccc1", "rings", [7]),
        ("CCCCCCCCCC", "rings", [10]),
        ("CCCCCCCCCC", "rings-6", [5, 5]),
        ("CCCCCCCCCC", "torsions", [4, 6]),
        ("CC(=O)Oc1ccccc1C(=O)O", "torsions", [3, 4, 6]),
    ],
)
def test_beads_are_rings_chains_and_what_hangs_on_them(smiles, name, expected):
    assert sizes(smiles, name) == expected


def test_the_map_does_not_hang_on_the_order_of_the_atoms():
    m = mol("CCCCCCCc1ccc2cc3ccccc3cc2c1")
    order = np.random.default_rng(0).permutation(m.GetNumAtoms())
    shuffled = Chem.RenumberAtoms(m, order.tolist())
    before, after = bead_map(m, "rings-6"), bead_map(shuffled, "rings-6")

    def groups(beads, atoms):
        return {frozenset(int(atoms[i]) for i in np.flatnonzero(beads.owner == b)) for b in range(beads.n_beads)}

    assert groups(before, np.arange(m.GetNumAtoms())) == groups(after, order)


def test_beads_lie_at_the_mean_of_their_heavy_atoms_and_weigh_what_they_hold():
    m = mol("CCCCCCCCCC")
    beads = bead_map(m, "rings-6")
    x = np.random.default_rng(0).normal(size=(2, m.GetNumAtoms(), 3))
    assert np.allclose(beads.apply(x)[:, 0], x[:, beads.owner == 0].mean(1))
    assert beads.topology.masses.sum() == pytest.approx(sum(a.GetMass() for a in m.GetAtoms()))


def test_what_is_no_partition_is_refused_by_name():
    for groups, word in (([[0, 1]], "atom 2"), ([[0, 1, 2], [2]], "2 beads"), ([[0, 1, 2], []], "no atoms")):
        with pytest.raises(MappingError, match=word):
            MoleculeBeads.from_groups(mol("CCC"), groups)
    with pytest.raises(MappingError, match="101 heavy atoms"):
        bead_map(mol("CCC"), "y6")
    with pytest.raises(MappingError, match="unknown map"):
        bead_map(mol("CCC"), "cubes")
    with pytest.raises(MappingError, match="shape"):
        bead_map(mol("CCC"), "rings").apply(np.zeros((4, 3)))


def test_beads_take_means_of_numbers_or_of_flags_and_no_names():
    m = mol("C[C@H](O)CCCCC#N")
    atoms, beads = atom_features(m), bead_map(m, "torsions")
    found = bead_features(atoms, beads)
    assert atoms.nodes.shape == (9, N_ATOM_FEATURES) and found.nodes.shape == (beads.n_beads, N_BEAD_FEATURES)
    owner = beads.owner[beads.owner >= 0]
    for b in range(beads.n_beads):
        rows = atoms.nodes[owner == b]
        assert np.allclose(found.nodes[b, : (_KINDS == "number").sum()], rows[:, _KINDS == "number"].mean(0))
    chirality = atoms.nodes[:, _KINDS == "name"][:, :2]
    assert chirality.sum() == 1 and len(found.bonds) == beads.n_beads - 1


def test_mirror_images_differ_in_their_labels_and_nothing_else():
    r, s = (atom_features(mol(x)).nodes for x in ("C[C@H](O)CC", "C[C@@H](O)CC"))
    changed = np.flatnonzero((r != s).any(0))
    assert len(changed) == 2 and (_KINDS[changed] == "name").all()
