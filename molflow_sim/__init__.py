"""molflow-sim: molecular crystals and clusters from molecules, with one potential behind ASE, OpenMM and torch."""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

try:
    __version__ = version("molflow-sim")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0.0.0"

# Loaded on first use, so that importing the package stays fast.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "systems.molecule": ["Molecule"],
        "systems.crystal": ["MolecularCrystal"],
        "systems.cluster": ["MolecularCluster"],
        "symmetry": ["SpaceGroup"],
        "forcefield": ["CrystalPotential", "parametrize"],
        "generators.generate": ["generate"],
        "training.model": ["load_model"],
        "dataset.train": ["train"],
        "screening": ["screen", "rank", "Landscape"],
    },
)
