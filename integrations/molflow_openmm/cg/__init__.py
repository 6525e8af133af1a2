"""Coarse-grained force fields in OpenMM."""
