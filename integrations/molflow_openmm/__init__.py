"""OpenMM front end: crystals and coarse-grained molecules of `molflow_sim` as ordinary Systems, and runs of them."""

import lazy_loader

# Loaded on first use: openmm-ml imports this package wherever it is installed, whatever its user is going to do.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cg.forcefield": ["CGForceField"],
        "crystal.settings": ["SimulationSettings"],
        "cg.topology": ["bead_topology"],
        "cluster.settings": ["ClusterSettings"],
        "cluster.simulate": ["simulate_cluster"],
        "cluster.system": ["clusterSystem"],
        "crystal.system": ["crystalSystem"],
        "cg.torch": ["export_torchscript"],
        "cg.simulate": ["simulate_cg"],
        "crystal.simulate": ["simulate"],
    },
)
