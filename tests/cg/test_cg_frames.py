"""Frames read from trajectories: any format, whole molecules, and an error that names the frame."""

import mdtraj
import numpy as np
import pytest
from bead_examples import fake_frames, peptide, peptide_trajectory, tree, wrapped
from hypothesis import given
from hypothesis import strategies as st
from refusals import refuses

from molflow_sim.cg import BeadFrames, parse_beads, read_frames, reading
from molflow_sim.cg.inputs import load_frames
from molflow_sim.cg.whole import make_whole
from molflow_sim.coarse import backbone_topology
from molflow_sim.errors import MappingError, TrajectoryError
from molflow_sim.units import KCAL_PER_MOL

FORMATS = ["xtc", "trr", "dcd", "h5", "nc", "pdb", "gro"]


@pytest.fixture
def files(tmp_path):
    """A capped alanine as a topology file, and a function that writes trajectories."""
    topology = peptide()
    whole = peptide_trajectory(topology, box=30.0)
    whole[0].save(tmp_path / "top.pdb")

    def write(trajectory, name="md.xtc"):
        trajectory.save(str(tmp_path / name))
        return tmp_path / name

    return whole, tmp_path / "top.pdb", write


def expected_beads(trajectory):
    return 10.0 * parse_beads(trajectory.topology, "backbone").apply(trajectory.xyz)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_frames(files, kind):
    whole, top, write = files
    frames = read_frames(write(whole, f"md.{kind}"), top, "backbone", 300.0)
    assert frames.topology == backbone_topology()
    assert np.allclose(frames.positions, expected_beads(whole), atol=0.011)  # Å: xtc, gro and pdb round
    assert frames.temperature == 300.0 and frames.positions.dtype == np.float32 and frames.lengths == (12,)


@pytest.mark.parametrize("kind", ["pdb", "h5"])
def test_a_trajectory_that_holds_its_topology_needs_no_other(files, kind):
    whole, _, write = files
    frames = read_frames(write(whole, f"md.{kind}"), None, "backbone", 300.0)
    assert np.allclose(frames.positions, expected_beads(whole), atol=0.011)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("atoms_at_once, stride", [(30, 5), (70, 3), (50, 2), (10_000, 5)])
def test_stride_counts_through_all_chunks(files, kind, atoms_at_once, stride, monkeypatch):
    monkeypatch.setattr(reading, "_ATOMS_AT_ONCE", atoms_at_once)
    whole, top, write = files
    frames = read_frames(write(whole, f"md.{kind}"), top, "backbone", 300.0, stride=stride)
    assert np.allclose(frames.positions, expected_beads(whole)[::stride], atol=0.011)


def test_several_trajectories_are_joined_and_their_lengths_kept(files):
    whole, top, write = files
    paths = [write(whole[:5], "a.xtc"), write(whole[5:], "b.dcd")]
    frames = read_frames(paths, top, "backbone", 300.0)
    assert frames.lengths == (5, 7) and frames.source == "a.xtc, b.dcd"
    assert np.allclose(frames.positions, expected_beads(whole), atol=0.011)


@pytest.mark.parametrize("angles", [(90, 90, 90), (75, 80, 65)])
@pytest.mark.parametrize("shift", [0.0, 0.7, 1.45])
def test_molecules_broken_across_the_box_are_made_whole(files, angles, shift):
    whole, top, write = files
    whole.unitcell_angles = np.tile(np.array(angles, dtype=float), (len(whole), 1))
    frames = read_frames(write(wrapped(whole, shift), "md.dcd"), top, "backbone", 300.0)
    moved = frames.positions - expected_beads(whole)
    assert np.abs(moved - moved[:, :1]).max() < 1e-3  # whole: all beads of a frame moved alike


def test_centres_of_mass_are_taken_after_the_molecule_is_whole(files):
    whole, top, write = files
    groups = "0,1,2; 3,4,5; 6,7,8,9"
    straight = read_frames(write(whole, "a.dcd"), top, groups, 300.0).positions
    broken = read_frames(write(wrapped(whole, 1.45), "b.dcd"), top, groups, 300.0).positions
    moved = broken - straight
    assert np.abs(moved - moved[:, :1]).max() < 1e-3


