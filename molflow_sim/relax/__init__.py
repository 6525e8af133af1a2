"""Relaxation with flexible molecules and free cells."""
