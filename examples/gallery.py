"""Makes the pictures of docs/gallery.md: densities of generated packings, and a free-energy surface.

python examples/gallery.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from molflow_sim import Molecule, generate
from molflow_sim.data import alanine_frames
from molflow_sim.evaluate import dihedral
from molflow_sim.runs.figures import new_figure, write_figure
from molflow_sim.units import BOLTZMANN, KJ_PER_MOL

ACETAMIDE_DENSITY = 1.16
"""g/cm³, rhombohedral acetamide at room temperature."""


def densities(path: Path) -> None:
    """Densities of 200 packings of acetamide from each generator."""
    molecule = Molecule.from_smiles("CC(N)=O", name="acetamide")
    figure = new_figure(5.0, 3.2)
    axes = figure.subplots()
    for name in ("random", "flow"):
        crystals = generate("crystals", molecule, 200, method=name)
        axes.hist([c.density for c in crystals], bins=np.linspace(0.5, 1.6, 45), alpha=0.6, label=name)
    axes.axvline(ACETAMIDE_DENSITY, color="black", lw=1)
    axes.set(xlabel="density, g/cm³", ylabel="packings of acetamide")
    axes.legend()
    write_figure(figure, path)


def surface(path: Path) -> None:
    """Free energy over φ and ψ of the frames that ship."""
    frames = alanine_frames()
    phi, psi = np.degrees(dihedral(frames.positions, [[0, 1, 2, 3], [1, 2, 3, 4]])).T
    counts, *edges = np.histogram2d(phi, psi, bins=36, range=[[-180, 180]] * 2)
    with np.errstate(divide="ignore"):
        energy = -BOLTZMANN * frames.temperature * np.log(counts / counts.max()) / KJ_PER_MOL
    figure = new_figure(4.2, 3.6)
    axes = figure.subplots()
    mesh = axes.pcolormesh(*edges, np.where(np.isfinite(energy), energy, np.nan).T, cmap="viridis", rasterized=True)
    figure.colorbar(mesh, label="free energy, kJ/mol")
    axes.set(xlabel="φ, degrees", ylabel="ψ, degrees", aspect="equal")
    write_figure(figure, path)


def main(folder: Path) -> None:
    """Make both."""
    folder.mkdir(parents=True, exist_ok=True)
    densities(folder / "densities.svg")
    surface(folder / "alanine.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "docs" / "gallery")
