"""Units used inside: Å, eV, e, amu, K, fs (ASE's choice). Constants from CODATA 2018.

Multiply by a constant to come in, divide to go out: ``e_eV = e_kj * KJ_PER_MOL``.
"""

from __future__ import annotations

from molflow_sim.errors import InputError

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
HARTREE = 27.211386245988
"""1 hartree in eV."""
HBAR = 0.06465415130134
"""ħ in eV·Å·(amu/eV)^½: times ω in (eV/amu)^½/Å it is an energy in eV."""
INVERSE_CM = 1.2398419843320026e-4
"""1 cm⁻¹ in eV (hc)."""
AMU_PER_A3 = 1.66053906660
"""1 amu/Å³ in g/cm³."""


def thermal_energy(temperature: float) -> float:
    """kT in eV of a temperature in K.

    Raises
    ------
    InputError
        A temperature that is not positive and finite.
    """
    if not 0.0 < temperature < float("inf"):
        raise InputError(f"the temperature must be above 0 K and finite, not {temperature} K")
    return BOLTZMANN * temperature
