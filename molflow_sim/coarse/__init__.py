"""Atoms to beads: topologies of beads, bonds between them, and the beads of whole molecules."""

import lazy_loader

# Loaded on first use: reading a molecule takes RDKit, a topology does not.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "topology": ["BeadTopology", "backbone_topology"],
        "contraction": ["contracted_bonds"],
        "beads": ["MoleculeBeads"],
        "maps": ["MAPS", "bead_map", "ring_beads", "rotatable_bonds", "torsion_beads"],
        "features": ["GraphFeatures", "atom_features", "bead_features"],
    },
)
