"""Maps from atoms to beads: presets, selections, groups, and the bonds that follow from the molecule."""

import mdtraj
import numpy as np
import pytest
from bead_examples import peptide, peptide_trajectory, trees
from hypothesis import given
from hypothesis import strategies as st
from refusals import refuses

from molflow_sim.cg import BeadMapping, parse_beads
from molflow_sim.coarse import BeadTopology, backbone_topology
from molflow_sim.coarse.contraction import contracted_bonds
from molflow_sim.errors import MappingError


def names_of(mapping: BeadMapping) -> list[str]:
    return list(mapping.topology.names)


def atoms_of(mapping: BeadMapping) -> list[int]:
    return [int(np.flatnonzero(row)[0]) for row in mapping.weights]


def test_the_backbone_preset_of_capped_alanine_is_the_five_bead_molecule():
    mapping = parse_beads(peptide(), "backbone")
    assert mapping.topology == backbone_topology()
    assert atoms_of(mapping) == [1, 3, 4, 6, 8]


def test_the_backbone_preset_follows_longer_chains_from_cap_to_cap():
    assert names_of(parse_beads(peptide(2), "backbone")) == ["C", "N", "CA", "C", "N", "CA", "C", "N"]
    assert names_of(parse_beads(peptide(2, capped=False), "backbone")) == ["N", "CA", "C", "N", "CA", "C"]


@pytest.mark.parametrize("beads", ["calpha", "name CA"])
def test_successive_calpha_are_bonded(beads):
    mapping = parse_beads(peptide(4), beads)
    assert mapping.topology.bonds.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert mapping.topology.residue_index.tolist() == [0, 1, 2, 3]
    assert mapping.topology.masses == pytest.approx(12.01078)


def test_calpha_need_no_bonds_in_the_topology():
    bare = mdtraj.Topology()
    chain = bare.add_chain()
    for _ in range(3):
        residue = bare.add_residue("GLY", chain)
        for name in ("N", "CA", "C"):
            bare.add_atom(name, mdtraj.element.get_by_symbol(name[0]), residue)
    assert parse_beads(bare, "calpha").topology.bonds.tolist() == [[0, 1], [1, 2]]


def test_a_calcium_ion_is_no_calpha():
    with_ion = peptide(3)
    residue = with_ion.add_residue("CA", with_ion.add_chain())
    with_ion.add_atom("CA", mdtraj.element.calcium, residue)
    assert parse_beads(with_ion, "calpha").topology.elements == ("C", "C", "C")


def test_atoms_that_are_not_selected_are_contracted():
    mapping = BeadMapping.from_selection(peptide(2), "name CB CA")
    assert names_of(mapping) == ["CA", "CB", "CA", "CB"]
    assert mapping.topology.bonds.tolist() == [[0, 1], [0, 2], [2, 3]]


def test_an_atom_left_out_at_a_fork_makes_a_branch_and_no_ring():
    # N, CB and C all hang on the Cα that is left out.
    mapping = BeadMapping.from_selection(peptide(1), "resname ALA and name N CB C")
    assert mapping.topology.is_tree and len(mapping.topology.bonds) == 2


def test_the_order_of_indices_is_the_order_of_beads():
    mapping = BeadMapping.from_indices(peptide(), [8, 6, 4, 3, 1])
    assert names_of(mapping) == ["N", "C", "CA", "N", "C"]
    assert mapping.topology.bonds.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]


