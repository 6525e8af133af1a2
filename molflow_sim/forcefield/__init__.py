"""One physical force field: exp-6 and Ewald between molecules, MMFF94 inside them."""

import lazy_loader

from molflow_sim.forcefield.charges import CHARGE_MODELS, partial_charges
from molflow_sim.forcefield.exp6 import EXP6_TYPES, GUARD_RADIUS, exp6_parameters, exp6_types
from molflow_sim.forcefield.mmff import MMFFTerms, extract_mmff
from molflow_sim.forcefield.parameters import MoleculeParameters, parametrize

# Modules that import torch: loaded on first use.
__getattr__, _, _ = lazy_loader.attach(
    __name__, submod_attrs={"potential": ["CrystalPotential"], "mmff_energy": ["mmff_energies"]}
)

__all__ = [
    "CHARGE_MODELS",
    "EXP6_TYPES",
    "GUARD_RADIUS",
    "CrystalPotential",
    "MMFFTerms",
    "MoleculeParameters",
    "exp6_parameters",
    "exp6_types",
    "extract_mmff",
    "mmff_energies",
    "parametrize",
    "partial_charges",
]
