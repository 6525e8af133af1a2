"""Flows that generate molecular crystals, symmetric and all-atom; the published P1 model is in `p1`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "network": ["ContactNetwork", "ContactSettings"],
        "state": ["CrystalBatch"],
        "model": ["CrystalFlow"],
        "config": ["CrystalFlowConfig"],
        "pairs": ["PairBatches", "PairSet", "make_pairs"],
        "train": ["train_crystal_flow", "train_on_pairs"],
    },
)
