"""The folding example at its smallest: from the sequence to the report, killed on the way and carried on."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from processes import killed

from molflow_sim.cg import report
from molflow_sim.cli.main import run as command
from molflow_sim.evaluate.folding import FOLDED_BELOW

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENMM_CPU_THREADS": "1"}
PLAN = """
import sys; sys.path.insert(0, {examples!r})
import chignolin, make_chignolin_frames as frames
from dataclasses import replace
from pathlib import Path
md = replace(chignolin.QUICK_MD, temperatures=(340.0, 400.0), interval_ps=0.04, equilibration_ps=0.4)
frames.run_md(Path({folder!r}), 0.018, md, "CPU")
"""


@pytest.fixture(scope="module")
def example(one_thread):
    """The example's module, on one thread."""
    sys.path.insert(0, str(EXAMPLES))
    import chignolin

    yield chignolin
    sys.path.remove(str(EXAMPLES))


@pytest.mark.slow
def test_the_hairpin_is_built_from_the_sequence_with_charged_ends(example):
    import make_chignolin_frames as frames

    topology, positions = frames.folded()
    built = mdtraj.Trajectory(positions[None], mdtraj.Topology.from_openmm(topology))
    assert built.topology.to_fasta() == ["YYDPETGTWY"] and built.n_atoms == 166
    ends = [{a.name for a in built.topology.residue(r).atoms} for r in (0, 9)]
    assert {"H", "H2", "H3"} <= ends[0] and "OXT" in ends[1] and "HXT" not in ends[1]
    assert all("HD2" not in a.name for a in built.topology.residue(2).atoms), "Asp is charged"
    omega = np.degrees(mdtraj.compute_omega(built)[1])
    assert (np.abs(omega) > 140).all(), "every peptide bond is trans"
    phi = np.degrees(mdtraj.compute_phi(built)[1][0])
    assert (np.delete(phi, 5) < 0).all() and phi[5] > 0, "L-amino acids, and a turn at glycine"
    # Cα of the strands that face each other in an antiparallel hairpin: 3 and 8, 1 and 10.
    carbons = built.topology.select("name CA")
    pairs = mdtraj.compute_distances(built, [[carbons[2], carbons[7]], [carbons[0], carbons[9]]])[0]
    assert (pairs < 0.75).all()


@pytest.mark.slow
def test_from_the_sequence_to_the_report_and_killed_on_the_way(example, tmp_path, capsys):
    script = PLAN.format(examples=str(EXAMPLES), folder=str(tmp_path / "md"))
    killed([sys.executable, "-c", script], (tmp_path / "md" / "state.npz").exists, env=ENVIRONMENT)
    md = replace(example.QUICK_MD, temperatures=(340.0, 400.0), interval_ps=0.04, equilibration_ps=0.4)
    kept = (tmp_path / "md" / "blocks" / "000001.npy").read_bytes()
    plan = example.Plan(md, 0.018, 100, 300, 2000, 4, 0.01)
    outcome = example.run(tmp_path, plan, platform="CPU")
    assert (tmp_path / "md" / "blocks" / "000001.npy").read_bytes() == kept, "the first block was not run again"
    run = mdtraj.load(str(tmp_path / "md" / "md.trr"), top=str(tmp_path / "md" / "md.pdb"))
    assert run.n_frames == 450
    assert [f.label for f in outcome.folding] == ["reference", "simulation", "flow"]
    reference, simulation, _ = outcome.folding
    folded = mdtraj.load(str(tmp_path / "md" / "native.pdb"))
    carbons, native = (t.topology.select("name CA") for t in (run, folded))
    deviation = 10.0 * mdtraj.rmsd(run, folded, atom_indices=carbons, ref_atom_indices=native)
    assert reference.native == np.mean(deviation < FOLDED_BELOW), "whether it stays folded at 400 K is chance"
    assert deviation[:25].max() < FOLDED_BELOW, "the first picosecond"
    assert reference.folding is None and simulation.copies == 4 and simulation.folding is not None
    assert all(score.broken == 0.0 for score in outcome.scores)
    native, model = tmp_path / "md" / "native.pdb", tmp_path / "model"
    again = report(model, native=native, beads="calpha", flow_samples=0, output=tmp_path / "again.html", discard_ps=1)
    assert again.folding[1] == simulation, "a PDB file of all atoms serves as well"
    words = ["cg", "report", str(model), "--native", str(tmp_path / "absent.pdb"), "--beads", "calpha"]
    assert command(words) == 2 and "absent.pdb" in capsys.readouterr().err
    assert "RMSD to the native structure" in (tmp_path / "model" / "report.html").read_text(encoding="utf-8")
