"""The crystal flow: symmetric packings of rigid, all-atom molecules; `mol_crystal_flow` is the one in P 1."""

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
