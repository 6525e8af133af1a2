"""`molflow doctor`: what is installed, which backends work, and why the others do not."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from molflow_sim.registry import ENERGIES, GENERATORS, MODELS, OURS, Registry

CORE = "core"
OPTIONAL = "optional"

_FOR_DEVELOPERS = ("test", "bench", "docs", "lint")


@cache
def packages() -> dict[str, str]:
    """Each package that this one asks for, with the extra that it comes with: "" for the core."""
    found = {OURS: ""}
    try:
        asked = requires(OURS) or []
    except PackageNotFoundError:
        return found
    for text in asked:
        extra = re.search(r"extra == ['\"](.+?)['\"]", text)
        if extra is None or extra[1] not in _FOR_DEVELOPERS:
            found.setdefault(re.split(r"[^\w.-]", text)[0], extra[1] if extra else "")
    return found


@dataclass(frozen=True)
class Row:
    """One line of the diagnosis.

    Attributes
    ----------
    name : str
        Package or backend.
    kind : str
        ``core`` (must work) or ``optional``.
    status : str
        ``ok``, ``missing`` (not installed or not there) or ``broken`` (there, but fails).
    detail : str
        Version, what was found, or why it fails and what to do.
    """

    name: str
    kind: str
    status: str
    detail: str

    @property
    def fatal(self) -> bool:
        """Whether the core cannot work because of this."""
        return self.kind == CORE and self.status != "ok"


class _Absent(Exception):
    """A backend that is not there, with the reason; not a failure of what is installed."""


def diagnose() -> list[Row]:
    """Look at every package and try every backend once.

    Returns
    -------
    list of Row
        Packages first, then backends. Nothing raises: a failure is a row with its reason.
    """
    rows = [Row("python", CORE, "ok", platform.python_version())]
    rows += [_package(name, extra) for name, extra in packages().items()]
    for name, kind, check in _BACKENDS:
        rows.append(_try(name, kind, check))
    for registry in (GENERATORS, MODELS, ENERGIES):
        for name, _, package in registry.entries():
            if package != OURS:
                rows.append(_try(f"{registry.what} {name}", OPTIONAL, partial(_plugin, registry, name, package)))
        own = ", ".join(registry.builtin)
        rows.append(Row(f"{registry.what}s", CORE, "ok", f"built in: {own}"))
    return rows


def _plugin(registry: Registry, name: str, package: str) -> str:
    registry.get(name)
    return package


def _package(name: str, extra: str) -> Row:
    kind = OPTIONAL if extra else CORE
    try:
        return Row(name, kind, "ok", version(name))
    except PackageNotFoundError:
        return Row(name, kind, "missing", f"pip install '{OURS}[{extra}]'" if extra else f"pip install {OURS}")


def _try(name: str, kind: str, check: Callable[[], str]) -> Row:
    try:
        return Row(name, kind, "ok", check())
    except _Absent as reason:
        return Row(name, kind, "missing", str(reason))
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if extra := packages().get(missing):
            return Row(name, kind, "missing", f"pip install '{OURS}[{extra}]'")
        return Row(name, kind, "broken", str(error))
    except Exception as error:  # a diagnosis reports every failure, whatever its type
        return Row(name, kind, "broken", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _torch_cpu() -> str:
    import torch

    value = torch.linalg.det(2.0 * torch.eye(3, dtype=torch.float64)).item()
    if abs(value - 8.0) > 1e-12:
        raise RuntimeError(f"a determinant came out as {value}, not 8")
    return f"{torch.get_num_threads()} threads"


def _torch_accelerator() -> str:
    import torch

    if torch.cuda.is_available():
        torch.ones(8, device="cuda").sum().item()
        return torch.cuda.get_device_name(0)
    if torch.backends.mps.is_available():
        return "Apple MPS (float32 only)"
    built = torch.version.cuda or torch.version.hip
    raise _Absent("no usable device" if built else "this build of torch is for CPUs only; the CPU is used")


def _numba() -> str:
    import numba
    import numpy as np

    from molflow_sim.packing import pair_kernel  # noqa: F401  compiles, or finds, the press's kernels

    @numba.njit
    def total(x: np.ndarray) -> float:
        result = 0.0
        for value in x:
            result += value
        return result

    if total(np.arange(5.0)) != 10.0:
        raise RuntimeError("a compiled sum came out wrong")
    return f"compiles for {numba.core.registry.CPUDispatcher.targetdescr.target_context.codegen()._get_host_cpu_name()}"


def _force_field() -> str:
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers

    molecule = Chem.AddHs(Chem.MolFromSmiles("NC(N)=O"))
    if rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule) is None:
        raise RuntimeError("RDKit gives urea no MMFF94 parameters")
    return "MMFF94 parameters found"


def _openmm_cpu() -> str:
    import openmm

    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    works, fails = [], []
    for name in names:
        system = openmm.System()
        system.addParticle(1.0)
        try:
            context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(name))
            context.setPositions([openmm.Vec3(0, 0, 0)])
            context.getState(energy=True)
            works.append(name)
        except openmm.OpenMMException as error:
            fails.append(f"{name} fails: {error}")
    if not works:
        raise RuntimeError("; ".join(fails) or "no platform")
    return ", ".join(works) + ("; " + "; ".join(fails) if fails else "")


def _openmm_accelerator() -> str:
    import openmm

    names = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
    found = sorted(names & {"CUDA", "HIP", "OpenCL"})
    if found:
        return ", ".join(found)
    # "Error loading library PLUGIN: REASON"; a plugin that lacks another plugin says nothing new
    reasons = {f.split(": ", 1)[-1] for f in openmm.Platform.getPluginLoadFailures()}
    lacking = sorted(r for r in reasons if not r.startswith("libOpenMM"))
    raise _Absent(
        "no GPU platform" + (f" ({'; '.join(lacking)})" if lacking else "; for CUDA: pip install openmm[cuda12]")
    )


def _tblite() -> str:
    import numpy as np
    from tblite.interface import Calculator

    calculator = Calculator("GFN2-xTB", np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.4]]))
    calculator.set("verbosity", 0)
    energy = float(calculator.singlepoint().get("energy"))
    if not -1.1 < energy < -0.8:
        raise RuntimeError(f"the energy of H2 came out as {energy} hartree")
    return f"GFN2-xTB of H2: {energy:.4f} hartree"


def _pyscf() -> str:
    from pyscf import gto, scf

    energy = scf.RHF(gto.M(atom="H 0 0 0; H 0 0 0.74", basis="sto-3g", verbose=0)).kernel()
    return f"HF/STO-3G of H2: {energy:.4f} hartree"


def _imported(name: str) -> str:
    import_module(name)
    return f"{name} {version(name)}"


_BACKENDS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("torch on the CPU", CORE, _torch_cpu),
    ("torch on an accelerator", OPTIONAL, _torch_accelerator),
    ("compiled pair kernel", CORE, _numba),
    ("force-field parameters", CORE, _force_field),
    ("OpenMM", CORE, _openmm_cpu),
    ("OpenMM on an accelerator", OPTIONAL, _openmm_accelerator),
    ("GFN2-xTB (tblite)", OPTIONAL, _tblite),
    ("HF-ESP charges (pyscf)", OPTIONAL, _pyscf),
    ("TorchForce (openmmtorch)", OPTIONAL, partial(_imported, "openmmtorch")),
    ("Dask cluster", OPTIONAL, partial(_imported, "distributed")),
)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """Print what is installed, which backends work, and why the others do not.

    The exit code is 0 if everything that `molflow screen` needs works, else 1.
    """
    rows = diagnose()
    works = not any(row.fatal for row in rows)
    if as_json:
        typer.echo(json.dumps({"works": works, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("", "needed", "status", "detail"):
            table.add_column(heading, overflow="fold")
        colours = {"ok": "green", "missing": "yellow", "broken": "red"}
        for row in rows:
            colour = "red" if row.fatal else colours[row.status]
            table.add_row(row.name, row.kind, f"[{colour}]{row.status}[/{colour}]", escape(row.detail))
        console = Console()
        console.print(table)
        broken = [row.name for row in rows if row.fatal]
        console.print("everything needed works" if works else f"[red]does not work:[/red] {', '.join(broken)}")
    if not works:
        raise typer.Exit(1)
