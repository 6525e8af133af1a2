"""The Python examples of the README run as they stand, the screening with fewer candidates."""

import re
from pathlib import Path

from molflow_sim.cg import CGNet, ModelFolder

README = Path(__file__).resolve().parents[2] / "README.md"
SCREENING, BEADS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)


def test_the_screening_example_runs():
    assert "candidates=500" in SCREENING
    names: dict[str, object] = {}
    exec(compile(SCREENING.replace("candidates=500", "candidates=60"), "README.md", "exec"), names)
    assert len(names["landscape"]) > 10
    atoms, system = names["atoms"], names["system"]
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert abs(energy / names["landscape"][0].crystal.z - names["landscape"][0].energy) < 1e-4
    assert abs(forces).max() < 0.02
    assert system.getNumParticles() == names["topology"].getNumAtoms() == len(names["positions"])


def test_the_coarse_grained_example_runs(tmp_path, monkeypatch):
    from molflow_sim.data import alanine_frames

    frames = alanine_frames().take(500)
    ModelFolder(tmp_path / "model").save_student(CGNet.from_data(frames.positions, frames.topology, frames.temperature))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(BEADS, "README.md", "exec"), names)
    assert names["system"].getNumParticles() == 100 * 5
    assert {"CGCalculator", "FlowCalculator"} <= set(names)
