"""The potential of crystals and clusters: exp-6 and charges between molecules, MMFF94 within, batched, with gradients.

E = Σ_pairs [A exp(-B r) - C/r⁶ + C (1.1 Å)⁶/r¹²] S(r) + E_Ewald - Σ_intramolecular q q'/(4πε₀ r) + Σ_molecules E_MMFF.
Pairs are atoms of different molecules and of a molecule's own periodic images; S is the quintic switch from
cutoff - 2 Å to the cutoff. Without periodicity all pairs count in full, with bare charges. One energy function stands
behind every front end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch_sim.state import SimState

from molflow_sim.errors import InputError
from molflow_sim.forcefield import ewald, ewald_compiled, mmff_compiled, pairs_torch
from molflow_sim.forcefield.batch import Batch, compiled_pairs, degenerate, extents
from molflow_sim.forcefield.mmff_energy import mmff_energies
from molflow_sim.forcefield.neighbours import VerletList, split_into_groups
from molflow_sim.forcefield.parameters import MoleculeParameters, distinct_species, parametrize
from molflow_sim.forcefield.topology import SpanningTree, lattice_shifts, lay_out
from molflow_sim.ordered import determinant, product
from molflow_sim.switched_model import SwitchedModel, state_of
from molflow_sim.threads import one_torch_thread, share

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule

SWITCH_WIDTH = 2.0
"""Width of the switched shell inside the cutoff, Å."""
OPEN_REACH = 2000.0
"""Å; open systems may be this large. They lie in a box five times as wide, whose images no pair sees."""
FAR_BONDS = 1.5
"""Times its equilibrium length, beyond which a bond is none; next neighbours of a chain are 1.6 bonds apart."""


class CrystalPotential(SwitchedModel):
    """Energy, forces and stress of molecular crystals, and of clusters in open space, as a torch-sim model.

    Parameters
    ----------
    parameters : sequence of MoleculeParameters
        The species. Systems must be whole sequences of their atoms: molecules one after another, atoms in the order of
        the Molecule. Periodic wrapping does not matter.
    cutoff : float
        Cutoff of exp-6 and of the real-space Ewald sum, Å; open systems have none.
    device : torch.device, optional
        CPU unless given.
    dtype : torch.dtype
        Of results; on a CPU everything is computed in float64.
    compute_forces, compute_stress : bool
        What `forward` returns beside the energy.
    skin : float
        Verlet skin, Å; changes the speed only.
    pair_dtype : torch.dtype
        Of pair terms in the torch loop (accelerators); sums stay in float64.
    backend : {"auto", "compiled", "torch"}
        Pair loop: compiled on a CPU, torch elsewhere, unless named.
    intramolecular : bool
        Whether MMFF94 acts inside the molecules.

    Raises
    ------
    InputError
        Two species with the same sequence of elements, a cutoff below 4 Å, or an impossible backend.
    """

    def __init__(
        self,
        parameters: Sequence[MoleculeParameters],
        cutoff: float = 15.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        compute_stress: bool = True,
        *,
        compute_forces: bool = True,
        skin: float = 1.0,
        pair_dtype: torch.dtype = torch.float64,
        backend: str = "auto",
        intramolecular: bool = True,
    ) -> None:
        super().__init__(
            torch.device(device or "cpu"), dtype, compute_forces=compute_forces, compute_stress=compute_stress
        )
        if cutoff < 2.0 * SWITCH_WIDTH:
            raise InputError(f"cutoff {cutoff} Å is too short; use at least {2.0 * SWITCH_WIDTH} Å")
        if backend == "auto":
            backend = "compiled" if self._device.type == "cpu" else "torch"
        if backend not in ("compiled", "torch") or (backend == "compiled" and self._device.type != "cpu"):
            raise InputError(f"backend {backend!r} is not available on {self._device}; use 'auto'")
        self.parameters = tuple(parameters)
        self.cutoff = float(cutoff)
        self.backend = backend
        self.pair_dtype = pair_dtype
        self.intramolecular = intramolecular
        self._numbers = [np.asarray(p.numbers) for p in self.parameters]
        if not self.parameters or len(distinct_species(self.parameters)) < len(self.parameters):
            raise InputError("species must be given, and no two may have the same sequence of elements")
        self._groups = [split_into_groups(len(n), p.mmff.bonds) for n, p in zip(self._numbers, self.parameters)]
        self._trees = [SpanningTree.of_bonds(len(n), p.mmff.bonds) for n, p in zip(self._numbers, self.parameters)]
        self._bonds = [
            (
                torch.as_tensor(p.mmff.bonds.reshape(-1, 2).T, device=self._device),
                FAR_BONDS * torch.as_tensor(p.mmff.bond_r0, device=self._device),
            )
            for p in self.parameters
        ]
        self.torn = ""
        self._skin, self._open = float(skin), False
        self._verlet = VerletList(self.cutoff, self._skin)
        self._batch: Batch | None = None
        self._kept: Sequence[int] | None = None

    @classmethod
    def from_crystals(
        cls, crystals: Sequence[MolecularCrystal | Molecule], charges: str = "mmff94", **options: Any
    ) -> CrystalPotential:
        """Parametrise every species of some crystals (or molecules) once; `options` go to the constructor.

        Raises
        ------
        ParameterError, UnsupportedElementError
            A molecule without parameters.
        InputError
            Two different molecules with the same sequence of elements.
        """
        molecules = [m for c in crystals for m in (c.molecules if hasattr(c, "molecules") else (c,))]
        return cls([parametrize(m, charges) for m in distinct_species(molecules)], **options)

    def forward(self, state: SimState | dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        """Evaluate a batch of systems.

        Parameters
        ----------
        state : SimState or dict
            torch-sim state: positions (n, 3) Å, cell (S, 3, 3) Å as columns, atomic_numbers (n,), system_idx (n,), and
            pbc: where it is false in all directions, the systems are open and their cells are not looked at.

        Returns
        -------
        dict of tensors, detached
            ``energy`` (S,) eV, ``forces`` (n, 3) eV/Å, ``stress`` (S, 3, 3) eV/Å³ (dE/dε/V, tension positive; of
            periodic systems),
            ``intermolecular_energy`` and ``intramolecular_energy`` (S,) eV. NaN for a system that is not finite or has
            collapsed, or whose atoms are not bonded as the species are (`torn` then tells which); the others are not
            affected.

        Raises
        ------
        CrystalError
            A system is not a sequence of this potential's molecules.
        """
        state = state_of(state)
        with torch.no_grad(), one_torch_thread() if self.backend == "compiled" else nullcontext():
            positions = state.positions.detach().to(self._device, torch.float64)
            batch = self._prepare(state)
            cells = self._cells(state)
            bad = degenerate(positions, cells, batch)
            if self._open:
                bad |= ~(extents(positions, batch.system, len(bad)) < OPEN_REACH - SWITCH_WIDTH)
            if bad.any():
                positions, cells = positions.clone(), cells.clone()
                positions[torch.as_tensor(np.repeat(bad, batch.layout.n_per_system), device=self._device)] = 0.0
                if not self._open:
                    cells[torch.as_tensor(bad, device=self._device)] = 10.0 * torch.eye(3, dtype=cells.dtype).to(cells)
            whole = self._make_whole(positions, cells, batch)
            torn = self._torn(whole, batch)
            inter, forces, virial = self._pairs(whole, cells, batch, bad)
            if not self._open:
                self._ewald(whole, cells, batch, inter, forces, virial)
            intra = self._mmff(whole, batch, forces, virial)
            volume = determinant(cells).abs()
            out = {"energy": inter + intra}
            if self._compute_forces:
                out["forces"] = forces
            if self._compute_stress and not self._open:
                out["stress"] = 0.5 * (virial + virial.mT) / volume[:, None, None]
            out |= {"intermolecular_energy": inter, "intramolecular_energy": intra}
            marks = torn | torch.as_tensor(bad, device=self._device)
            if marks.any():
                for name, value in out.items():
                    value[marks[batch.system] if name == "forces" else marks] = torch.nan
        return {name: value.to(self._dtype) for name, value in out.items()}

    def _cells(self, state: SimState) -> torch.Tensor:
        """Cell rows (S, 3, 3); of open systems a box so wide that nothing in it sees an image."""
        cells = state.row_vector_cell.detach().to(self._device, torch.float64).contiguous()
        return 5.0 * OPEN_REACH * torch.eye(3).to(cells).expand(cells.shape).contiguous() if self._open else cells

    def _prepare(self, state: SimState) -> Batch:
        """Layout and per-atom parameters of the batch; kept while the atoms stay the same."""
        if self._open != (not torch.as_tensor(state.pbc).any()):
            self.forget()
            self._open = not self._open
            # All pairs of an open system are listed, once: nothing moves as far as this skin.
            self._verlet = VerletList(*((OPEN_REACH, OPEN_REACH) if self._open else (self.cutoff, self._skin)))
        batch = self._batch
        numbers, system = state.atomic_numbers, state.system_idx
        if batch is None or not (torch.equal(numbers, batch.numbers) and torch.equal(system, batch.system_idx)):
            layout = lay_out(numbers.cpu().numpy(), system.cpu().numpy(), self._numbers, self._groups, self._device)
            if batch is not None and self._kept is not None:
                self._verlet.keep(self._kept, batch.layout.group_start, batch.layout.system_group)
            else:
                self._verlet.forget()
            self._batch = batch = Batch(layout, self.parameters, self._device, numbers, system)
        self._kept = None
        return batch

    def forget(self) -> None:
        """Drop what is kept of the last batch: the next results do not depend on it even in their rounding."""
        self._batch = self._kept = None
        self._verlet.forget()

    def keep(self, systems: Sequence[int]) -> None:
        """Announce that the next batch holds these systems of the last one, in order: their neighbour lists go on."""
        self._kept = systems

    def whole_molecules(self, state: SimState) -> tuple[np.ndarray, list[list[tuple[int, int]]]]:
        """Positions (n, 3) in Å of whole molecules, and each system's molecules as runs of atoms (first, last + 1).

        Raises
        ------
        CrystalError
            A system is not a sequence of this potential's molecules.
        """
        batch = self._prepare(state)
        whole = self._make_whole(state.positions.detach().to(self._device, torch.float64), self._cells(state), batch)
        runs: list[list[tuple[int, int]]] = [[] for _ in range(int(state.n_systems))]
        for atoms, system in zip(batch.layout.atoms, batch.layout.system):
            for row, s in zip(atoms.cpu().numpy(), system.tolist()):
                runs[s].append((int(row[0]), int(row[-1]) + 1))
        return whole.cpu().numpy(), runs

    def _make_whole(self, positions: torch.Tensor, cells: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Positions of whole molecules, batch order."""
        whole = positions.clone()
        layout = batch.layout
        for index, atoms, system in zip(layout.species, layout.atoms, layout.system):
            shifts = lattice_shifts(positions[atoms], cells[system], self._trees[index])
            whole[atoms] += product(shifts, cells[system])
        return whole

    def _torn(self, whole: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Systems (S,) with atoms far apart that are bonded in the species, as in an isomer with the same elements."""
        torn = torch.zeros(len(batch.layout.n_per_system), dtype=torch.bool, device=self._device)
        self.torn = ""
        for index, atoms, system in zip(batch.layout.species, batch.layout.atoms, batch.layout.system):
            (i, j), limits = self._bonds[index]
            length = torch.linalg.vector_norm(whole[atoms[:, i]] - whole[atoms[:, j]], dim=-1)
            far = length > limits
            if far.any():
                torn[system[far.any(1)]] = True
                m, b = far.nonzero()[0].tolist()
                self.torn = self.torn or (
                    f"atoms {int(atoms[m, i[b]])} and {int(atoms[m, j[b]])} are {float(length[m, b]):.2f} Å apart and "
                    "should be bonded: they are not the molecule of this potential in its atom order"
                )
        return torn

    def _pairs(
        self, whole: torch.Tensor, cells: torch.Tensor, batch: Batch, bad: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pair loop: energy (S,), forces (n, 3) in batch order, virial (S, 3, 3)."""
        layout = batch.layout
        ordered = whole[batch.order]
        x, h = ordered.cpu().numpy(), cells.cpu().numpy()
        entries, changed = self._verlet.update(
            x, h, layout.group_start, layout.group_molecule, layout.system_group, bad
        )
        cutoff, alpha = (OPEN_REACH, 0.0) if self._open else (self.cutoff, ewald.splitting(self.cutoff)[0])
        limits = (cutoff, cutoff - SWITCH_WIDTH, alpha)
        if self.backend == "torch":
            if changed or batch.pairs is None:
                atom_system = layout.atom_system[layout.order]
                batch.pairs = pairs_torch.expand(entries, layout.group_start, atom_system, self._device, torch.float64)
            sqrt_a, half_b, sqrt_c, charge = batch.table.unbind(1)
            energy, forces, virial = pairs_torch.evaluate(
                batch.pairs, ordered, cells, sqrt_a, half_b, sqrt_c, charge, *limits, self.pair_dtype
            )
        else:
            energy, forces, virial = (torch.from_numpy(a) for a in compiled_pairs(x, h, batch, entries, limits))
        return energy, torch.empty_like(forces).index_copy_(0, batch.order, forces), virial

    def _ewald(
        self,
        whole: torch.Tensor,
        cells: torch.Tensor,
        batch: Batch,
        energy: torch.Tensor,
        forces: torch.Tensor,
        virial: torch.Tensor,
    ) -> None:
        """Add the reciprocal sum and take out the molecules' own pairs, in place."""
        layout = batch.layout
        if self.backend == "compiled":
            own = np.zeros(len(cells))
            arrays = (whole.numpy(), batch.charge.numpy(), cells.numpy())
            where = (layout.system_atom, layout.molecule_start, layout.system_molecule, *ewald.splitting(self.cutoff))
            out = (own, forces.numpy(), virial.numpy())
            share(len(cells), lambda lo, hi: ewald_compiled.ewald_systems(lo, hi, *arrays, *where, *out))
            energy += torch.from_numpy(own)
            return
        k_energy, k_forces, k_virial = ewald.reciprocal_energy(
            whole, batch.charge, cells, layout.n_per_system, self.cutoff
        )
        energy += k_energy
        forces += k_forces
        virial += k_virial
        for atoms, system in zip(layout.atoms, layout.system):
            x = whole[atoms]
            molecular, gradient = ewald.intramolecular_correction(x, batch.charge[atoms[0]], self.cutoff)
            energy.index_add_(0, system, molecular)
            forces[atoms] -= gradient
            virial.index_add_(0, system, (x - x[:, :1]).mT @ gradient)

    def _mmff(self, whole: torch.Tensor, batch: Batch, forces: torch.Tensor, virial: torch.Tensor) -> torch.Tensor:
        """MMFF94 energy of the molecules of each system; forces and virial are added in place."""
        layout = batch.layout
        intra = virial.new_zeros(len(virial))
        if not self.intramolecular:
            return intra
        for index, atoms, system in zip(layout.species, layout.atoms, layout.system):
            if self.backend == "compiled":
                found = mmff_compiled.mmff_molecules(
                    self.parameters[index].mmff, whole.numpy(), atoms[:, 0].contiguous().numpy()
                )
                molecular, gradient, own = (torch.from_numpy(a) for a in found)
                intra.index_add_(0, system, molecular)
                forces[atoms] -= gradient
                virial.index_add_(0, system, own)
                continue
            with torch.enable_grad():
                x = whole[atoms].requires_grad_(True)
                terms = mmff_energies(self.parameters[index].mmff, x)
                per_molecule = torch.stack([t.expand(len(x)) for t in terms.values()]).sum(0)
                total = per_molecule.sum()
                gradient = torch.autograd.grad(total, x)[0] if total.requires_grad else torch.zeros_like(x)
            x = x.detach()
            intra.index_add_(0, system, per_molecule.detach())
            forces[atoms] -= gradient
            virial.index_add_(0, system, (x - x[:, :1]).mT @ gradient)
        return intra
