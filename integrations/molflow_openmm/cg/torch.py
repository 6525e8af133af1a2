"""The force field as TorchScript, and the forces of OpenMM's torch plugin made from it."""

from __future__ import annotations

import copy
import io
import re
import warnings
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import openmm
import torch
from torch import Tensor, nn

from molflow_openmm.cg.force import ANGSTROM_PER_NM
from molflow_openmm.cg.model import load_forcefield
from molflow_openmm.cg.topology import check_replicas
from molflow_sim.cg.student.cgnet import CGNet
from molflow_sim.cg.student.scripted import EnergyAndForces, EnergyOf, ScriptedCGNet
from molflow_sim.errors import InputError, MissingDependencyError
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_openmm.cg.forcefield import CGForceField
    from molflow_sim.cg.forcefield import ForceField

PRECISIONS = {"single": torch.float32, "double": torch.float64}
"""Precision of a torch module by name."""


class BeadModule(nn.Module):
    """Energy in kJ/mol of positions in nm, as OpenMM's torch plugin wants it, of any force field that is a module.

    Parameters
    ----------
    forcefield : ForceField that is a module
        Its `energy` gives energies (R,) in eV of positions (R, B, 3) in Å.
    replicas : int
        Copies of the molecule.
    dtype : torch.dtype
        Of everything inside.
    """

    def __init__(self, forcefield: nn.Module, replicas: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.forcefield = copy.deepcopy(forcefield).to(dtype).eval().requires_grad_(False)
        self.shape = (replicas, -1, 3)
        self.dtype = dtype

    def forward(self, positions: Tensor) -> Tensor:
        """Total energy, a scalar, of positions of shape (replicas × B, 3)."""
        x = (positions.to(self.dtype) * ANGSTROM_PER_NM).reshape(self.shape)
        energies: Tensor = self.forcefield.energy(x)  # type: ignore[operator]
        return energies.sum() / KJ_PER_MOL


def script(
    forcefield: ForceField, replicas: int = 1, precision: str = "double", *, forces: bool = False
) -> torch.jit.ScriptModule:
    """The force field as a TorchScript module of positions (replicas × B, 3) in nm.

    Parameters
    ----------
    forcefield : ForceField
    replicas : int
        Copies of the molecule.
    precision : str
        "double" or "single"; of a CGnet the network's alone (features, prior and sums are always double).
    forces : bool
        Give energy (kJ/mol) and forces (kJ/mol/nm), not the energy alone.

    Raises
    ------
    InputError
        An unknown precision, a force field that is no torch module, or forces of one without forces written out.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    check_replicas(replicas)
    name, beads = type(forcefield).__name__, forcefield.topology
    if not isinstance(forcefield, nn.Module):
        raise InputError(f"a {name} is no torch module; use backend='python'")
    if isinstance(forcefield, CGNet):
        wrapped: nn.Module = ScriptedCGNet(forcefield, replicas, precision, ANGSTROM_PER_NM, KJ_PER_MOL)
    elif forces:
        raise InputError(f"the forces of a {name} are not written out; export its energy alone")
    else:
        wrapped = BeadModule(forcefield, replicas, PRECISIONS[precision])
    # Traced: the operations do not depend on the positions, and a force field need not be written in TorchScript.
    example = torch.from_numpy(np.random.default_rng(0).normal(size=(replicas * beads.n_beads, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        # Not frozen: constants of a frozen module stay on the CPU when the plugin moves it to a GPU.
        module = torch.jit.trace(wrapped.eval(), example, check_trace=False)
        if isinstance(forcefield, CGNet):
            module = torch.jit.script((EnergyAndForces if forces else EnergyOf)(module).eval())
    return cast(torch.jit.ScriptModule, module)


def export_torchscript(
    model: str | Path | CGForceField,
    path: str | Path,
    replicas: int = 1,
    precision: str = "double",
    *,
    forces: bool = False,
) -> Path:
    """Write the force field as a TorchScript file that needs nothing of this package.

    ``openmmtorch.TorchForce(str(path))`` and C++ programs read it. Its forward takes positions in nm, shape
    (replicas × B, 3), and gives the energy in kJ/mol, or with `forces` the energy and the forces in kJ/mol/nm, for
    ``TorchForce.setOutputsForces(True)``: no autograd then, which saves a third of the time. The energy of a CGnet
    can be differentiated once, not twice.

    Parameters
    ----------
    model : path or CGForceField
        Model folder, or the force field.
    path : path
        File to write, whole or not at all.
    replicas : int
        Copies of the molecule in one evaluation.
    precision : str
        "double" or "single"; of a CGnet the network's alone.
    forces : bool
        Give the forces as well.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    WeightsError
        No model, or a damaged one.
    InputError
        Unknown precision, or forces of a force field that does not have them written out.
    """
    forcefield = load_forcefield(Path(model))[0] if isinstance(model, (str, Path)) else model.forcefield
    buffer = io.BytesIO()
    torch.jit.save(script(forcefield, replicas, precision, forces=forces), buffer)
    path = Path(path)
    write_bytes_atomically(path, buffer.getvalue())
    return path


def torch_force(forcefield: ForceField, replicas: int, precision: str) -> Any:
    """An `openmmtorch.TorchForce` of the exported module, with the forces written out where there are such.

    Raises
    ------
    MissingDependencyError
        No openmmtorch that works with this torch.
    """
    forces = isinstance(forcefield, CGNet)
    force = _plugin().TorchForce(script(forcefield, replicas, precision, forces=forces))
    force.setOutputsForces(forces)
    force.setUsesPeriodicBoundaryConditions(False)
    force.setName("molflow-cg")
    return force


def _plugin() -> Any:
    """The openmmtorch module, if it is there and fits the installed torch."""
    what = f"openmmtorch (needs torch 2.9, here is {torch.__version__}"
    try:
        release = version("openmmtorch")
    except PackageNotFoundError:
        release = ""
    # The wheels 1.5 are built against torch 2.9; with 2.7 and 2.8 importing them crashes the process.
    if release.startswith("1.5") and not torch.__version__.startswith("2.9."):
        raise MissingDependencyError(f"{what})", EXTRA)
    try:
        module = import_module("openmmtorch")
    except (ImportError, OSError) as error:
        raise MissingDependencyError(f"{what}; {error})", EXTRA) from error
    _load_kernels()
    return module


def _load_kernels() -> None:
    """Load the plugin's kernels where OpenMM looked for them before torch was there to give them its libraries."""
    for failure in openmm.Platform.getPluginLoadFailures():
        match = re.match(r"Error loading library (.*OpenMMTorch[^/\\]*?): ", failure)
        if match and match[1] not in _tried:
            _tried.add(match[1])
            # One for a platform that is not here (OpenCL, CUDA) fails again; the Context says so if it is asked for.
            with suppress(openmm.OpenMMException):
                openmm.Platform.loadPluginLibrary(match[1])


_tried: set[str] = set()

EXTRA = "openmm-torch"
"""The optional dependency that holds openmmtorch and the torch it is built against."""