def test_beads_of_a_topology_without_bonds_are_made_whole_by_their_own(tmp_path):
    bare = mdtraj.Topology()
    chain = bare.add_chain()
    for _ in range(3):
        residue = bare.add_residue("XYZ", chain)
        for name in ("N", "CA", "C"):
            bare.add_atom(name, mdtraj.element.get_by_symbol(name[0]), residue)
    xyz = np.cumsum(np.full((2, 9, 3), 0.08), axis=1) + np.random.default_rng(0).normal(scale=0.003, size=(2, 9, 3))
    whole = mdtraj.Trajectory(xyz, bare, unitcell_lengths=np.full((2, 3), 2.0), unitcell_angles=np.full((2, 3), 90.0))
    path = tmp_path / "md.dcd"
    wrapped(whole, 1.6).save(str(path))
    moved = read_frames(path, bare, "calpha", 300.0).positions - 10.0 * whole.xyz[:, 1::3]
    assert np.abs(moved - moved[:, :1]).max() < 1e-3


def chain_of(residues: int) -> mdtraj.Trajectory:
    """One frame of a protein chain, residues numbered from 1, PHE99 and PRO100 among them."""
    frame = peptide_trajectory(peptide(residues, capped=False), frames=1, box=400.0)
    for residue in frame.topology.residues:
        residue.resSeq = residue.index + 1
        residue.name = {99: "PHE", 100: "PRO"}.get(residue.resSeq, "ALA")
    return frame


def ends(frame: mdtraj.Trajectory, before: int) -> tuple[int, int]:
    """C of a residue and N of the one after it, by the first one's number."""
    (c,) = frame.topology.select(f"residue {before} and name C")
    return int(c), int(min(frame.topology.select(f"residue > {before} and name N")))


BEADS = ["backbone", "calpha", "name CA", "0,1,2; 700,701,702"]


@pytest.mark.parametrize("kind", ["pdb", "gro"])
@pytest.mark.parametrize("beads", BEADS)
@pytest.mark.parametrize("apart", [2.9, 3.6, 30.0])
def test_two_chains_with_touching_ends_are_two_molecules_though_no_chain_break_is_written(tmp_path, kind, beads, apart):
    two = chain_of(198)
    c, n = ends(two, 99)
    direction = two.xyz[0, n] - two.xyz[0, c]
    two.xyz[0, n:] += 0.1 * apart * direction / np.linalg.norm(direction) - direction
    two.save(str(tmp_path / f"dimer.{kind}"))
    which = "ALA1 and ALA141" if beads == BEADS[3] else "PHE99 and PRO100"
    message = rf"2 parts \(.*\); {which} not bonded"
    refuses(MappingError, message, read_frames, tmp_path / f"dimer.{kind}", None, beads, 300.0)
    with pytest.raises(MappingError, match=message):  # nor does a map made from the topology alone join them
        read_frames(tmp_path / f"dimer.{kind}", two.topology, parse_beads(two.topology, beads), 300.0)


@pytest.mark.parametrize("beads", ["backbone", "calpha"])
def test_chains_that_are_written_as_two_are_not_joined_and_a_disulfide_joins_them(beads):
    two = peptide(3).join(peptide(3))
    refuses(MappingError, "2 parts", parse_beads, two, beads)
    two.add_bond(*(two.atom(i) for i in two.select("name CB")[[1, 4]]))
    assert [1, 4] in parse_beads(two, "calpha").topology.bonds.tolist()


@pytest.mark.parametrize("beads", BEADS)
def test_missing_residues_are_named(tmp_path, beads):
    whole = chain_of(150)
    missing = whole.atom_slice(whole.topology.select("not (residue 50 to 64)"))
    c, n = ends(missing, 49)
    assert np.linalg.norm(missing.xyz[0, c] - missing.xyz[0, n]) > 0.3
    missing.save(str(tmp_path / "gap.pdb"))
    with pytest.raises(MappingError, match="residues missing between 49 and 65"):
        read_frames(tmp_path / "gap.pdb", None, beads.replace("700,701,702", "600,601,602"), 300.0)
    part = read_frames(tmp_path / "gap.pdb", None, "name CA and residue 65 to 150", 300.0)
    assert part.topology.is_tree and part.topology.n_beads == 86


def test_a_jump_in_numbers_across_a_bond_is_no_gap(tmp_path):
    renumbered = chain_of(20)
    for residue in renumbered.topology.residues:
        residue.resSeq += 30 * (residue.index > 9)
    renumbered.save(str(tmp_path / "md.pdb"))
    assert read_frames(tmp_path / "md.pdb", None, "backbone", 300.0).topology.is_tree


