"""Molecules and molecular crystals."""
