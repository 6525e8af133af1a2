"""Trained models, one folder each."""
