"""Data sets of crystal packings, clusters and conformers: our own, read with NumPy alone."""

import lazy_loader

# Loaded on first use: machines that train read data sets without any chemistry library.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "build": ["build_crystal_dataset", "BuildSummary"],
        "conformer_build": ["ConformerSummary", "build_conformer_dataset"],
        "conformer_settings": ["ConformerSettings"],
        "conformers": ["ConformerEnsemble", "read_ensembles"],
        "settings": ["DatasetSettings"],
        "reader": ["CrystalDataset", "CrystalRecord"],
        "sources": ["TrainingSource", "training_source"],
    },
)
