"""Molecules packed into a sphere or a periodic box, apart from each other: one by one at random, or by PACKMOL."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.errors import MissingDependencyError, PackingError
from molflow_sim.flow.placing import scattered, sphere_radius
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.systems.molecule import Molecule
from molflow_sim.units import AMU_PER_A3

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERANCE = 2.0
"""Å between atoms of different molecules, hydrogens included; PACKMOL's usual value."""


def random_cluster(
    molecules: Sequence[Molecule],
    copies: Sequence[int],
    *,
    density: float = 0.5,
    periodic: bool = False,
    tolerance: float = TOLERANCE,
    seed: int | Sequence[int] = 0,
) -> MolecularCluster:
    """Molecules put one by one at a random place that is free, in a random orientation.

    Parameters
    ----------
    molecules : sequence of Molecule
        Conformers are drawn in their shares, and either hand of what is not enantiopure.
    copies : sequence of int
        How many of each.
    density : float
        g/cm³. In open space that of the sphere in which the centres of mass lie.
    periodic : bool
        A cubic periodic box instead of a sphere.
    tolerance : float
        Å; atoms of different molecules are at least this far apart.
    seed : int or sequence of int

    Raises
    ------
    PackingError
        No free place was found; at a third of the density of the liquid there always is one.
    """
    rng = np.random.default_rng(seed)
    order = _order(copies)
    volume = _volume(molecules, copies, density)
    bodies = [_body(molecules[s], rng) for s in order]
    found = scattered(bodies, volume, rng, periodic=periodic, tolerance=tolerance)
    if found is None:
        raise PackingError(
            f"no free place for {len(order)} molecules at {density:g} g/cm³, {tolerance:g} Å apart; "
            "ask for a lower density"
        )
    positions = np.concatenate([body @ turn.T + centre for body, centre, turn in zip(bodies, *found)])
    return MolecularCluster(tuple(molecules), order, positions, _cube(volume) if periodic else None)


def packmol_cluster(
    molecules: Sequence[Molecule],
    copies: Sequence[int],
    *,
    density: float = 0.5,
    periodic: bool = False,
    tolerance: float = TOLERANCE,
    seed: int | Sequence[int] = 0,
    timeout: float = 300.0,
) -> MolecularCluster:
    """Molecules packed by PACKMOL (L. Martínez et al., J. Comput. Chem. 30, 2157, 2009); as `random_cluster`.

    In open space all atoms lie in the sphere of the density, not the centres only.

    Parameters
    ----------
    timeout : float
        Seconds that PACKMOL may take.

    Raises
    ------
    PackingError
        PACKMOL found no packing, or not in time.
    MissingDependencyError
        PACKMOL is not installed.
    """
    rng = np.random.default_rng(seed)
    binary = _packmol_binary()
    order = _order(copies)
    volume = _volume(molecules, copies, density)
    edge = volume ** (1 / 3)
    bodies = [_body(molecules[s], rng) for s in order]
    where = "" if periodic else f"  inside sphere 0. 0. 0. {sphere_radius(volume):.6f}\n"
    head = [f"tolerance {tolerance}", "filetype xyz", "output packed.xyz", f"seed {rng.integers(1, 2**31 - 1)}"]
    head += [f"pbc {edge:.6f} {edge:.6f} {edge:.6f}"] if periodic else []
    parts = [f"structure {k}.xyz\n  number 1\n{where}end structure" for k in range(len(order))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k, (s, body) in enumerate(zip(order, bodies)):
            lines = [f"{e} {x:.8f} {y:.8f} {z:.8f}" for e, (x, y, z) in zip(molecules[s].symbols, body)]
            (folder / f"{k}.xyz").write_text("\n".join([str(len(body)), "", *lines]) + "\n")
        asked = folder / "asked.inp"  # a file: PACKMOL rewinds its input, which a pipe cannot
        asked.write_text("\n".join([*head, *parts]) + "\n")
        try:
            with asked.open() as text:
                run = subprocess.run([binary], stdin=text, cwd=folder, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise PackingError(
                f"PACKMOL had packed {len(order)} molecules at {density:g} g/cm³ not within {timeout:g} s; "
                "ask for a lower density"
            ) from None
        if run.returncode or "Success" not in run.stdout:
            raise PackingError(
                f"PACKMOL found no packing of {len(order)} molecules at {density:g} g/cm³, {tolerance:g} Å apart "
                f"(exit code {run.returncode}); ask for a lower density"
            )
        rows = (folder / "packed.xyz").read_text().splitlines()[2:]
    positions = np.array([row.split()[1:4] for row in rows], dtype=float)
    return MolecularCluster(tuple(molecules), order, positions, _cube(volume) if periodic else None)


PACKERS: dict[str, Callable[..., MolecularCluster]] = {"random": random_cluster, "packmol": packmol_cluster}
"""Ways to pack, by name."""


def _order(copies: Sequence[int]) -> np.ndarray:
    return np.repeat(np.arange(len(copies)), copies)


def _volume(molecules: Sequence[Molecule], copies: Sequence[int], density: float) -> float:
    return AMU_PER_A3 * sum(m.molar_mass * c for m, c in zip(molecules, copies)) / density


def _body(molecule: Molecule, rng: np.random.Generator) -> np.ndarray:
    """A conformer (N, 3) about its centre of mass, or its mirror image."""
    x = molecule.conformers[rng.choice(len(molecule.conformers), p=molecule.shares)]
    return -x if rng.random() < 0.5 and not molecule.is_enantiopure else x


def _cube(volume: float) -> np.ndarray:
    return volume ** (1 / 3) * np.eye(3)


def _packmol_binary() -> str:
    try:
        from packmol.cli import get_binary_path
    except ImportError as error:
        raise MissingDependencyError("PACKMOL", "packmol") from error
    return str(get_binary_path())
