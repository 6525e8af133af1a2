"""Settings of the teacher."""

from __future__ import annotations

from dataclasses import dataclass

from molflow_sim.errors import InputError
from molflow_sim.training.settings import YamlSettings, at_least, positive


@dataclass(frozen=True)
class TeacherSettings(YamlSettings):
    """Architecture of the flow.

    The defaults were chosen by the likelihood of held-out frames of capped alanine, fitted to 1,000 to 9,000 frames.

    Attributes
    ----------
    n_augmentations : int
        Augmented Gaussian coordinates η; with 0 the density is exact and there is no bound to tighten.
    n_blocks : int
        How often torsions and η are updated in turn.
    hidden, local_hidden : tuple of int
        Hidden layers of the conditioners of torsions and augmentation, and of those of bonds and angles, whose weak
        dependence on the rest a wide network learns by heart when frames are few.
    harmonics : int
        Highest multiple of a torsion that conditioners see (sine and cosine).
    torsion_components, angle_components, bond_components : int
        Bumps of each mixture (η uses the torsions' number).
    sharpness : float
        α of the ramps.
    least_width : float
        Least width of a bump, as a share of the circle or interval.
    floor : float
        Share of the uniform density in every mixture.
    tail_scale : float
        Width of the normal distribution of step 1 over the standard deviation of the data.
    min_frames : int
        Fewest frames to fit to.
    """

    n_augmentations: int = 2
    n_blocks: int = 2
    hidden: tuple[int, ...] = (64, 128, 64)
    local_hidden: tuple[int, ...] = (32, 32)
    harmonics: int = 2
    torsion_components: int = 10
    angle_components: int = 5
    bond_components: int = 5
    sharpness: float = 1.0
    least_width: float = 0.05
    floor: float = 1e-4
    tail_scale: float = 1.5
    min_frames: int = 100

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 1, "n_blocks", "harmonics", "torsion_components", "angle_components", "bond_components")
        at_least(self, 0, "n_augmentations")
        at_least(self, 2, "min_frames")
        positive(self, "sharpness", "tail_scale")
        if not all(size >= 1 for size in (*self.hidden, *self.local_hidden)):
            raise InputError(f"hidden layers need at least one unit, got {self.hidden} and {self.local_hidden}")
        if not 0.0 < self.least_width < 1.0 or not 0.0 < self.floor < 1.0:
            raise InputError("least_width and floor must lie between 0 and 1")
