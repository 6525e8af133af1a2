"""Dual-scale flow matching of molecular clusters: beads first, then atoms around them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "model": ["DualScale"],
        "settings": ["DualScaleSettings", "ScaleSettings"],
        "data": ["ClusterFrames", "read_frames"],
        "train": ["DualScaleConfig", "train_dual_scale"],
    },
)
