"""Screening: from a molecule to a ranked landscape of crystal structures."""

import lazy_loader

# Loaded on first use: the command line must answer --help at once.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "pipeline": ["screen"],
        "given": ["rank", "Ranking"],
        "clusters": ["rank_clusters", "ClusterRanking"],
        "landscape": ["Landscape", "LandscapeEntry", "ReferenceMatch"],
        "settings": ["ScreenSettings"],
        "stages": ["Stages"],
    },
)
