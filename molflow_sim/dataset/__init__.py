"""Data sets of low-energy crystal packings: made with the project's own search, read with NumPy alone."""

import lazy_loader

# Loaded on first use: machines that train read data sets without any chemistry library.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "build": ["build_crystal_dataset", "BuildSummary"],
        "settings": ["DatasetSettings"],
        "reader": ["CrystalDataset", "CrystalRecord"],
        "sources": ["TrainingSource", "training_source"],
    },
)
