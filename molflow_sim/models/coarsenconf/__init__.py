"""CoarsenConf: a hierarchical variational autoencoder that distorts RDKit's conformers into low-energy ones."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "model": ["CoarsenConf"],
        "settings": ["CoarsenConfSettings"],
        "data": ["ConformerPairs", "read_pairs"],
        "train": ["CoarsenConfConfig", "train_coarsenconf"],
    },
)
