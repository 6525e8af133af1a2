"""Makes the pictures of the docs: densities of generated packings, clusters by each method, and a free-energy surface.

python examples/gallery.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.spatial.distance import pdist

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


def clusters(path: Path) -> None:
    """A cluster of acetamide from each method, along its longest axis, and distances of centres in forty of each."""
    molecule = Molecule.from_smiles("CC(N)=O", name="acetamide")
    figure = new_figure(9.0, 3.0)
    panels = figure.subplots(1, 3, width_ratios=[1, 1, 1.4])
    for axes, name in zip(panels, ("random", "crystal-flow")):
        drawn = generate("clusters", molecule, 40, copies=17, method=name)
        first = drawn[0]
        x = first.positions - first.positions.mean(0)
        x = x @ np.linalg.svd(x, full_matrices=False)[2].T  # longest axis across, shortest towards the reader
        order = np.argsort(x[:, 2])
        look = [_LOOK[z] for z in first.numbers[order]]
        ends = np.insert(x[first.bonds.T, :2], 2, np.nan, axis=0)  # a gap after each bond
        axes.plot(*ends.transpose(2, 1, 0).reshape(2, -1), color="0.6", lw=0.8, zorder=0)
        axes.scatter(*x[order, :2].T, s=[s for s, _ in look], c=[c for _, c in look], edgecolors="0.3", linewidths=0.3)
        axes.set(title=name, aspect="equal")
        axes.axis("off")
        apart = np.concatenate([pdist(c.centres) for c in drawn])
        panels[2].hist(apart, bins=np.arange(2.5, 20.0, 0.25), histtype="step", density=True, label=name)
    panels[2].set(xlabel="distance of two centres, Å", ylabel="density, 1/Å")
    panels[2].legend()
    write_figure(figure, path)


_LOOK = {1: (7, "white"), 6: (26, "0.45"), 7: (26, "tab:blue"), 8: (26, "tab:red")}
"""Size and colour of an element's atoms."""


def main(folder: Path) -> None:
    """Make all."""
    folder.mkdir(parents=True, exist_ok=True)
    densities(folder / "densities.svg")
    clusters(folder / "clusters.png")
    surface(folder / "alanine.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "docs" / "gallery")
