"""Molecules, molecular crystals and clusters."""
