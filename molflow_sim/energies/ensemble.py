"""The potential that belongs to ``best``: structures are relaxed on it, so that geometry and energy agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch_sim.state import SimState

from molflow_sim.energies.models import BESTS, FALLBACK, Best, energy_model, members_of
from molflow_sim.errors import (
    InputError,
    MissingDependencyError,
    NonFiniteError,
    ParameterError,
    UnsupportedElementError,
)
from molflow_sim.forcefield.aimnet2 import AIMNet2
from molflow_sim.forcefield.parameters import MoleculeParameters
from molflow_sim.forcefield.potential import CrystalPotential
from molflow_sim.forcefield.site_potential import SitePotential
from molflow_sim.forcefield.sites import charge_sites
from molflow_sim.so3lr.potential import SO3LR, Orbits, check_elements
from molflow_sim.switched_model import SwitchedModel, state_of


def best_parameters(parameters: Sequence[MoleculeParameters], species: Sequence[Any]) -> list[MoleculeParameters]:
    """Parameters for the potential of ``best``: with charges beside the atoms where all species can have them.

    Parameters
    ----------
    parameters : sequence of MoleculeParameters
    species : sequence of Molecule or MoleculeParameters
        Whose they are; of those that are parameters themselves nothing more is known.
    """
    try:
        return [p if p is s else replace(p, sites=charge_sites(s)) for p, s in zip(parameters, species)]
    except (MissingDependencyError, ParameterError):
        return list(parameters)


def best_potential(
    parameters: Sequence[MoleculeParameters], spec: str = "best", cutoff: float = 15.0
) -> EnsemblePotential | CrystalPotential:
    """The potential that belongs to ``best``; the force field for species that neither network knows.

    Parameters
    ----------
    parameters : sequence of MoleculeParameters
        From `best_parameters`.
    spec : str
        What ``best`` is for these species where that is known, one of `molflow_sim.energies.models.BESTS`.
    cutoff : float
        Å.
    """
    if spec == "best":
        spec = _spec_of(parameters)
    return CrystalPotential(parameters, cutoff) if spec == FALLBACK else EnsemblePotential(parameters, spec, cutoff)


def _spec_of(parameters: Sequence[MoleculeParameters]) -> str:
    """What ``best`` is for some species, by what they have and what the networks know."""

    def knows(network: str, species: Sequence[Any]) -> bool:
        try:
            for one in species:
                energy_model(network).check(one)
        except (UnsupportedElementError, MissingDependencyError):
            return False
        return True

    charges = all(p.sites is not None for p in parameters)
    return Best(charges, knows("so3lr", parameters), knows("aimnet2", parameters)).spec


class EnsemblePotential(SwitchedModel):
    """Between molecules a mean of exp-6 and charges with SO3LR, inside them of two networks; a torch-sim model.

    ``E = a E_FIT + b [E_SO3LR(crystal) - E_SO3LR(molecules)] + c E_SO3LR(molecules) + d E_AIMNet2(molecules)``, with
    a + b = c + d = 1, molecules each alone, and SO3LR's atomic energies left out. Molecules have their full stiffness
    so; with b in place of c + d, as in a mean of whole energies, cells relax to densities 3 % higher.

    Parameters
    ----------
    parameters : sequence of MoleculeParameters
        The species, as for `CrystalPotential`.
    spec : str
        One of `molflow_sim.energies.models.BESTS`.
    cutoff : float
        Of exp-6, real-space charges and dispersion, Å.

    Raises
    ------
    InputError
        A spec that ``best`` does not stand for, or one with ``fit-hf`` for a species without `sites`.
    UnsupportedElementError
        An element that a network of the spec does not know.
    MissingDependencyError
        The wheel with a network's weights is not installed.
    """

    def __init__(self, parameters: Sequence[MoleculeParameters], spec: str, cutoff: float = 15.0) -> None:
        super().__init__(torch.device("cpu"), torch.float64)
        if spec not in BESTS:
            raise InputError(f"no potential belongs to {spec!r}; one does to {', '.join(BESTS)}")
        weights = {name: weight for weight, name in members_of(spec) or []}
        net, aim = weights.get("so3lr", 0), weights.get("aimnet2", 0)
        self._between = net / (weights.get("fit", 0) + weights.get("fit-hf", 0) + net)
        self._inside = net / (net + aim)
        self.fit: CrystalPotential = (
            SitePotential(parameters, cutoff)
            if "fit-hf" in weights
            else CrystalPotential(parameters, cutoff, intramolecular=False)
        )
        self.parameters = self.fit.parameters
        self.so3lr = SO3LR(cutoff) if net else None
        self._alone: dict[bytes, AIMNet2] = {}
        for p in self.parameters:
            numbers = np.asarray(p.numbers)
            if net:
                check_elements(numbers)
            if aim:
                self._alone[numbers.astype(np.int64).tobytes()] = AIMNet2(numbers)
        self._orbits: list[Orbits] | None = None

    @property
    def torn(self) -> str:
        """How the last batch contradicts the species, see `CrystalPotential`."""
        return self.fit.torn

    def forget(self) -> None:
        """See `CrystalPotential.forget`."""
        self.fit.forget()

    def keep(self, systems: Sequence[int]) -> None:
        """See `CrystalPotential.keep`."""
        self.fit.keep(systems)

    def symmetric(self, orbits: Sequence[Orbits] | None) -> None:
        """See `SO3LR.symmetric`."""
        self._orbits = list(orbits) if orbits is not None else None
        if self.so3lr is not None:
            self.so3lr.symmetric(self._orbits)

    def forward(self, state: SimState | dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        """Evaluate a batch of systems; inputs, outputs and errors are those of `CrystalPotential.forward`."""
        state = state_of(state)
        fit = self.fit(state)
        inside, rest, gradient, virial = self._molecules(state)
        a, b = 1.0 - self._between, self._between
        out = {"energy": a * fit["energy"] + rest}
        if self._compute_forces:
            out["forces"] = a * fit["forces"] - gradient
        if self._compute_stress and "stress" in fit:
            volume = torch.linalg.det(state.row_vector_cell.double()).abs()
            out["stress"] = a * fit["stress"] + virial / volume[:, None, None]
        if self.so3lr is not None:
            net = self.so3lr(state)
            zero = torch.zeros_like(rest).index_add_(
                0, state.system_idx, torch.as_tensor(self.so3lr.weights.shift)[state.atomic_numbers - 1]
            )
            out = {name: value + b * (net[name] - (zero if name == "energy" else 0.0)) for name, value in out.items()}
        return out | {"intermolecular_energy": out["energy"] - inside, "intramolecular_energy": inside}

    def _molecules(self, state: SimState) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Energy (S,) inside the molecules, and their part of the total energy (S,), gradient (n, 3), virial (S, 3, 3).

        In the total SO3LR's energy of the molecules counts c - b, since b of it is in that of the crystal.
        """
        numbers = state.atomic_numbers.cpu().numpy()
        cells = state.row_vector_cell.double().cpu().numpy()
        inside, rest = np.zeros(len(cells)), np.zeros(len(cells))
        gradient, virial = np.zeros((len(numbers), 3)), np.zeros((len(cells), 3, 3))
        whole, molecules = self.fit.whole_molecules(state)
        first = np.searchsorted(state.system_idx.cpu().numpy(), np.arange(len(cells) + 1))
        # Of molecules that are symmetry copies of each other one is enough.
        tasks = []
        for s, runs in enumerate(molecules):
            orbits = self._orbits[s] if self._orbits is not None else Orbits.identity(first[s + 1] - first[s])
            own = np.isin(np.arange(len(orbits.parent)), orbits.own)
            ours = [own[a - first[s] : b - first[s]] for a, b in runs]
            if any(x.any() and not x.all() for x in ours):  # a molecule that is in part its own copy
                orbits, ours = Orbits.identity(len(own)), [np.ones(1, dtype=bool)] * len(runs)
            tasks += [(s, a, b, orbits) for (a, b), x in zip(runs, ours) if x.all()]
        found = self._each([numbers[a:b] for _, a, b, _ in tasks], [whole[a:b] for _, a, b, _ in tasks])
        for (s, a, b, orbits), (own_energy, e, g) in zip(tasks, found):
            rotations = orbits.rotations(cells[s])
            inside[s] += len(rotations) * own_energy
            rest[s] += len(rotations) * e
            virial[s] += np.einsum("gij,jk,glk->il", rotations, (whole[a:b] - whole[a]).T @ g, rotations)
            copies = np.flatnonzero(np.isin(orbits.own[orbits.parent], np.arange(a, b) - first[s]))
            gradient[first[s] + copies] = np.einsum(
                "cij,cj->ci", rotations[orbits.operation[copies]], g[orbits.own[orbits.parent[copies]] + first[s] - a]
            )
        virial = 0.5 * (virial + virial.transpose(0, 2, 1))
        return torch.as_tensor(inside), torch.as_tensor(rest), torch.as_tensor(gradient), torch.as_tensor(virial)

    def _each(
        self, numbers: Sequence[np.ndarray], positions: Sequence[np.ndarray]
    ) -> list[tuple[float, float, np.ndarray]]:
        """Of each molecule its energy, and energy and gradient (N, 3) as they count in the total."""
        b, c, d = self._between, self._inside, 1.0 - self._inside
        out = [(0.0, 0.0, np.zeros_like(x)) for x in positions]
        if self.so3lr is not None:
            shift = self.so3lr.weights.shift
            found = self.so3lr.evaluate(numbers, positions)
            nets = [(e - float(shift[z - 1].sum()), g) for z, (e, g, *_) in zip(numbers, found)]
            out = [(c * e, (c - b) * e, (c - b) * g) for e, g in nets]
        if self._alone:
            for k, (z, x) in enumerate(zip(numbers, positions)):
                try:
                    e, g = self._alone[z.astype(np.int64).tobytes()](x)
                except NonFiniteError:
                    e, g = np.nan, np.full_like(x, np.nan)
                own, rest, gradient = out[k]
                out[k] = own + d * e, rest + d * e, gradient + d * g
        return out
