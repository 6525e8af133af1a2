"""The rigid press: overlapping random packings in, lattice-energy minima with the space group kept out.

Stages, after a recipe of soft overlap first and the potential under pressure next: molecules are moved apart by a soft
overlap energy while a pressure closes the cell, pressed with the potential under a lower pressure, then
minimised without pressure. Free are the crystal system's cell parameters and the positions and orientations in
the asymmetric unit, as far as the site symmetry allows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from molflow_sim.errors import InputError
from molflow_sim.packing.cell_reduction import reduce_cells
from molflow_sim.packing.lattice_energy import LatticeEnergy
from molflow_sim.packing.minimize import Stage, minimise
from molflow_sim.packing.neighbours import Geometry
from molflow_sim.packing.packings import OVERLAP_FREE, STATUS, RigidPackings
from molflow_sim.packing.tables import PressTables
from molflow_sim.threads import one_torch_thread
from molflow_sim.units import AMU_PER_A3, KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.forcefield.parameters import MoleculeParameters


@dataclass(frozen=True)
class PressSettings:
    """Settings of the press; lengths in Å, pressures in kJ/mol/Å³, gradients in kJ/mol/Å.

    Attributes
    ----------
    cutoff : float, optional
        Distance of molecular centres up to which pairs count; max(12, 2·radius + 5) by default.
    soft_evaluations, soft_pressure
        First stage: soft overlap. Packings without overlaps (status ``overlap-free``) skip it.
    squeeze_evaluations, squeeze_pressure
        Second stage: the potential under pressure.
    max_evaluations, tolerance
        Third stage: the potential alone, to this largest gradient component.
    polish_evaluations
        Fourth stage: the same with fresh neighbour lists, so that the energies belong to the final geometry.
    accept : float
        Largest gradient component at which a packing still counts as converged.
    rebuild_every : int
        Evaluations between rebuilds of the neighbour lists.
    batch_size : int
        Crystals minimised side by side.
    density : (float, float)
        Range in g/cm³ that counts as plausible.
    reduce_cells : bool
        Describe the results in reduced cells; this takes gemmi's tables of settings.
    """

    cutoff: float | None = None
    soft_evaluations: int = 40
    soft_pressure: float = 0.3
    squeeze_evaluations: int = 25
    squeeze_pressure: float = 0.15
    max_evaluations: int = 120
    polish_evaluations: int = 20
    tolerance: float = 0.1
    accept: float = 2.0
    rebuild_every: int = 20
    batch_size: int = 500
    density: tuple[float, float] = (0.4, 4.0)
    reduce_cells: bool = True

    def __post_init__(self) -> None:
        if self.cutoff is not None and not self.cutoff > 0:
            raise InputError(f"the press's cutoff must be positive, got {self.cutoff}")
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {self.batch_size}")


def press(
    packings: RigidPackings,
    parameters: MoleculeParameters,
    settings: PressSettings | None = None,
    *,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> RigidPackings:
    """Minimise the lattice energy of rigid packings.

    Parameters
    ----------
    packings : RigidPackings
    parameters : MoleculeParameters
        Intermolecular parameters of the molecule.
    settings : PressSettings, optional
    backend : {"auto", "numba", "torch"}
    device : torch device
        Where the torch backend runs.
    progress : callable, optional
        Called with the number of packings each finished batch held.

    Returns
    -------
    RigidPackings
        In the same order, with energies in eV per molecule (lattice energy plus the strain of the conformer) and
        status. Packings that failed keep a status other than ``ok``; none is dropped and no energy of an ``ok``
        one is NaN.
    """
    settings = settings or PressSettings()
    nothing = ("not generated", "not finite", "no lattice implied")
    given = ~np.isin(packings.status, [STATUS.index(name) for name in nothing])
    if not given.all():  # nothing to press there
        rest = packings.select(~given)
        if not given.any():
            return rest
        done = press(packings.select(given), parameters, settings, backend=backend, device=device, progress=progress)
        rows = np.concatenate([np.flatnonzero(given), np.flatnonzero(~given)])
        return RigidPackings.concatenate([done, rest]).select(np.argsort(rows))
    tables = PressTables(
        parameters.numbers, packings.conformers, parameters.exp6_a, parameters.exp6_b, parameters.exp6_c,
        parameters.charges, packings.molecule.bonds, packings.placements, device,
    )  # fmt: skip
    energy = LatticeEnergy(tables, backend)
    parts = []
    with one_torch_thread() if energy.backend == "numba" else nullcontext():
        for first in range(0, len(packings), settings.batch_size):
            part = packings.select(slice(first, first + settings.batch_size))
            parts.append(_press_batch(part, energy, settings))
            if progress:
                progress(len(part))
    pressed = RigidPackings.concatenate(parts)
    return reduce_cells(pressed) if settings.reduce_cells else pressed


def stages(settings: PressSettings, tables: PressTables) -> list[Stage]:
    """The minimisations a batch goes through (eV, Å)."""
    cutoff = settings.cutoff or max(12.0, 2.0 * tables.radius + 5.0)
    reach = 2.0 * tables.radius + float(tables.contact.max())
    unit, every = KJ_PER_MOL, settings.rebuild_every
    out = []
    if settings.soft_evaluations:
        pressure = settings.soft_pressure * unit
        out.append(Stage(True, pressure, reach + 1.0, settings.soft_evaluations, 0.02, max(every // 2, 1)))
    if settings.squeeze_evaluations:
        pressure = settings.squeeze_pressure * unit
        out.append(Stage(False, pressure, cutoff, settings.squeeze_evaluations, 0.02, every))
    tolerance = settings.tolerance * unit
    out.append(Stage(False, 0.0, cutoff, settings.max_evaluations, tolerance, every))
    if settings.polish_evaluations:
        out.append(Stage(False, 0.0, cutoff, settings.polish_evaluations, tolerance, settings.polish_evaluations + 1))
    return out


def _press_batch(part: RigidPackings, energy: LatticeEnergy, settings: PressSettings) -> RigidPackings:
    device = energy.tables.device
    geometry = Geometry.of(part, device)
    overlapping = torch.as_tensor(np.flatnonzero(part.status != OVERLAP_FREE), device=device)
    for stage in stages(settings, energy.tables):
        if stage.soft and len(overlapping) < len(part):
            if len(overlapping):
                geometry.replace(overlapping, minimise(energy, geometry.select(overlapping), stage)[0])
        else:
            geometry, value, gradient, _ = minimise(energy, geometry, stage)
    cell = geometry.cell.cpu().numpy()
    value, gradient = value.cpu().numpy() / part.centroid.shape[1], gradient.cpu().numpy()
    strain = part.molecule.energies - part.molecule.energies.min()
    if len(strain) == len(part.conformers):
        value = value + np.nan_to_num(strain)[part.conformer]
    pressed = replace(
        part,
        cell=cell,
        centroid=np.mod(geometry.centroid.cpu().numpy(), 1.0),
        rotation=geometry.rotation.cpu().numpy(),
        energy=value,
    )
    return _judge(pressed, gradient, settings)


def _judge(pressed: RigidPackings, gradient: np.ndarray, settings: PressSettings) -> RigidPackings:
    status = np.zeros(len(pressed), np.int8)
    with np.errstate(all="ignore"):
        mass = pressed.z * float(pressed.molecule.molar_mass)
        density = mass * AMU_PER_A3 / np.linalg.det(pressed.cell)
    low, high = settings.density
    status[~((density > low) & (density < high))] = STATUS.index("implausible density")
    status[(gradient > settings.accept * KJ_PER_MOL) & (status == 0)] = STATUS.index("not converged")
    finite = (
        np.isfinite(pressed.energy)
        & np.isfinite(pressed.cell).all((1, 2))
        & np.isfinite(pressed.rotation).all((1, 2, 3))
    )
    status[~finite] = STATUS.index("not finite")
    return replace(pressed, status=status, energy=np.where(finite, pressed.energy, np.nan))
