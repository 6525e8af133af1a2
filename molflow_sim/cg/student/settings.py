"""Settings of the distillation, as one YAML file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from molflow_sim.cg.student.cgnet import CGNetSettings
from molflow_sim.cg.teacher.forces import ForceSampleSettings
from molflow_sim.errors import InputError
from molflow_sim.training.settings import YamlSettings


@dataclass(frozen=True)
class DistillSettings(YamlSettings):
    """What a student is and how the samples that it learns from are made.

    Attributes
    ----------
    force_field : CGNetSettings
        Size, bounds and prior of the network.
    sampling : ForceSampleSettings
        How configurations drawn from the flow are chosen, averaged and filtered ("flow-forces" only).
    energy_weight : float
        Weight of the energies of these configurations beside their forces; 0 for forces alone ("flow-forces" only).
    """

    force_field: CGNetSettings = field(default_factory=CGNetSettings)
    sampling: ForceSampleSettings = field(default_factory=ForceSampleSettings)
    energy_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if not (math.isfinite(self.energy_weight) and self.energy_weight >= 0.0):
            raise InputError(f"energy_weight must not be negative, got {self.energy_weight}")
