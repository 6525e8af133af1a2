"""Clusters of molecules in OpenMM."""
