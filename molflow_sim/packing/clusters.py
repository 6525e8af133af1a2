"""Molecules packed into a sphere or a periodic box, apart from each other: one by one at random, or by PACKMOL."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from molflow_sim.errors import MissingDependencyError, PackingError
from molflow_sim.flow.priors import rotations
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.systems.molecule import Molecule
from molflow_sim.units import AMU_PER_A3

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERANCE = 2.0
"""Å between atoms of different molecules, hydrogens included; PACKMOL's usual value."""
ATTEMPTS = 500
"""Random places tried for a molecule before all start again."""
RESTARTS = 10
"""Times that all start again."""


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
    edge = _volume(molecules, copies, density) ** (1 / 3)
    radius = edge * (3.0 / (4.0 * np.pi)) ** (1 / 3)
    largest_first = np.argsort([-molecules[s].n_atoms for s in order], kind="stable")
    placed: dict[int, np.ndarray] = {}
    for _ in range(RESTARTS):
        placed.clear()
        for k in largest_first:
            others = list(placed.values())
            for _ in range(ATTEMPTS):
                centre = edge * rng.random(3) if periodic else radius * _in_sphere(rng)
                x = centre + _body(molecules[order[k]], rng)
                if _free(x, others, tolerance, edge if periodic else None):
                    placed[int(k)] = x
                    break
            else:
                break
        if len(placed) == len(order):
            positions = np.concatenate([placed[k] for k in range(len(order))])
            return MolecularCluster(tuple(molecules), order, positions, edge * np.eye(3) if periodic else None)
    raise PackingError(
        f"no free place for {len(order)} molecules at {density:g} g/cm³, {tolerance:g} Å apart; ask for a lower density"
    )


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
    edge = _volume(molecules, copies, density) ** (1 / 3)
    radius = edge * (3.0 / (4.0 * np.pi)) ** (1 / 3)
    bodies = [_body(molecules[s], rng) for s in order]
    where = "" if periodic else f"  inside sphere 0. 0. 0. {radius:.6f}\n"
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
    return MolecularCluster(tuple(molecules), order, positions, edge * np.eye(3) if periodic else None)


PACKERS: dict[str, Callable[..., MolecularCluster]] = {"random": random_cluster, "packmol": packmol_cluster}
"""Ways to pack, by name."""


def _order(copies: Sequence[int]) -> np.ndarray:
    return np.repeat(np.arange(len(copies)), copies)


def _volume(molecules: Sequence[Molecule], copies: Sequence[int], density: float) -> float:
    return AMU_PER_A3 * sum(m.molar_mass * c for m, c in zip(molecules, copies)) / density


def _body(molecule: Molecule, rng: np.random.Generator) -> np.ndarray:
    """A conformer (N, 3) about its centre of mass, turned at random."""
    x = molecule.conformers[rng.choice(len(molecule.conformers), p=molecule.shares)]
    hand = -1.0 if rng.random() < 0.5 and not molecule.is_enantiopure else 1.0
    return hand * x @ rotations(rng.random(3)).T


def _in_sphere(rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=3)
    return direction / np.linalg.norm(direction) * rng.random() ** (1 / 3)


def _free(x: np.ndarray, others: list[np.ndarray], tolerance: float, edge: float | None) -> bool:
    """Whether the atoms x (N, 3) are away from the other molecules, and from their own images."""
    own = np.linalg.norm(x - x.mean(0), axis=1).max()
    if edge is not None and 2.0 * own + tolerance > edge:
        images = edge * (np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3))
        if any(cdist(x, x + s).min() < tolerance for s in images if s.any()):
            return False
    for other in others:
        centre = other.mean(0)
        gap = x.mean(0) - centre
        if edge is not None:
            gap -= edge * np.rint(gap / edge)
        if np.linalg.norm(gap) > own + np.linalg.norm(other - centre, axis=1).max() + tolerance and (
            edge is None or np.abs(gap).max() + own + tolerance < 0.5 * edge
        ):
            continue
        delta = x[:, None] - other
        if edge is not None:
            delta -= edge * np.rint(delta / edge)
        if np.einsum("ijk,ijk->ij", delta, delta).min() < tolerance**2:
            return False
    return True


def _packmol_binary() -> str:
    try:
        from packmol.cli import get_binary_path
    except ImportError as error:
        raise MissingDependencyError("PACKMOL", "packmol") from error
    return str(get_binary_path())
