"""Conformer ensembles as `molflow dataset conformers` leaves them; what reads and writes them is in `io.ensembles`."""

from molflow_sim.io.ensembles import ConformerEnsemble, read_ensembles

__all__ = ["ConformerEnsemble", "read_ensembles"]