@pytest.mark.parametrize("beads", ["backbone", "calpha"])
def test_a_residue_that_no_table_knows_is_bonded_along_the_chain(tmp_path, beads):
    odd = chain_of(5)
    odd.topology.residue(2).name = "XYZ"
    odd.save(str(tmp_path / "md.gro"))
    expected = parse_beads(chain_of(5).topology, beads).topology.bonds.tolist()
    assert read_frames(tmp_path / "md.gro", None, beads, 300.0).topology.bonds.tolist() == expected


@given(st.integers(0, 2**32 - 1))
def test_whole_molecules_come_back_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 6, 3))
    cell = np.tile(np.eye(3) * 20.0, (4, 1, 1))
    assert np.array_equal(make_whole(x, cell, tree([0, 1, 1, 2, 0]).bonds), x)


def test_what_cannot_be_frames_of_this_molecule_is_an_error_that_names_the_frame(files):
    whole, top, write = files
    with pytest.raises(MappingError, match="map of 15 atoms for a topology of 10"):
        read_frames(write(whole), top, parse_beads(peptide(2), "backbone"), 300.0)
    shuffled = mdtraj.Trajectory(whole.xyz[:, [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]], None)
    shuffled.topology = whole.topology
    refuses(TrajectoryError, "another order", read_frames, write(shuffled, "md.dcd"), top, "backbone", 300.0)
    broken = mdtraj.Trajectory(whole.xyz.copy(), whole.topology)
    broken.xyz[7, 6:] += 3.0
    with pytest.raises(TrajectoryError, match=r"frame 7: .*the file has no box.*broken across a periodic box"):
        read_frames(write(broken), top, "backbone", 300.0)
    whole.xyz[4, 2, 1] = np.nan
    with pytest.raises(TrajectoryError, match="frame 4 holds positions that are not finite"):
        read_frames(write(whole, "md.dcd"), top, "backbone", 300.0, stride=2)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_trajectory_of_another_molecule_is_an_error(files, kind):
    _, top, write = files
    other = peptide_trajectory(peptide(2), box=30.0)
    with pytest.raises(TrajectoryError, match=r"md.* cannot be read with this topology of 10 atoms"):
        read_frames(write(other, f"md.{kind}"), top, "backbone", 300.0)


@pytest.mark.parametrize("temperature, message", [(None, "missing"), (0.0, "above zero"), (float("nan"), "above zero")])
def test_a_missing_temperature_is_asked_for_before_any_file_is_opened(temperature, message):
    refuses(TrajectoryError, message, read_frames, "nowhere.xtc", "nowhere.pdb", "backbone", temperature)


def test_missing_damaged_and_empty_files_are_named(files, tmp_path):
    whole, top, write = files
    refuses(TrajectoryError, r"no\.xtc: no such file", read_frames, tmp_path / "no.xtc", top, "backbone", 300.0)
    with pytest.raises(TrajectoryError, match=r"no\.pdb: no such file"):
        read_frames(write(whole), tmp_path / "no.pdb", "backbone", 300.0)
    refuses(TrajectoryError, r"md\.xtc: no topology", read_frames, write(whole), None, "backbone", 300.0)
    refuses(TrajectoryError, "no trajectory", read_frames, [], top, "backbone", 300.0)
    (tmp_path / "bad.xtc").write_bytes(b"not a trajectory at all, only text")
    refuses(TrajectoryError, r"bad\.xtc", read_frames, tmp_path / "bad.xtc", top, "backbone", 300.0)
    (tmp_path / "odd.zzz").write_bytes(b"")
    refuses(TrajectoryError, r"odd\.zzz", read_frames, tmp_path / "odd.zzz", top, "backbone", 300.0)
    refuses(TrajectoryError, "stride", read_frames, write(whole), top, "backbone", 300.0, stride=0)


def test_frames_are_saved_and_loaded_exactly(tmp_path):
    frames = fake_frames(20)
    forces = np.random.default_rng(1).normal(size=frames.positions.shape)
    full = BeadFrames(frames.positions, frames.topology, 310.0, forces, "here", (12, 8))
    back = BeadFrames.load(full.save(tmp_path / "frames.npz"))
    assert np.array_equal(back.positions, full.positions) and back.positions.dtype == np.float32
    assert np.array_equal(back.forces, forces)
    assert (back.topology, back.temperature, back.source, back.lengths) == (full.topology, 310.0, "here", (12, 8))
    assert BeadFrames.load(frames.save(tmp_path / "plain.npz")).forces is None


