"""Conformer ensembles as `molflow dataset conformers` leaves them; models read them where they lie, `io.ensembles`."""

from molflow_sim.io.ensembles import (
    FORMAT,
    SOURCES,
    SPLITS,
    ConformerEnsemble,
    boltzmann_shares,
    pack_ensembles,
    read_described,
    read_ensembles,
    unpack_described,
    unpack_ensembles,
    write_packed,
)

__all__ = [
    "FORMAT",
    "SOURCES",
    "SPLITS",
    "ConformerEnsemble",
    "boltzmann_shares",
    "pack_ensembles",
    "read_described",
    "read_ensembles",
    "unpack_described",
    "unpack_ensembles",
    "write_packed",
]
