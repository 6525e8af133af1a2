"""Lowest minima of small clusters from random starts against ASE's basin hopping.

    python -m benchmarks cluster_minima -o cluster_minima.json [--evaluations 6000] [--seeds 3] [--keep]

Random starts, each relaxed, as `molflow generate clusters --method random` and `molflow rank --relax`
do, against `ase.optimize.basin.BasinHopping` with moves of whole molecules, both on the force field, with the same
number of energy evaluations. Found: within 0.5 kJ/mol of the lowest minimum that any side found with any seed.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.optimize import LBFGS
from ase.optimize.basin import BasinHopping
from molflow_ase import ClusterCalculator
from scipy.spatial.transform import Rotation

from benchmarks.dimers import molecule
from benchmarks.parts import Parts
from benchmarks.tables import keep
from molflow_sim import __version__, generate
from molflow_sim.errors import MolflowError
from molflow_sim.relax.clusters import relax_cluster
from molflow_sim.runs.files import write_json
from molflow_sim.screening.clusters import potentials_of
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.units import KJ_PER_MOL

CLUSTERS = {
    "water": ("O", (3, 4, 5, 6)),
    "benzene": ("c1ccccc1", (3, 4)),
    "acetic acid": ("CC(=O)O", (2, 3)),
    "formamide": ("NC=O", (3, 4)),
}
SAME = 0.5
"""kJ/mol of the whole cluster."""
TEMPERATURE, SHIFT = 0.05, 1.0
"""eV and Å, of basin hopping."""


@dataclass
class Search:
    """Lowest energy in eV of the whole cluster, and what it took."""

    energy: float
    evaluations: int
    minima: int
    seconds: float


def main() -> None:
    """Print the table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--evaluations", type=int, default=6000, help="of each search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    print(f"molflow-sim {__version__}")
    parts = Parts(options.output)
    searches = list(_searches(parts, options.evaluations, options.seeds))
    write_json(options.output, {"searches": searches})
    if options.keep and searches:
        won = [sum(int(s[k].split()[0]) for s in searches) for k in ("random starts", "basin hopping")]
        keep("cluster_minima", [
            (f"lowest minima of {len(searches)} small clusters, {options.seeds} seeds each, "
             f"{options.evaluations} evaluations: random starts; ASE's basin hopping",
             f"{won[0]}; {won[1]} of {options.seeds * len(searches)}"),
        ], rows={"searches": searches})  # fmt: skip


def _searches(parts: Parts, evaluations: int, seeds: int) -> Iterator[dict[str, Any]]:
    for name, (smiles, sizes) in CLUSTERS.items():
        for n in sizes:
            found: dict[str, list[Search]] = {}
            for side, search in (("random starts", _random_starts), ("basin hopping", _basin_hopping)):
                results = [
                    parts.result(
                        f"{side}-{name}-{n}-{seed}-{evaluations}", lambda data: Search(**data),
                        lambda search=search, smiles=smiles, n=n, seed=seed: search(smiles, n, seed, evaluations),
                        lambda s: f"{s.energy / KJ_PER_MOL:.2f} kJ/mol, {s.minima} minima",
                    ) for seed in range(seeds)
                ]  # fmt: skip
                found[side] = [r for r in results if r is not None]
            lowest = min((s.energy for results in found.values() for s in results), default=np.nan)
            row: dict[str, Any] = {"cluster": f"{name} × {n}"}
            for side, results in found.items():
                hits = sum(s.energy < lowest + SAME * KJ_PER_MOL for s in results)
                above = np.mean([s.energy - lowest for s in results]) / KJ_PER_MOL if results else np.nan
                row[side] = f"{hits} of {len(results)}"
                row[f"{side}: mean above, kJ/mol"] = round(float(above), 2)
                row[f"{side}: s"] = round(float(np.mean([s.seconds for s in results])), 1) if results else np.nan
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            yield row


def _start(smiles: str, n: int, seed: int, number: int) -> MolecularCluster:
    (cluster,) = generate(
        "clusters", molecule(smiles), 1, method="random", copies=n, density=0.3, seed=1000 * seed + number
    )
    return cluster


def _random_starts(smiles: str, n: int, seed: int, evaluations: int) -> Search:
    force_field, _ = potentials_of([molecule(smiles)], "potential", "mmff94")
    began, used, lowest, minima = time.process_time(), 0, np.inf, 0
    while used < evaluations:
        done = relax_cluster(_start(smiles, n, seed, minima), force_field, fmax=0.01)
        used, minima = used + done.n_steps, minima + 1
        if done.converged:
            lowest = min(lowest, n * done.energy)
    return Search(lowest, used, minima, time.process_time() - began)


class _UsedUp(Exception):
    """No evaluation is left."""


class _Counted(ClusterCalculator):
    """Counts its evaluations and ends the search when they are used up."""

    used, most = 0, 0

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        if self.used >= self.most:
            raise _UsedUp
        self.used += 1
        super().calculate(*args, **kwargs)


class _WholeMolecules(BasinHopping):  # type: ignore[misc]
    """Moves whole molecules: shifts up to `dr`, and turns up to `turn` radians; moves of all atoms would break bonds.

    Steps start from the minimum that was accepted last (ASE's own start from where its descent began, and clusters in
    open space then fall apart).
    """

    sizes: tuple[int, ...] = ()
    turn = 1.0
    moves = 0

    def get_energy(self, positions: np.ndarray) -> float | None:
        """Of the nearest minimum; None, another move, where the start cannot be evaluated."""
        try:
            energy: float | None = super().get_energy(positions)
        except MolflowError:
            return None
        self.reached = self.optimizable.get_x().reshape(-1, 3).copy()
        return energy

    def move(self, ro: np.ndarray) -> np.ndarray:
        """A step from the minimum below `ro`."""
        self.moves += 1
        if self.moves == 1 or not np.array_equal(ro, self.accepted):
            self.accepted, self.minimum = ro.copy(), self.reached
        new = []
        for x in np.split(self.minimum, np.cumsum(self.sizes)[:-1]):
            centre = x.mean(0)
            turn = Rotation.from_rotvec(self.rng.uniform(-self.turn, self.turn, 3)).as_matrix()
            new.append((x - centre) @ turn.T + centre + self.dr * self.rng.uniform(-1.0, 1.0, 3))
        return np.concatenate(new)


def _basin_hopping(smiles: str, n: int, seed: int, evaluations: int) -> Search:
    began = time.process_time()
    cluster = _start(smiles, n, seed, 0)
    atoms = cluster.to_ase()
    atoms.calc = calculator = _Counted(cluster)
    calculator.most = evaluations
    np.random.seed(seed)  # noqa: NPY002 (what ASE's basin hopping draws from)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hops = _WholeMolecules(atoms, temperature=TEMPERATURE, dr=SHIFT, fmax=0.01, optimizer=LBFGS, logfile=None,
                               trajectory=None, optimizer_logfile=None, local_minima_trajectory=None)  # fmt: skip
        hops.sizes, hops.rng = tuple(cluster.sizes), np.random.default_rng(seed)
        try:
            hops.run(10**6)
        except _UsedUp:
            pass
    return Search(float(hops.Emin), calculator.used, hops.moves, time.process_time() - began)


if __name__ == "__main__":
    main()
