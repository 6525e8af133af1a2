"""What a step of coarse-grained dynamics costs in OpenMM: five beads, Reference platform, microseconds.

    python -m benchmarks cg_speed [--torchforce-python OTHER/bin/python] [--model FOLDER] [-o speed.json]

All in one run, on one core, with the same integrator (LangevinMiddleIntegrator, 2 fs) and the same network: no force at
all, an empty `PythonForce`, a `PythonForce` around torch's autograd, openmmtorch's `TorchForce`,
and the backend "python" with 1, 10 and 100 copies of the molecule in one context; then 100 copies on two cores. The
wheels of openmmtorch need a torch of their own: --torchforce-python names the Python of an environment that has them
(``TORCHFORCE_VENV=folder .ci/torchforce`` keeps one), and the same network is measured there in between. Each figure is
the least of several repeats, the median beside it; other work on the machine raises both. Without --model the network
is untrained: it costs the same.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from molflow_openmm import CGForceField

from benchmarks.speed import Autograd, Empty, bare, load, processor, time_steps, use_cores, versions
from molflow_sim.cg import CGNet, CGNetSettings, ModelFolder
from molflow_sim.data import alanine_frames
from molflow_sim.errors import MissingDependencyError

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("double", "single")


class Measurements:
    """Rows of figures of one network, printed as they come.

    Parameters
    ----------
    network : CGNet
    seconds : float
        Length of a repeat.
    repeats : int
    quiet : bool
        Print nothing.
    """

    def __init__(self, network: CGNet, seconds: float, repeats: int, quiet: bool = False) -> None:
        self.network, self.seconds, self.repeats, self.quiet = network, seconds, repeats, quiet
        self.rows: list[dict[str, Any]] = []
        self.start = alanine_frames().positions.astype(float)
        self.start -= self.start.mean(axis=1, keepdims=True)

    def add(self, row: dict[str, Any]) -> None:
        """Keep and print a row."""
        self.rows.append(row)
        if self.quiet:
            return
        if "missing" in row:
            print(f"{row['what']:<44} not measured: {row['missing']}", flush=True)
        else:
            each = row["us_per_step"] / row["copies"]
            print(
                f"{row['what']:<44}{row['copies']:>5}{row['us_per_step']:>10.1f}{row['median']:>10.1f}{each:>12.2f}",
                flush=True,
            )

    def steps(self, name: str, make: Callable[[], openmm.System], copies: int = 1) -> None:
        """Time the steps of a System."""
        try:
            system = make()
        except MissingDependencyError as error:
            self.add({"what": name, "copies": copies, "missing": str(error).split("; ")[0].rstrip(")") + ")"})
            return
        x = self.start[np.arange(copies) * len(self.start) // copies].reshape(-1, 3)
        least, median = time_steps(system, x, self.seconds, self.repeats)
        self.add({"what": name, "copies": copies, "us_per_step": least, "median": median})

    def without_plugin(self) -> None:
        """No force, an empty one, and autograd through Python."""
        masses = self.network.topology.masses.tolist()
        self.steps("no force", lambda: bare(masses))
        for reads, name in ((False, "PythonForce, empty"), (True, "PythonForce, empty, positions read")):
            self.steps(name, lambda r=reads: bare(masses, openmm.PythonForce(Empty(len(masses), r))))
        for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
            module = CGNet.from_state(*self.network.state()).to(dtype).eval().requires_grad_(False)
            self.steps(
                f"PythonForce, autograd {name}",
                lambda m=module, d=dtype: bare(masses, openmm.PythonForce(Autograd(m, d))),
            )

    def plugin(self) -> None:
        """The force of openmmtorch, as `CGForceField` makes it."""
        field = CGForceField(self.network)
        for precision in PRECISIONS:
            self.steps(
                f"TorchForce, {precision}",
                lambda p=precision: field.createSystem(backend="torchforce", precision=p, removeCMMotion=False),
            )

    def plugin_elsewhere(self, python: str) -> None:
        """The same in another environment, one core as here."""
        with tempfile.TemporaryDirectory() as folder:
            ModelFolder(Path(folder) / "model").save_student(self.network)
            output = Path(folder) / "rows.json"
            command = [python, "-W", "ignore", str(Path(__file__).resolve()), "--only-plugin", "-o", str(output)]
            command += ["--model", str(Path(folder) / "model")]
            command += ["--seconds", str(self.seconds), "--repeats", str(self.repeats)]
            path = os.pathsep.join([str(ROOT), str(ROOT / "integrations")])
            run = subprocess.run(
                command, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
            )
            if run.returncode:
                sys.exit(f"{python} could not measure TorchForce:\n{run.stderr.strip()[-2000:]}")
            found = json.loads(output.read_text())
        if not self.quiet:
            print("  in the other environment: " + ", ".join(f"{k} {v}" for k, v in found["versions"].items()))
        for row in found["networks"][0]["rows"]:
            self.add(row)

    def ours(self, copies: tuple[int, ...], suffix: str = "") -> None:
        """The backend "python"."""
        for precision in PRECISIONS:
            field = CGForceField(CGNet.from_state(*self.network.state()).with_precision(precision))
            for n in copies:
                self.steps(
                    f"backend python, {precision}{suffix}",
                    lambda c=n, f=field: f.createSystem(replicas=c, removeCMMotion=False),
                    n,
                )

    def alone(self, copies: tuple[int, ...]) -> None:
        """Energy and forces without OpenMM."""
        for precision in PRECISIONS:
            network = CGNet.from_state(*self.network.state()).with_precision(precision)
            for n in copies:
                x = np.ascontiguousarray(self.start[:n])
                network.energy_and_forces(x)
                each = []
                for _ in range(self.repeats):
                    begin, calls = time.perf_counter(), 0
                    while time.perf_counter() - begin < self.seconds / 2:
                        network.energy_and_forces(x)
                        calls += 1
                    each.append(1e6 * (time.perf_counter() - begin) / calls)
                self.add({
                    "what": f"energy and forces alone, {precision}",
                    "copies": n,
                    "us_per_step": min(each),
                    "median": statistics.median(each),
                })  # fmt: skip

    def verdict(self) -> None:
        """Print how the backend "python" stands to TorchForce."""
        one = {row["what"]: row["us_per_step"] for row in self.rows if row["copies"] == 1 and "missing" not in row}
        for precision in PRECISIONS:
            theirs, ours = one.get(f"TorchForce, {precision}"), one.get(f"backend python, {precision}")
            if theirs and ours:
                print(f"backend python / TorchForce, {precision}, 1 copy: {ours / theirs:.2f}")


def main() -> None:
    """Measure and print."""
    default = CGNetSettings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="model folder with a trained force field")
    parser.add_argument("--depth", type=int, nargs="+", default=[default.depth], help="layers of untrained networks")
    parser.add_argument("--width", type=int, default=default.width)
    parser.add_argument("--torchforce-python", metavar="PATH", help="Python of an environment with openmmtorch")
    parser.add_argument("--only-plugin", action="store_true", help="measure openmmtorch's forces and nothing else")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="also write the figures there (JSON)")
    options = parser.parse_args()
    use_cores(1)
    before = load()
    machine = {"processor": processor(), "system": platform.platform(), "cores": os.cpu_count()}
    quiet = options.only_plugin and options.output is not None
    if not quiet:
        print(
            f"{machine['processor']}, {machine['cores']} cores, one used; load before {before:.1f}; {machine['system']}"
        )
        print(", ".join(f"{k} {v}" for k, v in versions().items()))
    if options.model:
        networks = [CGForceField.load(options.model).forcefield]
    else:
        frames = alanine_frames()
        sizes = [CGNetSettings(width=options.width, depth=depth) for depth in options.depth]
        networks = [CGNet.from_data(frames.positions, frames.topology, frames.temperature, s).fold() for s in sizes]
    result: dict[str, Any] = {**machine, "load_before": before, "versions": versions(), "networks": []}
    for network in networks:
        size = {"depth": network.settings.depth, "width": network.settings.width}
        table = Measurements(network, options.seconds, options.repeats, quiet)
        if not quiet:
            print(f"\n{size['depth']} layers of {size['width']}, Reference platform, one core")
            print(f"{'':<44}{'copies':>5}{'µs/step':>10}{'median':>10}{'µs/copy/step':>12}")
        if options.only_plugin:
            table.plugin()
        else:
            table.without_plugin()
            if options.torchforce_python:
                table.plugin_elsewhere(options.torchforce_python)
            else:
                table.plugin()
            table.ours((1, 10, 100))
            table.alone((1, 100))
            if use_cores(2):
                table.ours((100,), ", two cores")
            else:
                table.add({"what": "backend python, two cores", "copies": 100, "missing": "there is one core"})
            use_cores(1)
            table.verdict()
        result["networks"].append({**size, "rows": table.rows})
    result["load_after"] = load()
    if not quiet:
        print(f"load after {result['load_after']:.1f} (this process is one)")
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
