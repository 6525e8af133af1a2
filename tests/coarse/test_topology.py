"""Bead topologies: what they derive from their bonds, and how they travel."""

import pickle

import numpy as np
import pytest
from bead_examples import tree, trees
from hypothesis import given
from refusals import refuses

from molflow_sim import cg
from molflow_sim.coarse.topology import BeadTopology, backbone_topology
from molflow_sim.errors import MappingError


def test_the_backbone_of_capped_alanine_has_one_phi_and_one_psi():
    topology = backbone_topology()
    assert topology.phi_psi_indices().tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert topology.angles.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert topology.dihedrals.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert topology.is_tree and not len(topology.impropers)


def test_no_phi_and_psi_without_or_with_several_backbone_chains():
    assert tree([0, 1, 2, 3]).phi_psi_indices() is None
    names = ("C", "N", "CA", "C", "N", "CA", "C", "N")
    two = BeadTopology(names, np.ones(8), np.array([(i, i + 1) for i in range(7)]))
    assert two.phi_psi_indices() is None


def test_a_star_has_angles_but_no_proper_dihedral_and_keeps_its_handedness_in_an_improper():
    star = tree([0, 0, 0])
    assert star.angles.tolist() == [[1, 0, 2], [1, 0, 3], [2, 0, 3]] and len(star.dihedrals) == 0
    assert star.impropers.tolist() == [[2, 1, 0, 3]]


@given(trees(smallest=2))
def test_counts_of_angles_and_dihedrals_follow_from_the_degrees(topology):
    degree = np.array([len(x) for x in topology.neighbours])
    i, j = topology.bonds.T
    assert len(topology.angles) == (degree * (degree - 1) // 2).sum()
    assert len(topology.dihedrals) == ((degree[i] - 1) * (degree[j] - 1)).sum() and topology.is_tree


@given(trees(smallest=2))
def test_json_and_pickle_give_the_same_topology_back(topology):
    assert BeadTopology.from_json(topology.to_json()) == topology
    assert pickle.loads(pickle.dumps(topology)) == topology  # noqa: S301
    assert hash(BeadTopology.from_json(topology.to_json())) == hash(topology)


def test_bonds_are_stored_in_one_order_and_arrays_cannot_be_written():
    topology = BeadTopology(("A", "B", "C"), np.ones(3), np.array([[2, 1], [1, 0]]))
    assert topology.bonds.tolist() == [[0, 1], [1, 2]]
    with pytest.raises(ValueError, match="read-only"):
        topology.bonds[0, 0] = 2


def test_mdtraj_gets_names_elements_residues_and_bonds():
    out = backbone_topology().to_mdtraj()
    assert [a.name for a in out.atoms] == ["C", "N", "CA", "C", "N"]
    assert [a.element.symbol for a in out.atoms] == ["C", "N", "C", "C", "N"]
    assert [r.name for r in out.residues] == ["ACE", "ALA", "NME"]
    assert [(a.index, b.index) for a, b in out.bonds] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert tree([0, 1]).to_mdtraj().atom(0).element.symbol == "VS"


def test_residues_that_come_back_after_others_keep_the_bead_order_in_mdtraj():
    topology = BeadTopology(("A", "B", "C"), np.ones(3), np.array([[0, 1], [1, 2]]), residue_index=np.array([0, 1, 0]))
    assert [a.name for a in topology.to_mdtraj().atoms] == ["A", "B", "C"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"masses": np.array([1.0, 0.0, 1.0])}, r"bead 1 \(B\) has a mass of 0"),
        ({"masses": np.ones(2)}, "3 beads has 2 masses"),
        ({"bonds": np.array([[0, 3]])}, "not there"),
        ({"bonds": np.array([[1, 1]])}, "to itself"),
        ({"bonds": np.array([[0, 1], [1, 0]])}, "twice"),
        ({"elements": ("C",)}, "1 elements"),
        ({"names": (), "masses": np.ones(0), "bonds": np.zeros((0, 2))}, "at least one bead"),
    ],
)
def test_what_cannot_be_a_topology_is_refused(change, message):
    given = {"names": ("A", "B", "C"), "masses": np.ones(3), "bonds": np.array([[0, 1], [1, 2]])}
    refuses(MappingError, message, BeadTopology, **{**given, **change})


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"names": 3}', "null"])
def test_text_that_is_no_topology_is_refused(text):
    refuses(MappingError, "no bead topology", BeadTopology.from_json, text)


def test_every_public_name_of_the_package_can_be_imported():
    assert all(getattr(cg, name) is not None for name in cg.__all__)
    with pytest.raises(AttributeError):
        cg.no_such_name  # noqa: B018