def test_every_other_frame_of_each_stretch_stays_a_time_series(tmp_path):
    frames = fake_frames(20)
    whole = BeadFrames(frames.positions, frames.topology, 310.0, lengths=(7, 13)).save(tmp_path / "frames.npz")
    half = load_frames(whole, stride=2)
    assert half.lengths == (4, 7)
    assert np.array_equal(half.positions, frames.positions[[0, 2, 4, 6, 7, 9, 11, 13, 15, 17, 19]])
    loose = load_frames(frames.save(tmp_path / "loose.npz"), stride=3)
    assert loose.lengths == () and np.array_equal(loose.positions, frames.positions[::3])


@pytest.mark.parametrize("damage", [lambda b: b[:-200], lambda b: b"", lambda b: b[:300] + b"xxxx" + b[304:]])
def test_a_damaged_file_of_frames_is_refused(tmp_path, damage):
    path = fake_frames(50).save(tmp_path / "frames.npz")
    path.write_bytes(damage(path.read_bytes()))
    refuses(TrajectoryError, r"frames\.npz", BeadFrames.load, path)


def test_files_of_another_kind_and_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", positions=np.zeros((1, 5, 3)))
    np.savez(tmp_path / "pickle.npz", kind=np.array({"a": 1}, dtype=object))
    np.savez(tmp_path / "head.npz", kind=np.array("molflow-bead-frames-1"))
    for name in ("other.npz", "pickle.npz", "head.npz", "missing.npz"):
        refuses(TrajectoryError, name, BeadFrames.load, tmp_path / name)


def test_forces_come_in_the_units_that_the_field_uses():
    frames = fake_frames(3)
    forces = np.ones(frames.positions.shape)
    made = BeadFrames.from_arrays(frames.positions, frames.topology, 300.0, forces, "kcal/mol/A")
    assert made.forces == pytest.approx(KCAL_PER_MOL)
    same = BeadFrames.from_arrays(frames.positions, frames.topology, 300.0, 41.84 * forces, "kJ/mol/nm")
    assert same.forces == pytest.approx(KCAL_PER_MOL)
    with pytest.raises(TrajectoryError, match="unknown unit"):
        BeadFrames.from_arrays(frames.positions, frames.topology, 300.0, forces, "kT/nm")


def test_taking_frames_spreads_them_over_the_whole_trajectory():
    frames = fake_frames(100)
    assert np.array_equal(frames.take(4).positions, frames.positions[[0, 25, 50, 75]])
    assert frames.take(100) is frames
    refuses(TrajectoryError, "take 101 of 100", frames.take, 101)


@pytest.mark.parametrize(
    "index, value, message",
    [
        ((3, 2, 0), np.nan, "frame 3: positions are not finite"),
        ((8, 4, 0), 40.0, "frame 8: the bonded beads ALA2-C and NME3-N .* far apart"),
        (9, 1.0, "frame 9: the bonded beads .* at one point"),
        (slice(None), fake_frames(1).positions[0], "single structure"),
    ],
)
def test_frames_that_cannot_be_fitted_to_are_refused(index, value, message):
    frames = fake_frames(150)
    x = frames.positions.copy()
    x[index] = value
    refuses(TrajectoryError, message, lambda: BeadFrames.from_arrays(x, frames.topology, 300.0).validate())


def test_too_few_frames_and_wrong_shapes_are_refused():
    refuses(TrajectoryError, r"50 frames are too few.*at least 100", fake_frames(50).validate)
    assert fake_frames(50).validate(min_frames=10).n_frames == 50
    with pytest.raises(TrajectoryError, match=r"expected \(frames, 5, 3\)"):
        BeadFrames.from_arrays(np.zeros((4, 6, 3)), backbone_topology(), 300.0)
    refuses(TrajectoryError, "no frames", BeadFrames.from_arrays, np.zeros((0, 5, 3)), backbone_topology(), 300.0)
    with pytest.raises(TrajectoryError, match="temperature is missing"):
        BeadFrames.from_arrays(np.zeros((1, 5, 3)), backbone_topology(), None)
    with pytest.raises(TrajectoryError, match="3 frames of positions but 2 of forces"):
        BeadFrames.from_arrays(np.zeros((3, 5, 3)), backbone_topology(), 300.0, np.zeros((2, 5, 3)))