def test_groups_sit_at_their_centres_of_mass():
    topology = peptide()
    groups = [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    mapping = BeadMapping.groups(topology, groups)
    trajectory = peptide_trajectory(topology)
    expected = np.stack([mdtraj.compute_center_of_mass(trajectory.atom_slice(g)) for g in groups], axis=1)
    assert np.allclose(mapping.apply(trajectory.xyz.astype(np.float64)), expected, atol=1e-6)
    assert mapping.topology.bonds.tolist() == [[0, 1], [1, 2]]
    assert mapping.topology.masses.sum() == pytest.approx(sum(a.element.mass for a in topology.atoms))
    assert mapping.topology.elements == ("", "", "")


def test_bonds_can_be_given():
    mapping = BeadMapping.from_selection(peptide(3), "name CA", bonds=[(0, 2), (1, 2)])
    assert mapping.topology.bonds.tolist() == [[0, 2], [1, 2]]


@given(st.integers(0, 2**32 - 1))
def test_a_map_is_linear_moves_with_the_molecule_and_sums_forces(seed):
    rng = np.random.default_rng(seed)
    mapping = BeadMapping.groups(peptide(), [[0, 1], [3, 4], [6, 8]])
    x, y = rng.normal(size=(2, 3, mapping.n_atoms, 3))
    shift = rng.normal(size=3)
    assert np.allclose(mapping.apply(2 * x + y), 2 * mapping.apply(x) + mapping.apply(y))
    assert np.allclose(mapping.apply(x + shift), mapping.apply(x) + shift)
    assert np.allclose(mapping.apply_forces(x)[:, 1], x[:, 3] + x[:, 4])


@given(trees(smallest=4, largest=14), st.data())
def test_contracting_a_tree_always_gives_a_tree(molecule, data):
    n = molecule.n_beads
    chosen = data.draw(st.lists(st.integers(0, n - 1), min_size=2, unique=True))
    owner = np.full(n, -1)
    owner[chosen] = np.arange(len(chosen))
    bonds = contracted_bonds(owner, len(chosen), molecule.bonds)
    beads = BeadTopology(tuple("B" * len(chosen)), np.ones(len(chosen)), bonds)
    assert beads.is_tree
    direct = {tuple(sorted(owner[list(b)].tolist())) for b in molecule.bonds if (owner[b] >= 0).all()}
    assert direct <= {tuple(b) for b in bonds.tolist()}


@pytest.mark.parametrize(
    "text, beads",
    [
        ("backbone", ["C", "N", "CA", "C", "N"]), (" calpha ", ["CA", "CA"]), ("name CA", ["CA", "CA"]),
        ("4, 6, 9", ["CA", "C", "CA"]), ("[4 6 9]", ["CA", "C", "CA"]), ("0,1,2; 3,4", ["CH3+2", "N+1"]),
    ],
)  # fmt: skip
def test_a_text_becomes_a_mapping(text, beads):
    topology = peptide(1 if text == "backbone" else 2)
    assert names_of(parse_beads(topology, text)) == beads


@pytest.mark.parametrize(
    "text, message",
    [
        ("name XX", "selects no atom"), ("name (CA", "cannot be read"), ("CA", "cannot be read|selects no atom"),
        ("", "no beads"), ("4,99", "atom 99 is not there"), ("4,4", "atom 4 belongs to several beads"),
        ("4", "at least two"), ("0,1;1,2", "not orthogonal: atom 1"),
    ],
)  # fmt: skip
def test_a_text_that_maps_nothing_says_why(text, message):
    refuses(MappingError, message, parse_beads, peptide(2), text)


def test_what_is_no_molecule_with_a_tree_of_beads_is_refused_with_the_reason():
    two = peptide(2).join(peptide(2))
    refuses(MappingError, r"2 parts .*ALA1-CA, ALA2-CA; ALA3-CA", parse_beads, two, "calpha")
    ring = mdtraj.Topology()
    residue = ring.add_residue("BNZ", ring.add_chain())
    atoms = [ring.add_atom(f"C{i}", mdtraj.element.carbon, residue) for i in range(6)]
    for i in range(6):
        ring.add_bond(atoms[i], atoms[(i + 1) % 6])
    refuses(MappingError, r"close a ring.*C0, BNZ1-C1", BeadMapping.from_selection, ring, "all")
    bare = mdtraj.Topology()
    residue = bare.add_residue("UNK", bare.add_chain())
    bare.add_atom("X", mdtraj.element.carbon, residue)
    bare.add_atom("Y", mdtraj.element.virtual, residue)
    bare.add_atom("Z", mdtraj.element.carbon, residue)
    refuses(MappingError, "holds no bonds", BeadMapping.from_indices, bare, [0, 2])
    refuses(MappingError, "no mass", BeadMapping.from_indices, bare, [0, 1], bonds=[(0, 1)])
    refuses(MappingError, "map of 10 atoms", parse_beads(peptide(), "backbone").apply, np.zeros((1, 9, 3)))


@pytest.mark.parametrize(
    "weights, message",
    [
        ([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], "not orthogonal: atom 0"),
        ([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]], "add up to 0.5"),
        ([[1.0, 0.0, 0.0]], "for 2 beads"),
        ([[2.0, -1.0, 0.0], [0.0, 0.0, 1.0]], "not negative"),
    ],
)
def test_weights_that_are_no_orthogonal_map_are_refused(weights, message):
    beads = BeadTopology(("A", "B"), np.ones(2), np.array([[0, 1]]))
    refuses(MappingError, message, BeadMapping, beads, np.array(weights))
