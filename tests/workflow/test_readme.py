"""The README's Python example runs as it stands, with fewer candidates."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_python_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    assert "candidates=500" in code
    names: dict[str, object] = {}
    exec(compile(code.replace("candidates=500", "candidates=60"), "README.md", "exec"), names)
    assert len(names["landscape"]) > 10
    atoms, system = names["atoms"], names["system"]
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert abs(energy / names["landscape"][0].crystal.z - names["landscape"][0].energy) < 1e-4
    assert abs(forces).max() < 0.02
    assert system.getNumParticles() == names["topology"].getNumAtoms() == len(names["positions"])
