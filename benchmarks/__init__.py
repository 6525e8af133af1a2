"""Figures of the README and the docs: `python -m benchmarks` lists what there is."""
