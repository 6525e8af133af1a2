"""GFN2-xTB energies and gradients of one molecule in many geometries (tblite), each started from the last wavefunction.

C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from molflow_sim.errors import MissingDependencyError, NonFiniteError
from molflow_sim.threads import one_openmp_thread
from molflow_sim.units import BOHR, HARTREE

ACCURACY = 30.0
"""tblite's factor on its thresholds: 50 errs by 0.2 meV and 9 meV/Å at most and saves a third to half of the time."""


class GFN2Energy:
    """The energy surface of a neutral closed-shell molecule.

    Parameters
    ----------
    numbers : (N,) array of int
        Atomic numbers.

    Raises
    ------
    MissingDependencyError
        tblite is not installed.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        try:
            from tblite.exceptions import TBLiteRuntimeError, TBLiteValueError
            from tblite.interface import Calculator
        except ImportError as error:
            raise MissingDependencyError("tblite (for GFN2-xTB)", "xtb") from error
        self._errors = (TBLiteRuntimeError, TBLiteValueError)
        self._make, self._numbers = Calculator, np.asarray(numbers)
        self._calculator: Any = None
        self._last: Any = None
        self.evaluations = 0

    def forget(self) -> None:
        """Start the next energy from scratch, so that it does not depend on what was asked for before."""
        self._last = None

    def __call__(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy in eV and its gradient (N, 3) in eV/Å at positions (N, 3) in Å.

        Raises
        ------
        NonFiniteError
            The self-consistent field does not converge, or gives no number.
        """
        self.evaluations += 1
        x = np.ascontiguousarray(positions, float) / BOHR
        try:
            with one_openmp_thread():
                result = self._singlepoint(x)
            energy, gradient = float(result.get("energy")), np.array(result.get("gradient"))
        except self._errors as error:
            self._last = None
            raise NonFiniteError(f"GFN2-xTB has no energy for this geometry: {' '.join(str(error).split())}") from error
        if not np.isfinite(energy) or not np.isfinite(gradient).all():
            self._last = None
            raise NonFiniteError("GFN2-xTB gave an energy or a gradient that is not finite")
        self._last = result
        return energy * HARTREE, gradient * (HARTREE / BOHR)

    def _singlepoint(self, x: np.ndarray) -> Any:
        """tblite's result at positions (N, 3) in bohr."""
        if self._calculator is None:
            self._calculator = self._make("GFN2-xTB", self._numbers, x)
            self._calculator.set("verbosity", 0)
            self._calculator.set("accuracy", ACCURACY)
        else:
            self._calculator.update(x)
        return self._calculator.singlepoint(self._last) if self._last else self._calculator.singlepoint()
