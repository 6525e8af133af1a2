"""ASE calculators of a coarse-grained molecule: the force field (student) and the flow it came from (teacher)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers
from torch import Tensor

from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import InputError, NonFiniteError
from molflow_sim.units import BOLTZMANN

if TYPE_CHECKING:
    from molflow_sim.cg.forcefield import ForceField
    from molflow_sim.cg.teacher import BeadFlow


def bead_atoms(topology: BeadTopology, positions: np.ndarray, calculator: Calculator | None = None) -> Atoms:
    """ASE atoms of a coarse-grained molecule, with the beads' masses.

    Parameters
    ----------
    topology : BeadTopology
    positions : ndarray, shape (B, 3)
        Å.
    calculator : Calculator, optional

    Returns
    -------
    ase.Atoms
        Beads that are no single atom have the number 0 (``X``).
    """
    return Atoms(bead_numbers(topology), positions, masses=topology.masses, calculator=calculator)


def bead_numbers(topology: BeadTopology) -> np.ndarray:
    """Atomic numbers of the beads, shape (B,), 0 where a bead is no single atom."""
    return np.array([atomic_numbers[symbol] if symbol else 0 for symbol in topology.elements])


class _BeadCalculator(Calculator):
    """What both calculators share: which changes count, and whether the atoms are the beads."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 (ASE's own declaration)
    # A molecule has no cell, and charges and magnetic moments mean nothing here: changing them costs no evaluation.
    ignored_changes = {"cell", "initial_charges", "initial_magmoms"}  # noqa: RUF012

    topology: BeadTopology

    def set(self, **changes: Any) -> dict[str, Any]:
        """Refuse to change what the energy was made with (ASE's way to set parameters, used when it is made)."""
        if hasattr(self, "topology"):
            raise InputError(f"{', '.join(changes)}: the energy is made already; make another calculator")
        return super().set(**changes)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate energy and forces (ASE's entry point).

        Raises
        ------
        InputError
            The atoms are periodic, or not the beads in order.
        NonFiniteError
            Positions or energy that are not finite.
        """
        super().calculate(atoms, properties, system_changes)
        beads, numbers = self.topology, np.asarray(self.atoms.numbers)
        if len(numbers) != beads.n_beads:
            raise InputError(f"there are {len(numbers)} atoms; the model is for one molecule of {beads.n_beads} beads")
        known = bead_numbers(beads)
        wrong = np.flatnonzero((known != numbers) & (known > 0))
        if len(wrong):
            i = int(wrong[0])
            raise InputError(f"atom {i} is {self.atoms[i].symbol}; the model expects {beads.label(i)} there")
        if self.atoms.pbc.any():
            raise InputError("the model is for one molecule in free space; make it whole and set atoms.pbc = False")
        energy, forces = self._evaluate(np.array(self.atoms.positions, dtype=np.float64))
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise NonFiniteError("the energy is not finite: positions are NaN, or beads lie on top of each other")
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}

    def _evaluate(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        raise NotImplementedError


class CGCalculator(_BeadCalculator):
    """Energy and forces of a coarse-grained force field, in float64.

    The energy is a free energy of the beads; there is no stress. Atoms must be the beads in order, not periodic
    (`bead_atoms` makes them); their numbers are compared where a bead is an atom.

    Parameters
    ----------
    model : path or ForceField
        Model folder, or a force field of `molflow_sim.cg`.

    Raises
    ------
    WeightsError
        No model in the folder, or a damaged one.

    Examples
    --------
    >>> calculator = CGCalculator("model")                                         # doctest: +SKIP
    >>> atoms = bead_atoms(calculator.topology, positions, calculator)             # doctest: +SKIP
    >>> atoms.get_potential_energy(), atoms.get_forces()                           # doctest: +SKIP
    """

    def __init__(self, model: str | Path | ForceField) -> None:
        super().__init__()
        if isinstance(model, (str, Path)):
            from molflow_sim.cg.model import ModelFolder

            model = ModelFolder(model).load_student()
        self.forcefield = model
        self.topology = model.topology

    def _evaluate(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        energies, forces = self.forcefield.energy_and_forces(positions[None])
        return float(energies[0]), np.array(forces[0])


class FlowCalculator(_BeadCalculator):
    """Energy and forces of the flow: E = −kT ln p at its temperature, in float64.

    A flow with augmentation gives the density p(x) of the beads as an integral over the augmenting Gaussian
    variables η. Two energies are offered; both are smooth functions of the positions whose forces are their exact
    gradients, and both depend on `seed`:

    - ``augmentation="fixed"``: E = −kT ln p(x, η), the joint density, at one η drawn from its prior with `seed`.
      Its forces are those that the force field is distilled from (Köhler et al., J. Chem. Theory Comput. 19, 942
      (2023), eq. 9): noisy, and right on average over η.
    - ``augmentation="importance"``: E = −kT ln [1/K Σₖ p(x, ηₖ)/q(ηₖ)] over `n_augmentations` fixed draws ηₖ from the
      prior q: the density itself as K grows.

    Parameters
    ----------
    model : path or BeadFlow
        Model folder, or a flow of `molflow_sim.cg`.
    augmentation : str
        "fixed" or "importance".
    n_augmentations : int
        K, for "importance".
    seed : int

    Raises
    ------
    WeightsError
        No flow in the folder, or a damaged one.
    InputError
        Unknown `augmentation`, or K below 1.
    """

    def __init__(
        self,
        model: str | Path | BeadFlow,
        augmentation: Literal["fixed", "importance"] = "fixed",
        n_augmentations: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(augmentation=augmentation, n_augmentations=n_augmentations, seed=seed)
        if augmentation not in ("fixed", "importance"):
            raise InputError(f"augmentation must be 'fixed' or 'importance', not {augmentation!r}")
        if n_augmentations < 1:
            raise InputError(f"n_augmentations must be at least 1, not {n_augmentations}")
        if isinstance(model, (str, Path)):
            from molflow_sim.cg.model import ModelFolder

            model = ModelFolder(model).load_teacher()
        self.flow = copy.deepcopy(model).double().eval().requires_grad_(False)
        self.topology = model.topology
        count = n_augmentations if augmentation == "importance" else 1
        self.eta = self.flow.draw_augmentation((count,), torch.Generator().manual_seed(seed))

    def _evaluate(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            x = torch.from_numpy(positions).requires_grad_(True)
            energy = -BOLTZMANN * self.flow.temperature * self._log_prob(x)
            (gradient,) = torch.autograd.grad(energy, x)
        return energy.item(), -gradient.numpy()

    def _log_prob(self, x: Tensor) -> Tensor:
        logs = self.flow.joint_log_prob(x.expand(len(self.eta), -1, -1), self.eta)
        if self.parameters["augmentation"] == "fixed":
            return logs[0]
        prior = -0.5 * (self.eta.square() + math.log(2.0 * math.pi)).sum(-1)
        return torch.logsumexp(logs - prior, 0) - math.log(len(self.eta))
