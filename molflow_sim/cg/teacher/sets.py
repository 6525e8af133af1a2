"""One step of the teacher: some coordinates mapped given others."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from molflow_sim.cg.teacher.settings import TeacherSettings
from molflow_sim.flow.conditioners import Conditioner, periodic_features
from molflow_sim.flow.smooth import SmoothCircle, SmoothInterval, split_ramps


class CoordinateSet(nn.Module):
    """Coordinates of one kind that are updated together, given others.

    Parameters
    ----------
    kind : str
        "bonds", "angles", "torsions" or "augmented".
    columns : slice
        Which of that kind.
    given : list of (str, slice)
        Kinds and columns that the map depends on.
    n : dict of str to int
        Number of coordinates of each kind.
    settings : TeacherSettings
        Architecture.
    """

    index: Tensor

    def __init__(
        self, kind: str, columns: slice, given: list[tuple[str, slice]], n: dict[str, int], settings: TeacherSettings
    ) -> None:
        super().__init__()
        s = settings
        self.kind, self.columns, self.given, self.settings = kind, columns, given, s
        self.n_components = {"angles": s.angle_components, "bonds": s.bond_components}.get(kind, s.torsion_components)
        chosen = list(range(n[kind]))[columns]
        self.is_whole = len(chosen) == n[kind]
        self.register_buffer("index", torch.tensor(chosen), persistent=False)
        n_features = sum(len(range(n[k])[c]) * (2 * s.harmonics if k == "torsions" else 1) for k, c in given)
        hidden = s.local_hidden if kind in ("bonds", "angles") else s.hidden
        self.conditioner = Conditioner(n_features, len(chosen) * 3 * self.n_components, hidden)

    def take(self, units: dict[str, Tensor]) -> Tensor:
        """The set's own coordinates."""
        return units[self.kind][..., self.columns]

    def put(self, units: dict[str, Tensor], value: Tensor) -> None:
        """Exchange the set's own coordinates, in a new tensor."""
        whole = units[self.kind]
        units[self.kind] = value if self.is_whole else whole.index_copy(-1, self.index, value)

    def transform(self, units: dict[str, Tensor]) -> SmoothCircle | SmoothInterval:
        """The map, given the other coordinates (each in units of its circle or interval)."""
        s = self.settings
        features = [
            periodic_features(units[kind][..., columns], s.harmonics)
            if kind == "torsions"
            else (units[kind][..., columns] - 0.5) * math.sqrt(12.0)  # a uniform coordinate gets unit variance
            for kind, columns in self.given
        ]
        own = units[self.kind]
        raw = self.conditioner(torch.cat(features, dim=-1) if features else own.new_zeros(*own.shape[:-1], 0))
        circular = self.kind == "torsions"
        ramps = split_ramps(raw, self.n_components, (s.least_width, 1.0 if circular else 2.0), circular)
        return (SmoothCircle if circular else SmoothInterval)(ramps, s.floor, s.sharpness)
