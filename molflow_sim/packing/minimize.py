"""Batched quasi-Newton minimisation of rigid packings, each crystal with its own line search and stopping.

Dense BFGS with a step cap and backtracking (Nocedal & Wright, Numerical Optimization, ch. 6). Coordinates per
crystal: changes of the cell along `PressTables.cell_basis` (Å), displacements of the centres (Å) and rotation
vectors times the molecule's radius of gyration (Å), so one length scale fits all.

A crystal's path is its own: sums have a fixed order (`molflow_sim.ordered`), lists are made anew at counts of its own
evaluations, and what it has when it is done is what counts, however long it stays in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from molflow_sim.ordered import applied, cross, inverse, product, total
from molflow_sim.packing.lattice_energy import LatticeEnergy
from molflow_sim.packing.neighbours import Geometry


@dataclass(frozen=True)
class Stage:
    """One stage of the press.

    Attributes
    ----------
    soft : bool
        Soft overlap instead of the potential.
    pressure : float
        eV/Å³.
    cutoff : float
        Distance of molecular centres, Å.
    max_evaluations : int
    tolerance : float
        Largest gradient component at which a crystal counts as converged, eV/Å.
    rebuild_every : int
        Evaluations between rebuilds of the neighbour list.
    max_step : float
        Largest change of any coordinate in one step, Å.
    """

    soft: bool
    pressure: float
    cutoff: float
    max_evaluations: int
    tolerance: float
    rebuild_every: int = 20
    max_step: float = 0.4


def rotation_from_vector(vector: torch.Tensor) -> torch.Tensor:
    """Rotations (..., 3, 3) about vectors (..., 3) by 2 arctan(|v|/2), which is |v| in rad to second order.

    Cayley's map: no transcendental function, whose last digit differs between processors.
    """
    half = 0.5 * vector
    square = total(half * half)[..., None, None]
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    skew = cross(half.unsqueeze(-2), eye).mT
    outer = half.unsqueeze(-1) * half.unsqueeze(-2)
    return ((1.0 - square) * eye + 2.0 * (outer + skew)) / (1.0 + square)


def minimise(energy: LatticeEnergy, geometry: Geometry, stage: Stage):
    """Minimise every crystal of the batch.

    Returns
    -------
    geometry : Geometry
    value : Tensor, shape (B,)
        eV per asymmetric unit (enthalpy, if the stage has a pressure).
    gradient : Tensor, shape (B,)
        Largest gradient component left, eV/Å.
    evaluations : Tensor of int, shape (B,)
    """
    batch = _Batch(energy, geometry, stage)
    result_value = geometry.cell.new_full((len(geometry),), float("nan"))
    result_gradient = result_value.clone()
    evaluations = torch.zeros(len(geometry), dtype=torch.long, device=geometry.cell.device)
    index = torch.arange(len(geometry), device=geometry.cell.device)
    final = geometry.select(index)  # a copy
    going = torch.ones_like(index, dtype=torch.bool)
    for count in range(1, stage.max_evaluations + 1):
        batch.step(rebuild=count % stage.rebuild_every == 0)
        evaluations[index[going]] += 1
        leave = going if count == stage.max_evaluations else going & batch.finished()
        rows = index[leave]
        final.replace(rows, batch.geometry.select(leave))
        result_value[rows], result_gradient[rows] = batch.value[leave], batch.gradient[leave].abs().amax(1)
        going = going & ~leave
        n = int(going.sum())
        if n == 0:
            break
        # Dropping finished crystals copies the rest, so wait until enough of them have finished.
        if 8 * n <= 7 * len(going):
            stay = torch.nonzero(going).squeeze(1)
            index, going = index[stay], going[stay]
            batch.keep(stay)
    return final, result_value, result_gradient, evaluations


class _Batch:
    """State of the running minimisation; one call of `step` is one evaluation for every crystal in it."""

    def __init__(self, energy: LatticeEnergy, geometry: Geometry, stage: Stage) -> None:
        self.energy, self.geometry, self.stage = energy, geometry, stage
        self.scale = energy.tables.gyration
        self.fractional = inverse(geometry.cell)  # Å -> fractional, fixed for the stage
        self._rebuild()
        b, d = self.gradient.shape
        self.inverse_hessian = torch.eye(d, dtype=torch.float64, device=geometry.cell.device).repeat(b, 1, 1)
        self.fresh = torch.ones(b, dtype=torch.bool, device=geometry.cell.device)
        self.alpha = torch.ones(b, dtype=torch.float64, device=geometry.cell.device)
        self.failures = torch.zeros(b, dtype=torch.long, device=geometry.cell.device)
        self._direction()

    def _evaluate(self, geometry: Geometry):
        t, stage = self.energy.tables, self.stage
        value, g_cell, g_centroid, g_rotation = self.energy(
            geometry, self.list, soft=stage.soft, pressure=stage.pressure
        )
        group = geometry.group
        cell = total((t.cell_basis[group] * g_cell[:, None]).flatten(2))
        shift = applied(self.fractional[:, None], g_centroid)
        shift = applied(t.translation_projector[group][:, None], shift)
        turn = applied(t.rotation_projector[group][:, None], g_rotation) / self.scale
        gradient = torch.cat([cell, shift.flatten(1), turn.flatten(1)], 1)
        bad = ~(torch.isfinite(value) & torch.isfinite(gradient).all(1))
        return torch.where(bad, torch.inf, value), torch.where(bad[:, None], 0.0, gradient)

    def _displace(self, step: torch.Tensor) -> Geometry:
        t, geometry = self.energy.tables, self.geometry
        b, m = geometry.centroid.shape[:2]
        group = geometry.group
        cell = geometry.cell + applied(t.cell_basis[group].flatten(2).mT, step[:, :6]).view(b, 3, 3)
        shift = applied(t.translation_projector[group][:, None], step[:, 6 : 6 + 3 * m].view(b, m, 3))
        centroid = geometry.centroid + product(shift, self.fractional)
        turn = applied(t.rotation_projector[group][:, None], step[:, 6 + 3 * m :].view(b, m, 3))
        rotation = product(rotation_from_vector(turn / self.scale), geometry.rotation)
        return Geometry(cell, centroid, rotation, geometry.conformer, group)

    def _rebuild(self) -> None:
        self.list = self.energy.neighbours(self.geometry, self.stage.cutoff)
        self.value, self.gradient = self._evaluate(self.geometry)

    def _direction(self) -> None:
        p = -applied(self.inverse_hessian, self.gradient)
        slope = total(p * self.gradient)
        uphill = slope >= 0
        if bool(uphill.any()):
            p = torch.where(uphill[:, None], -self.gradient, p)
            self._reset(uphill)
            slope = total(p * self.gradient)
        longest = p.abs().amax(1).clamp_min(1e-30)
        # A first step along the bare gradient has no length of its own: 0.1 Å is safe for overlapping molecules.
        cap = torch.where(self.fresh, 0.25 * self.stage.max_step, self.stage.max_step)
        factor = (cap / longest).clamp(max=1.0)
        factor = torch.where(self.fresh, cap / longest * (self.gradient.abs().amax(1) > 1e-12), factor)
        self.p, self.slope = p * factor[:, None], slope * factor

    def _reset(self, which: torch.Tensor) -> None:
        eye = torch.eye(self.gradient.shape[1], dtype=torch.float64, device=self.gradient.device)
        self.inverse_hessian = torch.where(which[:, None, None], eye, self.inverse_hessian)
        self.fresh = self.fresh | which

    def step(self, rebuild: bool) -> None:
        if rebuild:
            self._rebuild()
            self._direction()
            self.alpha.fill_(1.0)
        trial = self._displace(self.alpha[:, None] * self.p)
        value, gradient = self._evaluate(trial)
        predicted = self.alpha * self.slope
        # The last term is the rounding of float32 pair sums.
        accept = value <= self.value + 1e-4 * predicted + 2e-6
        self._update_hessian(accept, gradient)
        g = self.geometry
        pick = lambda new, old: torch.where(accept.view(-1, *[1] * (new.dim() - 1)), new, old)  # noqa: E731
        old_value = self.value
        self.geometry = Geometry(
            pick(trial.cell, g.cell), pick(trial.centroid, g.centroid), pick(trial.rotation, g.rotation),
            g.conformer, g.group,
        )  # fmt: skip
        self.value, self.gradient = pick(value, old_value), pick(gradient, self.gradient)
        # Rejected: shrink by the parabola through value, slope and trial value.
        curvature = 2.0 * (value - old_value - predicted)
        shrink = torch.nan_to_num(-predicted / curvature, nan=0.1, posinf=0.1, neginf=0.1).clamp(0.1, 0.5)
        alpha = torch.where(accept, 1.0, self.alpha * shrink)
        stuck = alpha < 1e-4
        if bool(stuck.any()):
            self.failures = self.failures + stuck
            self._reset(stuck)
            alpha = torch.where(stuck, 1.0, alpha)
        new_direction = accept | stuck
        p, slope = self.p, self.slope
        self._direction()
        self.p = torch.where(new_direction[:, None], self.p, p)
        self.slope = torch.where(new_direction, self.slope, slope)
        self.alpha = alpha

    def _update_hessian(self, accept: torch.Tensor, gradient: torch.Tensor) -> None:
        s = self.alpha[:, None] * self.p
        y = gradient - self.gradient
        sy = total(s * y)
        yy = total(y * y)
        use = accept & (sy > 1e-10 * (yy * total(s * s)).sqrt()) & (yy > 0)
        h = self.inverse_hessian
        first = use & self.fresh
        h = torch.where(
            first[:, None, None],
            (sy / yy.clamp_min(1e-30))[:, None, None] * torch.eye(h.shape[1], dtype=h.dtype, device=h.device),
            h,
        )
        hy = applied(h, y)
        rho = 1.0 / torch.where(use, sy, 1.0)
        yhy = total(y * hy)
        outer = rho[:, None, None] * (hy[:, :, None] * s[:, None, :])
        update = (
            (rho * (1.0 + rho * yhy))[:, None, None] * (s[:, :, None] * s[:, None, :]) - outer - outer.transpose(1, 2)
        )
        self.inverse_hessian = torch.where(use[:, None, None], h + update, h)
        self.fresh = self.fresh & ~use

    def finished(self) -> torch.Tensor:
        """Crystals that are converged, or that no step improves any more."""
        return (self.gradient.abs().amax(1) < self.stage.tolerance) | (self.failures >= 3) | ~torch.isfinite(self.value)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with the crystals at `rows` only."""
        self.geometry, self.list = self.geometry.select(rows), self.list.select(rows)
        for name in ("fractional", "value", "gradient", "inverse_hessian", "fresh", "alpha", "failures", "p", "slope"):
            setattr(self, name, getattr(self, name)[rows])
