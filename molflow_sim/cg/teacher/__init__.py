"""The teacher of a coarse-grained force field: a normalizing flow, its fit to frames, and samples with forces."""

import lazy_loader

# Loaded on first use: internal coordinates need none of the flow's libraries.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "flow": ["BeadFlow"],
        "forces": ["ForceSampleSettings", "ForceSamples", "mean_forces", "sample_with_forces"],
        "settings": ["TeacherSettings"],
        "training": ["fit_teacher", "teacher_training"],
    },
)
