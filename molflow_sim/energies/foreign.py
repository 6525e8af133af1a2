"""Energy models of other packages: tight binding, machine-learned potentials, any ASE or torch-sim model.

==============================  ==========================================================================
``gfn2-xtb``, ``gfn1-xtb``      GFN-xTB by tblite (extra ``xtb``), cell blown up until every axis exceeds 10 Å,
                                since energies of small cells at the Γ point are not size-consistent
``mace:FILE``                   a MACE model file (needs mace-torch)
``ase:package.module:factory``  ``factory()`` gives an ASE calculator
``torchsim:package.module:factory``  ``factory()`` gives a torch-sim `ModelInterface`
a name of another package       its entry point in the group ``molflow.energies`` is such a factory of either
==============================  ==========================================================================
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.errors import InputError, MissingDependencyError, MolflowError, NonFiniteError
from molflow_sim.registry import ENERGIES
from molflow_sim.runs.files import sha256
from molflow_sim.symmetry.spacegroup import repeats_for_axis
from molflow_sim.threads import one_openmp_thread

if TYPE_CHECKING:
    from ase import Atoms

    from molflow_sim.systems.cluster import MolecularCluster
    from molflow_sim.systems.crystal import MolecularCrystal

MINIMUM_AXIS = 10.0
"""Å; the least distance between opposite faces of a cell for a Γ-point tight-binding energy."""
_XTB = {"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB"}


@dataclass(frozen=True)
class EnergyModel:
    """An energy model ready for use.

    Attributes
    ----------
    spec : str
        What the user wrote, e.g. ``gfn2-xtb``.
    name : str
        For tables.
    cell_energy : callable
        ASE atoms of one cell to an energy in eV.
    minimum_axis : float
        Cells are repeated until all distances between opposite faces reach this length (Å).
    """

    spec: str
    name: str
    cell_energy: Callable[[Atoms], float]
    minimum_axis: float = 0.0

    def energy(self, crystal: MolecularCrystal) -> float:
        """Energy per molecule in eV.

        Raises
        ------
        MolflowError
            If the model fails on this structure; the message holds its words.
        """
        repeats = repeats_for_axis(crystal.cell, self.minimum_axis)
        return self._total(crystal.to_ase().repeat(repeats)) / (crystal.z * int(np.prod(repeats)))

    def cluster_energy(self, cluster: MolecularCluster) -> float:
        """Energy per molecule in eV of a cluster in open space; raises as `energy`."""
        return self._total(cluster.to_ase()) / cluster.n_molecules

    def _total(self, atoms: Atoms) -> float:
        try:
            energy = float(self.cell_energy(atoms))
        except MolflowError:
            raise
        except Exception as error:
            # A foreign calculator may raise anything: a failed structure is a row with a reason, not the end of a run.
            raise MolflowError(f"{self.name} failed: {type(error).__name__}: {error}") from error
        if not np.isfinite(energy):
            raise NonFiniteError(f"{self.name} gave the energy {energy}")
        return energy


def energy_model(spec: str) -> EnergyModel:
    """Build the energy model that a ``--energy`` value names.

    Raises
    ------
    InputError
        If the value is not understood, or its file, module or factory is not there.
    MissingDependencyError
        If the library behind it is not installed.
    """
    kind, _, rest = spec.partition(":")
    if spec.lower() in ENERGIES.names():
        return _registered(spec.lower())
    if kind == "mace" and rest:
        return _mace(spec, Path(rest))
    if kind == "ase" and rest:
        return _from_ase(spec, _load_factory(rest))
    if kind == "torchsim" and rest:
        return _from_torchsim(spec, _load_factory(rest))
    raise InputError(
        f"unknown energy model {spec!r}; use best, potential, fit, so3lr, {', '.join(ENERGIES.names())}, mace:FILE, "
        "ase:package.module:factory, torchsim:package.module:factory, or a mean of them, as in mean(fit,so3lr)"
    )


def energy_identity(spec: str) -> str:
    """What a stored energy of this model depends on besides its spec: the model's file, module or library version.

    Returns
    -------
    str
        SHA-256 of the model's file or of the factory's module, or the version of tblite; empty where there is none.
    """
    kind, _, rest = spec.partition(":")
    if kind == "mace":
        return sha256(Path(rest).read_bytes())
    if kind in ("ase", "torchsim"):
        source = getattr(sys.modules.get(rest.partition(":")[0]), "__file__", None)
        return sha256(Path(source).read_bytes()) if source else ""
    return ENERGIES.origin(spec.lower()) or version("tblite")


def _registered(spec: str) -> EnergyModel:
    made = _call(spec, ENERGIES.get(spec))
    if isinstance(made, EnergyModel):
        return made
    return (_from_ase if hasattr(made, "get_potential_energy") else _from_torchsim)(spec, lambda: made)


def gfn2_xtb() -> EnergyModel:
    """GFN2-xTB by tblite."""
    return _tblite("gfn2-xtb")


def gfn1_xtb() -> EnergyModel:
    """GFN1-xTB by tblite."""
    return _tblite("gfn1-xtb")


def _tblite(spec: str) -> EnergyModel:
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise MissingDependencyError("tblite", "xtb") from error

    def cell_energy(atoms: Atoms) -> float:
        atoms.calc = TBLite(method=_XTB[spec], verbosity=0)
        with one_openmp_thread():
            return float(atoms.get_potential_energy())

    return EnergyModel(spec, _XTB[spec], cell_energy, minimum_axis=MINIMUM_AXIS)


def _mace(spec: str, file: Path) -> EnergyModel:
    if not file.is_file():
        raise InputError(f"--energy {spec}: there is no file {file}")
    try:
        from mace.calculators import MACECalculator
    except ImportError as error:
        raise InputError(f"--energy {spec} needs MACE; install it with: pip install mace-torch") from error
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    calculator = MACECalculator(model_paths=str(file), device=device, default_dtype="float64")
    return _with_calculator(spec, f"MACE {file.name}", calculator)


def _from_ase(spec: str, factory: Callable[[], Any]) -> EnergyModel:
    calculator = _call(spec, factory)
    if not hasattr(calculator, "get_potential_energy"):
        raise InputError(f"--energy {spec}: the factory gave a {type(calculator).__name__}, not an ASE calculator")
    return _with_calculator(spec, type(calculator).__name__, calculator)


def _with_calculator(spec: str, name: str, calculator: Any) -> EnergyModel:
    def cell_energy(atoms: Atoms) -> float:
        atoms.calc = calculator
        return float(atoms.get_potential_energy())

    return EnergyModel(spec, name, cell_energy)


def _from_torchsim(spec: str, factory: Callable[[], Any]) -> EnergyModel:
    import torch_sim

    model = _call(spec, factory)
    if not isinstance(model, torch_sim.models.interface.ModelInterface):
        raise InputError(f"--energy {spec}: the factory gave a {type(model).__name__}, not a torch-sim ModelInterface")

    def cell_energy(atoms: Atoms) -> float:
        state = torch_sim.initialize_state([atoms], model.device, model.dtype)
        return float(model(state)["energy"].detach().cpu().sum())

    return EnergyModel(spec, type(model).__name__, cell_energy)


def _call(spec: str, factory: Callable[[], Any]) -> Any:
    try:
        return factory()
    except MolflowError:
        raise
    except Exception as error:
        raise InputError(f"--energy {spec}: its factory failed: {type(error).__name__}: {error}") from error


def _load_factory(path: str) -> Callable[[], Any]:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise InputError(f"{path!r} does not name a factory; write package.module:function")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)  # a user's own module beside the data, as `python -m` would find it
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way, a script may even exit
        what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise InputError(f"module {module_name!r} of the energy model cannot be imported: {what}") from error
    finally:
        if added:
            sys.path.remove(here)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise InputError(f"{module_name} has no function {attribute!r}")
    return factory
