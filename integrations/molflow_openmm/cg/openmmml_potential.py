"""The force field as a potential of openmm-ml: ``MLPotential("molflow-cg", modelPath="model")``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openmm
import openmm.app
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

# openmm-ml imports this module whenever it is imported itself: whatever is heavy is imported in addForces.


class CGPotentialImplFactory(MLPotentialImplFactory):
    """Makes `CGPotentialImpl` objects; registered under the entry-point group ``openmmml.potentials``."""

    def createImpl(self, name: str, modelPath: str | Path | None = None, **args: Any) -> MLPotentialImpl:
        """The potential of a model folder.

        Parameters
        ----------
        name : str
            "molflow-cg".
        modelPath : path
            Model folder.

        Raises
        ------
        InputError
            No `modelPath`, or arguments that it does not know.
        """
        from molflow_sim.errors import InputError

        if modelPath is None:
            raise InputError('say which model: MLPotential("molflow-cg", modelPath="folder")')
        if args:
            raise InputError(f"MLPotential('molflow-cg') does not know {', '.join(sorted(args))}; it takes modelPath")
        return CGPotentialImpl(Path(modelPath))


class CGPotentialImpl(MLPotentialImpl):
    """Adds the force of a model folder to a System."""

    def __init__(self, model: Path) -> None:
        self.model = model

    def addForces(
        self,
        topology: openmm.app.Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        backend: str = "python",
        precision: str = "double",
        **args: Any,
    ) -> None:
        """Add the force; called by ``MLPotential.createSystem``.

        openmm-ml gives particles without an element the mass 0, which would freeze them: where the whole System is
        coarse-grained, every particle gets its bead's mass here. With several copies of the molecule in the
        topology, call ``createSystem(topology, removeCMMotion=False)``: the remover would couple them.

        Parameters
        ----------
        topology : openmm.app.Topology
            One or more copies of the molecule (with `atoms`: among other atoms).
        backend, precision : str
            See `CGForceField.createSystem`.

        Raises
        ------
        InputError
            A topology of other beads, or arguments that it does not know.
        WeightsError
            No model in the folder, or a damaged one.
        """
        from molflow_openmm.cg.forcefield import CGForceField
        from molflow_openmm.cg.topology import count_replicas
        from molflow_sim.errors import InputError

        args.pop("lambda_interpolate", None)
        if args:
            raise InputError(f"createSystem of 'molflow-cg' does not know {', '.join(sorted(args))}")
        forcefield = CGForceField.load(self.model)
        size = forcefield.beads.n_beads
        if atoms is None:
            particles = None
            replicas = count_replicas(topology, forcefield.beads, 1)
            for i in range(system.getNumParticles()):
                system.setParticleMass(i, float(forcefield.beads.masses[i % size]))
        else:
            particles = [int(i) for i in atoms]
            replicas, rest = divmod(len(particles), size)
            if rest or not replicas:
                raise InputError(
                    f"{len(particles)} atoms were chosen; the force field is for molecules of {size} beads"
                )
        force = forcefield.createForce(backend, replicas=replicas, precision=precision, particles=particles)
        force.setForceGroup(forceGroup)
        system.addForce(force)
