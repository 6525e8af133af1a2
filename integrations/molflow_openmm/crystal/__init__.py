"""Molecular crystals in OpenMM."""
