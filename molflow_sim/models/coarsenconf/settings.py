"""Sizes, decoder, losses and pairs of CoarsenConf, as a dataclass with a YAML form."""

from __future__ import annotations

from dataclasses import dataclass, field

from molflow_sim.errors import InputError
from molflow_sim.training.settings import YamlSettings, at_least, one_of, positive

DECODERS = ("one-pass", "autoregressive")
MATCHINGS = ("random", "nearest", "assigned", "soft")


@dataclass(frozen=True)
class Annealed(YamlSettings):
    """A weight that grows while a network is trained.

    Attributes
    ----------
    first, last : float
        At the first step, and from step `steps` on.
    steps : int
        0 for the last value at once.
    geometric : bool
        Grow by equal factors instead of equal amounts; both ends must be above zero.
    """

    first: float = 0.0
    last: float = 1.0
    steps: int = 0
    geometric: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 0, "first", "last", "steps")
        if self.geometric and min(self.first, self.last) <= 0.0:
            raise InputError("a weight that grows by factors must begin and end above zero")

    def at(self, step: int) -> float:
        """The weight at a step."""
        share = 1.0 if self.steps == 0 else min(1.0, step / self.steps)
        if self.geometric:
            return float(self.first ** (1.0 - share) * self.last**share)
        return self.first + share * (self.last - self.first)


@dataclass(frozen=True)
class CoarsenConfSettings(YamlSettings):
    """Everything that defines a `CoarsenConf` besides its weights.

    Attributes
    ----------
    width : int
        Features of an atom and of a bead (D).
    channels : int
        Vectors of a bead, and of its latent (F).
    encoder_layers, decoder_layers, heads : int
    cutoff, bead_cutoff : float
        Å, within which atoms, and beads, hear of each other.
    hops : int
        Bonds within which atoms do so whatever their distance.
    radial : int
        Functions of a distance.
    dropout : float
    share_inputs, share_layers : bool
        The same encoder weights for the start and the true conformer; for all layers.
    start_mix, feature_mix : float
        η of the encoder: how much of the first coordinates, and of the first features, each layer brings back.
    displacements : bool
        The posterior sees how the atoms of a bead moved, besides both encodings; False is as published.
    turns : bool
        The decoder first turns the start's torsions; False is as published.
    decoder : str
        "one-pass" or "autoregressive" (bead after bead).
    matching : str
        Which true conformer a start is trained to become: "random"; its "nearest" one; "soft", one drawn with weights
        exp(−rmsd² / 2 `softness`²); "assigned", the best one-to-one assignment of all.
    softness : float
        Å, see `matching`.
    reach : float
        Å; a start whose nearest true conformer is r away is drawn with weight exp(−r² / 2 `reach`²), unless the
        matching is random or assigned.
    torsion_share : float
        Share of the starts that are made instead of drawn: a start's bonds and angles with the torsions of the true
        conformer, and noise on them.
    torsion_noise : float
        Degrees; the standard deviation of that noise is drawn between zero and this.
    group : int
        Starts of a molecule that are trained together. Above 1 their ends are assigned by the optimal transport between
        what the network makes of them and the true conformers (eq. 11), whatever the matching.
    mse_weight : float
        Of the squared error of aligned coordinates, Å².
    torsion_weight : float
        Of 1 − cos of the error of torsions, mean over those of a molecule; 0 is as published.
    distance : Annealed
        Weight of (d² − d²_true)², Å⁴, over pairs of one and two bonds.
    kl : Annealed
        Weight of the divergence from posterior to prior.
    free_bits : float
        Nats a bead that are free.
    mean_weight : float
        Weight of the same reconstruction from the prior's mean, without which the decoder waits for the posterior to
        say what the start alone would tell it; 0 is as published.
    """

    width: int = 64
    channels: int = 32
    encoder_layers: int = 2
    decoder_layers: int = 3
    heads: int = 4
    cutoff: float = 4.0
    bead_cutoff: float = 8.0
    hops: int = 3
    radial: int = 16
    dropout: float = 0.1
    share_inputs: bool = True
    share_layers: bool = False
    start_mix: float = 0.25
    feature_mix: float = 0.5
    displacements: bool = True
    turns: bool = True
    decoder: str = "one-pass"
    matching: str = "soft"
    softness: float = 0.2
    reach: float = 0.5
    torsion_share: float = 0.6
    torsion_noise: float = 40.0
    group: int = 1
    mse_weight: float = 2.0
    torsion_weight: float = 0.5
    distance: Annealed = field(default_factory=lambda: Annealed(0.05, 0.5, 2000))
    kl: Annealed = field(default_factory=lambda: Annealed(1e-3, 0.1, 2000, geometric=True))
    free_bits: float = 0.5
    mean_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 1, "width", "channels", "encoder_layers", "decoder_layers", "heads", "hops", "group")
        at_least(self, 2, "radial")
        at_least(self, 0, "mse_weight", "torsion_weight", "mean_weight", "free_bits", "torsion_noise")
        positive(self, "cutoff", "bead_cutoff", "softness", "reach")
        if self.width % self.heads:
            raise InputError(f"heads ({self.heads}) must divide width ({self.width})")
        if not all(0.0 <= getattr(self, name) < 1.0 for name in ("dropout", "start_mix", "feature_mix")):
            raise InputError("dropout, start_mix and feature_mix must lie in [0, 1)")
        if not 0.0 <= self.torsion_share <= 1.0:
            raise InputError(f"torsion_share must lie in [0, 1], got {self.torsion_share}")
        one_of(self, decoder=DECODERS, matching=MATCHINGS)

    @classmethod
    def small(cls) -> CoarsenConfSettings:
        """A network for tests."""
        return cls(width=16, channels=8, encoder_layers=2, decoder_layers=2, heads=2, radial=6, dropout=0.0)
