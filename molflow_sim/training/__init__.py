"""Training of networks: settings, deterministic batches, and one loop with resumable checkpoints."""

import lazy_loader

# Loaded on first use: Lightning takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batches": ["Batches", "TensorBatches"],
        "loop": ["TrainResult", "train"],
        "settings": ["TrainSettings", "YamlSettings"],
        "curves": ["plot_curves"],
    },
)
