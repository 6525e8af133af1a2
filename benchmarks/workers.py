"""What one and two one-thread Dask workers press in the same time, and what a batch moves.

    python -m benchmarks workers [--smiles "CC(N)=O"] [--candidates 12000]

Batches of the search stage run on clusters of one, two, two and one workers in turn, each warmed up first.
"""

import argparse
import pickle
import sys
import time
from collections.abc import Sequence

from molflow_sim import Molecule
from molflow_sim.runs.scheduler import DaskExecutor
from molflow_sim.screening import ScreenSettings
from molflow_sim.screening.stages import Shared, Stages, parametrize, press_batch


def main(argv: Sequence[str] | None = None) -> int:
    """Time the clusters and print a line for each."""
    from distributed import LocalCluster

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smiles", default="CC(N)=O")
    parser.add_argument("--candidates", type=int, default=12_000)
    args = parser.parse_args(argv)
    molecule = Molecule.from_smiles(args.smiles)
    settings = ScreenSettings(candidates=args.candidates, generator="random")
    shared = Shared(Stages(), molecule, parametrize(molecule, "mmff94"), settings)
    print(f"sent once to each worker: {len(pickle.dumps(shared)) / 1e3:.1f} kB")
    for workers in (1, 2, 2, 1):
        with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster:
            executor = DaskExecutor(cluster.scheduler_address)
            list(executor.run(press_batch, (shared,), list(range(workers))))
            start, busy, moved = time.perf_counter(), 0.0, 0
            for _, data, seconds in executor.run(press_batch, (shared,), list(range(settings.n_batches))):
                busy, moved = busy + seconds, moved + len(data)
            wall, n = time.perf_counter() - start, settings.n_batches
            print(f"{workers} workers: {wall:.1f} s; {n} batches of {busy / n:.2f} s and {moved / n / 1e3:.0f} kB")
            executor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
