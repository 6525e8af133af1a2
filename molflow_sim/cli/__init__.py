"""The command line: ``molflow screen``, ``molflow simulate``, ``molflow doctor``."""

from molflow_sim.cli.main import main

__all__ = ["main"]
