"""Every error a user can cause, by name.

The command line prints ``str(error)`` and exits with ``error.exit_code``; batch work stores
``error.reason`` (the class name and the message) in the failed row and goes on.
"""

from __future__ import annotations


class MolflowError(Exception):
    """Base of all errors raised on purpose; the message says what, where, and what to do."""

    exit_code = 1

    @property
    def reason(self) -> str:
        """One line for a results table: the error's name and its message."""
        return f"{type(self).__name__}: {' '.join(str(self).split())}"


class InputError(MolflowError):
    """The input cannot be used as given."""

    exit_code = 2


class MoleculeError(InputError):
    """A molecule that cannot be read or built (unparsable SMILES, several components, radicals...)."""


class UnsupportedElementError(MoleculeError):
    """An element (or atom type) that the force field has no parameters for."""


class MoleculeTooLargeError(MoleculeError):
    """A molecule beyond the size this version handles."""


class ConformerError(MoleculeError):
    """No three-dimensional conformer could be made."""


class CrystalError(InputError):
    """A crystal that cannot be read or represented."""


class DisorderedCrystalError(CrystalError):
    """A crystal with disorder or partial occupancies."""


class MissingHydrogensError(CrystalError):
    """A crystal whose hydrogen atoms are missing or incomplete."""


class OverlappingAtomsError(CrystalError):
    """Two atoms closer than any chemical bond allows."""


class ClusterError(InputError):
    """A cluster of molecules that cannot be read or represented."""


class PatternError(InputError):
    """A measured powder pattern that cannot be used: no numbers, another axis, another wavelength."""


class SpaceGroupError(InputError):
    """An unknown space group, or one that cannot host the molecule as asked."""


class RequestError(InputError):
    """A request that a generator cannot serve."""


class PluginError(InputError):
    """Something that another package adds and that cannot be used: it is not importable, or its name is taken."""


class ParameterError(MolflowError):
    """The force field cannot be parametrised for this molecule."""


class NonFiniteError(MolflowError):
    """A NaN or infinity where a number is needed."""


class StoreError(MolflowError):
    """A results folder that belongs to another run, or is damaged."""

    exit_code = 2


class PackingError(MolflowError):
    """Molecules for which no place was found: more of them, or a higher density, than the method can pack."""


class NoCandidatesError(MolflowError):
    """Nothing survived a stage of the screening."""


class MissingDependencyError(MolflowError):
    """A library is not installed; the message holds the install command: of an extra, or of `what` itself without."""

    def __init__(self, what: str, extra: str = "") -> None:
        wanted = f"'molflow-sim[{extra}]'" if extra else what
        super().__init__(f"{what} is not installed; install it with: pip install {wanted}")


class WeightsError(MolflowError):
    """Weights or a model directory that are damaged, changed, or of another kind than asked for."""


class TrainingError(MolflowError):
    """A training that cannot start or go on: too little data, a loss that is not finite, a folder of another run."""


class TrajectoryError(InputError):
    """A trajectory that cannot be used: it does not fit its topology, holds NaN, broken molecules or too few frames."""


class MappingError(InputError):
    """A coarse-grained mapping that selects nothing, bonds nothing or does not fit the topology."""
