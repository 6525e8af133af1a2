"""Space groups, site symmetry and molecular point groups."""

from molflow_sim.symmetry.spacegroup import SpaceGroup, cell_matrix, cell_parameters

__all__ = ["SpaceGroup", "cell_matrix", "cell_parameters"]
