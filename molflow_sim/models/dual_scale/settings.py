"""Sizes, priors, paths and sampling of the dual-scale flow, as a dataclass with a YAML form."""

from __future__ import annotations

from dataclasses import dataclass, field

from molflow_sim.coarse.maps import MAPS
from molflow_sim.training.settings import YamlSettings, at_least, one_of, positive


@dataclass(frozen=True)
class ScaleSettings(YamlSettings):
    """Network and prior of one scale.

    Attributes
    ----------
    network : str
        "tfn" or "egnn".
    layers, scalars, vectors, edge_width : int
        Rounds of messages; channels of a point (EGNN has no vectors), of an edge.
    neighbours : int
        Nearest points that a point hears of, besides those within `hops` bonds.
    hops : int
        Bonds up to which points are always joined.
    radial : int
        Functions of a distance.
    reach : float
        Å, centre of the last of them.
    prior : str
        "gaussian" or "harmonic".
    sigma : float
        Å, spread of the prior; 0 for that of the training data.
    bond_length : float
        Å, root mean square length of a bond of the harmonic prior; 0 for that of the training data.
    """

    network: str = "tfn"
    layers: int = 4
    scalars: int = 24
    vectors: int = 8
    edge_width: int = 32
    neighbours: int = 10
    hops: int = 3
    radial: int = 16
    reach: float = 8.0
    prior: str = "gaussian"
    sigma: float = 0.0
    bond_length: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 1, "layers", "scalars", "vectors", "edge_width", "neighbours", "hops")
        at_least(self, 2, "radial")
        at_least(self, 0, "sigma", "bond_length")
        positive(self, "reach")
        one_of(self, network=("tfn", "egnn"), prior=("gaussian", "harmonic"))


@dataclass(frozen=True)
class DualScaleSettings(YamlSettings):
    """Everything that defines a `DualScale` flow besides its weights.

    Attributes
    ----------
    scales : str
        "dual", or "single": atoms alone, from their prior, without beads.
    mapping : str
        Name of a map in `molflow_sim.coarse.maps.MAPS`.
    beads, atoms : ScaleSettings
        Of both scales; those of the beads are not used where there is one scale.
    align : bool
        Rename, exchange and turn the ends of paths so that they lie close to their starts.
    bead_noise : float
        Å, noise on every coordinate of the true beads that the atoms are trained on; 0 as published.
    pair_weight : float
        Weight of the loss of distances within a few bonds; 0 as published.
    self_conditioning : bool
        Give the network its former prediction.
    time_power : float
        p of the times 1 − (1 − u)ᵖ, u even in [0, 1], of training and of the steps of sampling: above 1 there are more
        of them near the end, where bond lengths are decided; 1 as published.
    bead_steps, atom_steps : int
        Euler steps of sampling in either scale.
    velocity : str
        "exact", (x̂₁ − x_t) / (1 − t), or "published", x̂₁ − x₀.
    """

    scales: str = "dual"
    mapping: str = "rings"
    beads: ScaleSettings = field(
        default_factory=lambda: ScaleSettings(scalars=32, vectors=12, neighbours=16, reach=16.0)
    )
    atoms: ScaleSettings = field(default_factory=ScaleSettings)
    align: bool = True
    bead_noise: float = 0.2
    pair_weight: float = 1.0
    self_conditioning: bool = True
    time_power: float = 2.0
    bead_steps: int = 30
    atom_steps: int = 10
    velocity: str = "exact"

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        one_of(self, scales=("dual", "single"), mapping=tuple(MAPS), velocity=("exact", "published"))
        at_least(self, 1, "bead_steps", "atom_steps", "time_power")
        at_least(self, 0, "bead_noise", "pair_weight")

    @classmethod
    def small(cls) -> DualScaleSettings:
        """Networks for tests and small molecules."""
        tiny = ScaleSettings(layers=2, scalars=16, vectors=4, edge_width=16, neighbours=6, radial=8)
        return cls(beads=tiny, atoms=tiny, bead_steps=6, atom_steps=4)
