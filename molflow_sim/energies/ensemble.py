"""The potential that belongs to ``best``: structures are relaxed on it, so that geometry and energy agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch_sim.state import SimState

from molflow_sim.energies.models import WITHOUT_SO3LR
from molflow_sim.errors import MissingDependencyError, ParameterError, UnsupportedElementError
from molflow_sim.forcefield.parameters import MoleculeParameters
from molflow_sim.forcefield.potential import CrystalPotential
from molflow_sim.forcefield.site_potential import SitePotential
from molflow_sim.forcefield.sites import charge_sites
from molflow_sim.so3lr.potential import SO3LR, Orbits, check_elements
from molflow_sim.switched_model import SwitchedModel, state_of

SHARE = 2.0 / 3.0
"""Of exp-6 with charges beside the atoms in the energy between molecules; with MMFF94's charges it has a half."""


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
    """The potential that belongs to ``best``: structures are relaxed on it.

    Parameters
    ----------
    parameters : sequence of MoleculeParameters
        From `best_parameters`.
    spec : str
        One of `molflow_sim.energies.models.BESTS`, which says what ``best`` is for these species, or ``best``: without
        SO3LR where it does not know one of them, or is not installed.
    cutoff : float
        Å.

    Raises
    ------
    UnsupportedElementError, MissingDependencyError
        The spec has SO3LR, and it cannot be had.
    InputError
        The spec is ``potential-hf``, and a species has no `sites`.
    """
    if spec != WITHOUT_SO3LR:
        try:
            return EnsemblePotential(parameters, cutoff)
        except (UnsupportedElementError, MissingDependencyError):
            if spec != "best":
                raise
    if spec == WITHOUT_SO3LR or all(p.sites is not None for p in parameters):
        return SitePotential(parameters, cutoff, intramolecular=True)
    return CrystalPotential(parameters, cutoff)


class EnsemblePotential(SwitchedModel):
    """Between molecules the mean of this package's exp-6 and charges with SO3LR, inside them SO3LR; a torch-sim model.

    ``E = w E_FIT + (1 - w) E_SO3LR(crystal) + w Σ_molecules E_SO3LR(alone)``, SO3LR's atomic energies left out. The
    last term gives the molecules their full stiffness; without it cells relax to densities 3 % higher.

    Parameters
    ----------
    parameters : sequence of MoleculeParameters
        The species, as for `CrystalPotential`. Where all have `sites`, the exp-6 model has these charges.
    cutoff : float
        Of exp-6, real-space charges and dispersion, Å.

    Raises
    ------
    UnsupportedElementError
        An element that SO3LR does not know.
    MissingDependencyError
        The wheel with SO3LR's weights is not installed.
    """

    def __init__(self, parameters: Sequence[MoleculeParameters], cutoff: float = 15.0) -> None:
        super().__init__(torch.device("cpu"), torch.float64)
        if all(p.sites is not None for p in parameters):
            self.fit: CrystalPotential = SitePotential(parameters, cutoff)
            self.share = SHARE
        else:
            self.fit = CrystalPotential(parameters, cutoff, intramolecular=False)
            self.share = 0.5
        self.so3lr = SO3LR(cutoff)
        self.parameters = self.fit.parameters
        for p in self.parameters:
            check_elements(np.asarray(p.numbers))
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
        self.so3lr.symmetric(self._orbits)

    def forward(self, state: SimState | dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        """Evaluate a batch of systems; inputs, outputs and errors are those of `CrystalPotential.forward`."""
        state = state_of(state)
        fit = self.fit(state)
        net = self.so3lr(state)
        inside, gradient, virial = self._inside(state)
        zero = torch.zeros_like(fit["energy"]).index_add_(
            0, state.system_idx, torch.as_tensor(self.so3lr.weights.shift)[state.atomic_numbers - 1]
        )
        inside = inside - zero
        a, b = self.share, 1.0 - self.share
        total = a * (fit["energy"] + inside) + b * (net["energy"] - zero)
        out = {"energy": total}
        if self._compute_forces:
            out["forces"] = a * (fit["forces"] - gradient) + b * net["forces"]
        if self._compute_stress and "stress" in fit:
            volume = torch.linalg.det(state.row_vector_cell.double()).abs()
            out["stress"] = a * (fit["stress"] + virial / volume[:, None, None]) + b * net["stress"]
        return out | {"intermolecular_energy": total - inside, "intramolecular_energy": inside}

    def _inside(self, state: SimState) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """SO3LR of every molecule alone: energy (S,), gradient (n, 3) and virial (S, 3, 3)."""
        numbers = state.atomic_numbers.cpu().numpy()
        cells = state.row_vector_cell.double().cpu().numpy()
        energy, gradient, virial = np.zeros(len(cells)), np.zeros((len(numbers), 3)), np.zeros((len(cells), 3, 3))
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
        found = self.so3lr.evaluate([numbers[a:b] for _, a, b, _ in tasks], [whole[a:b] for _, a, b, _ in tasks])
        for (s, a, b, orbits), (e, g, *_rest) in zip(tasks, found):
            rotations = orbits.rotations(cells[s])
            energy[s] += len(rotations) * e
            virial[s] += np.einsum("gij,jk,glk->il", rotations, (whole[a:b] - whole[a]).T @ g, rotations)
            copies = np.flatnonzero(np.isin(orbits.own[orbits.parent], np.arange(a, b) - first[s]))
            gradient[first[s] + copies] = np.einsum(
                "cij,cj->ci", rotations[orbits.operation[copies]], g[orbits.own[orbits.parent[copies]] + first[s] - a]
            )
        virial = 0.5 * (virial + virial.transpose(0, 2, 1))
        return torch.as_tensor(energy), torch.as_tensor(gradient), torch.as_tensor(virial)
