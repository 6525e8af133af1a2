"""Cluster flow: loose molecules move to where they stand in a crystal, one by one or as rigid bodies."""

import lazy_loader

# The training path has no RDKit; the generator is loaded when it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "model": ["ClusterFlow"],
        "settings": ["ClusterFlowSettings"],
        "train": ["ClusterFlowConfig", "train_cluster_flow"],
    },
)
