"""What a run of a cluster is: its settings and their checks."""

from __future__ import annotations

from dataclasses import dataclass

from molflow_openmm.crystal.settings import DEFAULT_CUTOFF, RunSettings, check_positive


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(RunSettings):
    """Settings of a run of a cluster: those of `RunSettings` and

    Attributes
    ----------
    density : float or None
        g/cm³; the cluster is put into a periodic cube and pressed together to this density before the run. None: a
        droplet stays one, and a box keeps its density.
    press_pressure : float
        bar; of the pressing.
    press_ps : float
        ps; the pressing fails if the density is not there by then.
    """

    picoseconds: float = 100.0
    timestep: float = 2.0
    report_every: float = 1.0
    constrain_hydrogens: bool = True
    density: float | None = None
    press_pressure: float = 1000.0
    press_ps: float = 500.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "density", "press_pressure", "press_ps")

    @property
    def box_cutoff(self) -> float:
        """Cutoff in a periodic box, Å."""
        return self.cutoff if self.cutoff is not None else DEFAULT_CUTOFF
