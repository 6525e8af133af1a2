"""Sizes, path and sampling of the cluster flow, as a dataclass with a YAML form."""

from __future__ import annotations

from dataclasses import dataclass

from molflow_sim.errors import InputError
from molflow_sim.training.settings import YamlSettings, at_least, one_of, positive

VARIANTS = ("rigid", "lerp", "ve", "vp", "gnn-md")
"""What moves: rigid molecules from loose starts; or atoms, as published, by three paths or in one step."""


@dataclass(frozen=True)
class ClusterFlowSettings(YamlSettings):
    """Everything that defines a `ClusterFlow` besides its weights.

    Attributes
    ----------
    variant : str
        ``rigid``: each molecule is moved by the force and torque read from its atoms' vectors, from starts at random in
        a sphere, with molecules assigned to their ends. ``lerp``, ``ve``, ``vp``, ``gnn-md``: atoms move by themselves
        from the data's starts, as published.
    width, layers, radial : int
        Of the network: scalars (and vectors) of a point, rounds of messages, radial functions.
    cutoff : float
        Å, between atoms.
    centre_cutoff : float
        Å, between centres of molecules.
    density : float
        g/cm³ of the sphere of the rigid variant's starts.
    tolerance : float
        Å between atoms of different molecules there.
    turns : int
        Orientations of the whole target that the rigid variant's assignment tries, besides its own.
    sigma_min : float
        Å, width of LERP's path at its end.
    ve_min, ve_max : float
        Å, least and largest σ of VE, which grows geometrically.
    vp_scale : float
        Å, standard deviation of VP's prior.
    beta_min, beta_max : float
        Of VP's linear noise schedule.
    steps : int
        Euler steps of sampling.
    """

    variant: str = "rigid"
    width: int = 48
    layers: int = 3
    radial: int = 16
    cutoff: float = 5.0
    centre_cutoff: float = 30.0
    density: float = 0.5
    tolerance: float = 2.0
    turns: int = 11
    sigma_min: float = 0.1
    ve_min: float = 0.05
    ve_max: float = 5.0
    vp_scale: float = 10.0
    beta_min: float = 0.1
    beta_max: float = 20.0
    steps: int = 25

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        one_of(self, variant=VARIANTS)
        at_least(self, 1, "width", "layers", "steps")
        at_least(self, 2, "radial")
        at_least(self, 0, "turns")
        positive(self, "cutoff", "centre_cutoff", "density", "tolerance", "sigma_min", "ve_min", "vp_scale")
        if not (self.ve_max > self.ve_min and self.beta_max >= self.beta_min >= 0.0):
            raise InputError("ve_max must exceed ve_min, and beta_max be at least beta_min")

    @classmethod
    def small(cls) -> ClusterFlowSettings:
        """A network for tests."""
        return cls(width=12, layers=2, radial=6, turns=2, steps=4)
