"""One physical force field: exp-6 and Ewald between molecules, MMFF94 inside them."""

import lazy_loader

# Loaded on first use: some of it imports torch, and some RDKit.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "charges": ["CHARGE_MODELS", "partial_charges"],
        "exp6": ["EXP6_TYPES", "GUARD_RADIUS", "exp6_parameters", "exp6_types"],
        "mmff": ["MMFFTerms", "extract_mmff"],
        "mmff_energy": ["mmff_energies"],
        "parameters": ["MoleculeParameters", "parametrize"],
        "potential": ["CrystalPotential"],
        "site_potential": ["SitePotential"],
        "sites": ["ChargeSites", "charge_sites"],
    },
)
