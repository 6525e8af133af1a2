"""Units used inside: Å, eV, e, amu, K, fs (ASE's choice). Constants from CODATA 2018.

Multiply by a constant to come in, divide to go out: ``e_eV = e_kj * KJ_PER_MOL``.
"""

from __future__ import annotations

KJ_PER_MOL = 1.0 / 96.48533212331
"""1 kJ/mol in eV."""
KCAL_PER_MOL = 4.184 * KJ_PER_MOL
"""1 kcal/mol in eV."""
COULOMB = 14.399645478425668
"""e²/(4πε₀) in eV·Å."""
BOLTZMANN = 8.617333262e-5
"""Boltzmann's constant in eV/K."""
GPA = 1.0 / 160.21766339999998
"""1 GPa in eV/Å³."""
BOHR = 0.529177210903
"""1 bohr in Å."""
AMU_PER_A3 = 1.66053906660
"""1 amu/Å³ in g/cm³."""
