"""Energies that rank: parts by name, means of them, and the potential that belongs to them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"models": ["energy_model"], "ensemble": ["EnsemblePotential", "best_potential"]}
)
