"""`CGForceField`: a trained coarse-grained force field as an ordinary OpenMM System."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import openmm
from openmm import app

from molflow_openmm.cg.force import BeadForce, python_force
from molflow_openmm.cg.topology import bead_topology, check_replicas, count_replicas
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import InputError

if TYPE_CHECKING:
    from molflow_sim.cg.forcefield import ForceField

BACKENDS = ("python", "torchforce")
"""Ways of evaluating the force field in OpenMM; "python" needs nothing but OpenMM and is the fastest."""


class CGForceField:
    """A coarse-grained force field that makes OpenMM Systems.

    The energy of one molecule is a potential of mean force: its Boltzmann factor at `temperature` is the density of
    the beads, so at other temperatures it serves to sample faster, not to predict.

    Parameters
    ----------
    forcefield : ForceField
        As `molflow_sim.cg` trains it. Systems of one made in memory cannot be serialised; `load` it from its folder.
    origin : tuple of str, optional
        Folder and SHA-256 that it was read from.

    Examples
    --------
    >>> ff = CGForceField.load("model")                                          # doctest: +SKIP
    >>> topology = ff.createTopology(replicas=100)                               # doctest: +SKIP
    >>> system = ff.createSystem(topology)                                       # doctest: +SKIP
    >>> platform = openmm.Platform.getPlatform("Reference")                      # doctest: +SKIP
    >>> simulation = app.Simulation(topology, system, integrator, platform)      # doctest: +SKIP

    Notes
    -----
    Use OpenMM's Reference platform: for a few hundred particles it is faster than the CPU platform (which spends
    about 350 µs a step on handing work to threads) and it works in double precision.
    """

    def __init__(self, forcefield: ForceField, origin: tuple[str, str] | None = None) -> None:
        self.forcefield, self.origin = forcefield, origin

    @classmethod
    def load(cls, folder: str | Path, *, sha256: str | None = None) -> CGForceField:
        """Read the force field of a model folder (JSON and safetensors; nothing is unpickled).

        Parameters
        ----------
        folder : path
        sha256 : str, optional
            Take only weights with this SHA-256.

        Raises
        ------
        WeightsError
            No model there, a changed or truncated file, or other weights than asked for.
        """
        from molflow_openmm.cg.model import load_forcefield

        return cls(*load_forcefield(Path(folder), sha256))

    @property
    def beads(self) -> BeadTopology:
        """The beads of one molecule."""
        return self.forcefield.topology

    @property
    def temperature(self) -> float:
        """Temperature that the force field was made at, K."""
        return float(self.forcefield.temperature)

    def createTopology(self, replicas: int = 1) -> app.Topology:
        """The beads as an OpenMM topology, see `bead_topology`."""
        return bead_topology(self.beads, replicas)

    def createSystem(
        self,
        topology: app.Topology | BeadTopology | None = None,
        backend: str = "python",
        *,
        replicas: int = 1,
        removeCMMotion: bool | None = None,
        precision: str = "double",
    ) -> openmm.System:
        """A System with the beads' masses and one force, named "molflow-cg".

        Parameters
        ----------
        topology : app.Topology or BeadTopology, optional
            The molecule, or several copies of it; checked against the force field. Default: its own.
        backend : str
            "python" (`openmm.PythonForce` around the compiled evaluation, float64) or "torchforce"
            (`openmmtorch.TorchForce`).
        replicas : int
            Copies of the molecule in this System, one after another, evaluated as one batch. They are
            independent: no force acts between them, wherever they are.
        removeCMMotion : bool, optional
            Add a `CMMotionRemover`. Default: for one molecule only. OpenMM's remover takes out the common momentum
            of all particles, which would couple independent copies and stop none of them from drifting; without
            it each copy's centre diffuses freely under Langevin dynamics, which no property of a molecule sees
            (temperatures then count 3 B degrees of freedom per copy).
        precision : str
            "double" or "single", of "torchforce".

        Returns
        -------
        openmm.System
            For ``backend="python"`` XmlSerializer pickles the force as the model folder and its SHA-256. Reading such
            XML runs pickle inside OpenMM: do so with files you trust only, or rebuild the System with
            ``CGForceField.load(folder).createSystem()``, which never unpickles.

        Raises
        ------
        InputError
            A topology of other beads, an unknown backend, or `removeCMMotion` for several copies.
        MissingDependencyError
            The backend's library is not installed, or does not fit the installed torch; the message says what to do.
        """
        if isinstance(topology, app.Topology):
            replicas = count_replicas(topology, self.beads, replicas)
        elif topology is not None and topology != self.beads:
            raise InputError("the topology's beads are not those of the force field")
        check_replicas(replicas)
        if removeCMMotion and replicas > 1:
            raise InputError(
                "removeCMMotion acts on the common momentum of all copies and would couple them; "
                "leave it out for more than one copy"
            )
        system = openmm.System()
        for _ in range(replicas):
            for mass in self.beads.masses.tolist():
                system.addParticle(mass)
        system.addForce(self.createForce(backend, replicas=replicas, precision=precision))
        if removeCMMotion or (removeCMMotion is None and replicas == 1):
            system.addForce(openmm.CMMotionRemover())
        return system

    def createForce(
        self,
        backend: str = "python",
        *,
        replicas: int = 1,
        precision: str = "double",
        particles: Sequence[int] | None = None,
    ) -> openmm.Force:
        """The force alone, to add to a System of your own; see `createSystem`.

        Parameters
        ----------
        particles : sequence of int, optional
            Particles that are the beads, in order (backend "python" only). Default: all of the System.

        Raises
        ------
        InputError, MissingDependencyError
            As `createSystem`.
        """
        if backend == "python":
            return python_force(self.function(replicas), None if particles is None else [int(i) for i in particles])
        if backend not in BACKENDS:
            raise InputError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
        if particles is not None:
            raise InputError(f"backend {backend!r} acts on all particles; use backend='python' for some of them")
        from molflow_openmm.cg.torch import torch_force

        return torch_force(self.forcefield, replicas, precision)

    def function(self, replicas: int = 1) -> BeadForce:
        """The callable that ``backend="python"`` hands to `openmm.PythonForce`."""
        return BeadForce(self.forcefield, replicas, self.origin)
