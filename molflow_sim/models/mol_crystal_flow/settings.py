"""Sizes, path and sampling of the P 1 flow, as a dataclass with a YAML form."""

from __future__ import annotations

from dataclasses import dataclass, replace

from molflow_sim.errors import InputError
from molflow_sim.training.settings import YamlSettings, at_least, positive


@dataclass(frozen=True)
class P1Settings(YamlSettings):
    """Everything that defines a `MolCrystalFlow` besides its weights.

    The defaults of the prior are what Niggli cells of 113 organic crystals from the Crystallography Open Database have.

    Attributes
    ----------
    embedder_layers, embedder_width : int
        EGNN over the atoms of a molecule.
    embedder_cutoff : float
        Å.
    body_tensors : int
        Vectors and quadrupoles of the body that the embedder hands to the network in the body frame; 0 for invariants
        alone, as published.
    layers, width, frequencies, time_width : int
        Of the network over molecules: message-passing layers, features, Fourier frequencies, time embedding.
    radial : int
        Radial functions of the Cartesian directions between molecules; 0 hides them.
    image_cutoff : float
        Å, reach of those directions.
    images : int
        Lattice translations up to this many along each axis are looked at; in thin cells the reach shrinks to them.
    centroid_weight, rotation_weight, lattice_weight : float
        Of the three terms of the loss (fractional units, radians, Å).
    min_time : float
        Training times are drawn from [min_time, 1 − min_time], and sampling starts at min_time.
    length_mean, length_std : tuple of 3 floats
        Of the logarithms of the prior's cell lengths, in Å, or in units of V^(1/3) with `volume_prior`.
    volume_prior : bool
        Scale the prior's cells to the volume that the molecules take in crystals.
    volume_std : float
        Spread of the logarithm of that volume.
    optimal_transport : bool
        Couple prior and data by optimal transport among molecules of one species and hand.
    align_origin : bool
        Choose the free origin of P 1 in the coupling as well.
    mirror_images : bool
        Train on each crystal and its mirror image in equal parts.
    steps : int
        Euler steps of sampling.
    centroid_scale, rotation_scale : float
        s of the velocities' time scaling 1 + s t.
    racemic_share : float
        How often samples hold both hands in equal parts, where both are allowed.
    """

    embedder_layers: int = 6
    embedder_width: int = 64
    embedder_cutoff: float = 6.0
    body_tensors: int = 8
    layers: int = 6
    width: int = 256
    frequencies: int = 32
    time_width: int = 128
    radial: int = 8
    image_cutoff: float = 14.0
    images: int = 2
    centroid_weight: float = 2.0
    rotation_weight: float = 1.0
    lattice_weight: float = 0.1
    min_time: float = 0.01
    length_mean: tuple[float, float, float] = (-0.40, 0.00, 0.40)
    length_std: tuple[float, float, float] = (0.25, 0.16, 0.25)
    volume_prior: bool = True
    volume_std: float = 0.07
    optimal_transport: bool = True
    align_origin: bool = True
    mirror_images: bool = True
    steps: int = 50
    centroid_scale: float = 9.0
    rotation_scale: float = 3.0
    racemic_share: float = 0.8

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        sizes = ("embedder_layers", "embedder_width", "layers", "width", "frequencies", "time_width", "steps", "images")
        weights = ("centroid_weight", "rotation_weight", "lattice_weight")
        at_least(self, 1, *sizes)
        at_least(self, 0, "body_tensors", "radial", "centroid_scale", "rotation_scale", "volume_std", *weights)
        positive(self, "embedder_cutoff", "image_cutoff")
        for name in ("length_mean", "length_std"):
            values = getattr(self, name)
            if len(values) != 3:
                raise InputError(f"{name} must hold three numbers, got {values!r}")
            object.__setattr__(self, name, tuple(float(v) for v in values))
        if not 0.0 <= self.min_time < 0.5:
            raise InputError(f"min_time must lie in [0, 0.5), got {self.min_time}")
        if not 0.0 <= self.racemic_share <= 1.0:
            raise InputError(f"racemic_share must lie in [0, 1], got {self.racemic_share}")
        if not min(self.length_std) >= 0:
            raise InputError(f"length_std must not be negative, got {self.length_std}")

    @classmethod
    def published(cls) -> P1Settings:
        """As published (MolCrystalFlow, arXiv:2602.16020): sizes, loss weights, prior and sampling.

        The prior's lengths are those of the authors' larger training set, in Å; their optimiser was AdamW at 1e-4 with
        weight decay 0.01, batches of 128 and gradients clipped at 0.5. What differs on purpose is written in
        `MolCrystalFlow`.
        """
        return cls(
            body_tensors=0, volume_prior=False, align_origin=False, mirror_images=False,
            length_mean=(1.910, 2.218, 2.543), length_std=(0.217, 0.162, 0.225),
        )  # fmt: skip

    @classmethod
    def small(cls) -> P1Settings:
        """A network that trains on a CPU within minutes to hours."""
        return replace(
            cls(), embedder_layers=3, embedder_width=32, layers=4, width=96, frequencies=16, time_width=32, images=1
        )
