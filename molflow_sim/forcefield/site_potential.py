"""Exp-6 between atoms and the Coulomb energy of charges beside them, in batches, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch_sim.state import SimState

from molflow_sim.errors import InputError
from molflow_sim.forcefield.batch import Batch
from molflow_sim.forcefield.parameters import MoleculeParameters
from molflow_sim.forcefield.potential import CrystalPotential
from molflow_sim.switched_model import state_of


class SitePotential(CrystalPotential):
    """The energy between molecules with the charges of their `sites`; nothing inside the molecules.

    Molecules are widened by their sites, which have charges and no exp-6, and evaluated as by `CrystalPotential`.
    Sites are weighted sums of atoms, so that forces go back by the same weights and the stress is that of the sites.

    Parameters
    ----------
    parameters : sequence of MoleculeParameters
        Of species that all have `sites`.
    cutoff : float
        Of exp-6 and the real-space sum, Å.

    Raises
    ------
    InputError
        A species without sites.
    """

    def __init__(self, parameters: Sequence[MoleculeParameters], cutoff: float = 15.0) -> None:
        super().__init__(parameters, cutoff, intramolecular=False)
        if any(p.sites is None for p in self.parameters):
            raise InputError("a species has no charge sites: give parametrize(molecule, sites=True)")
        self._weights = [torch.as_tensor(p.sites.weights) for p in self.parameters if p.sites is not None]
        self._wide = CrystalPotential([_widened(p) for p in self.parameters], cutoff, intramolecular=False)
        self._places: tuple[Batch, list[torch.Tensor], torch.Tensor, torch.Tensor] | None = None

    def forget(self) -> None:
        """See `CrystalPotential.forget`."""
        super().forget()
        self._wide.forget()

    def keep(self, systems: Sequence[int]) -> None:
        """See `CrystalPotential.keep`."""
        super().keep(systems)
        self._wide.keep(systems)

    def forward(self, state: SimState | dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        """See `CrystalPotential.forward`."""
        state = state_of(state)
        batch = self._prepare(state)
        whole = self._make_whole(state.positions.detach().to(torch.float64), self._cells(state), batch)
        torn = self._torn(whole, batch)
        rows, numbers, system = self._widths(batch, state)
        positions = whole.new_empty(len(numbers), 3)
        for index, atoms, row in zip(batch.layout.species, batch.layout.atoms, rows):
            positions[row] = self._weights[index] @ whole[atoms]
        self._wide.compute_forces, self._wide.compute_stress = self._compute_forces, self._compute_stress
        out = self._wide(
            SimState(
                positions=positions, masses=torch.ones(len(numbers)), cell=state.cell, pbc=state.pbc,
                atomic_numbers=numbers, system_idx=system,
            )
        )  # fmt: skip
        if self._compute_forces:
            wide, out["forces"] = out["forces"], torch.zeros_like(whole)
            for index, atoms, row in zip(batch.layout.species, batch.layout.atoms, rows):
                out["forces"][atoms] = self._weights[index].mT @ wide[row]
        for name, value in out.items():
            value[torn[batch.system] if name == "forces" else torn] = torch.nan
        return out

    def _widths(self, batch: Batch, state: SimState) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Rows (M, S) of the sites of each species' molecules, and of all sites their numbers and systems."""
        if self._places is None or self._places[0] is not batch:
            layout = batch.layout
            first = torch.cat([atoms[:, 0] for atoms in layout.atoms])
            sizes = torch.cat(
                [torch.full((len(a),), len(self._weights[i])) for i, a in zip(layout.species, layout.atoms)]
            )
            order = torch.argsort(first)
            starts = torch.empty_like(sizes)
            starts[order] = torch.cumsum(sizes[order], 0) - sizes[order]
            total = int(sizes.sum())
            numbers, system = torch.zeros(total, dtype=torch.int64), torch.zeros(total, dtype=torch.int64)
            rows, at = [], 0
            for index, atoms, of in zip(layout.species, layout.atoms, layout.system):
                row = starts[at : at + len(atoms), None] + torch.arange(len(self._weights[index]))
                numbers[row] = torch.as_tensor(np.asarray(self._wide.parameters[index].numbers), dtype=torch.int64)
                system[row] = of[:, None].expand(row.shape)
                rows.append(row)
                at += len(atoms)
            self._places = (batch, rows, numbers, system)
        return self._places[1:]


def _widened(p: MoleculeParameters) -> MoleculeParameters:
    """A species whose atoms are followed by its sites, each bonded to the atom it stands by."""
    assert p.sites is not None  # the constructor has refused it
    n, more = len(p.numbers), len(p.sites.charges) - len(p.numbers)
    bonds = np.stack([p.sites.weights[n:].argmax(1), n + np.arange(more)], axis=1)
    zero = np.zeros(more)
    mmff = replace(
        p.mmff,
        bonds=np.concatenate([np.asarray(p.mmff.bonds).reshape(-1, 2), bonds]),
        bond_r0=np.concatenate([p.mmff.bond_r0, np.ones(more)]),
    )
    return replace(
        p, numbers=np.append(p.numbers, np.zeros(more, dtype=int)), masses=np.append(p.masses, np.ones(more)),
        exp6_a=np.append(p.exp6_a, zero), exp6_b=np.append(p.exp6_b, zero), exp6_c=np.append(p.exp6_c, zero),
        charges=p.sites.charges, mmff=mmff, sites=None,
    )  # fmt: skip
