"""Atomic multipoles and charges from GFN2-xTB (C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652
(2019)), through tblite.

GFN2-xTB's own electrostatics are Mulliken charges with cumulative atomic dipoles and quadrupoles. The charges alone
are poor at a distance; those fitted here to the potential of the whole expansion carry what point charges can.
GFN2-xTB exaggerates C-Br and C-I dipoles (3.7 D for CH3Br, where HF/6-31G* charges give 2.3 D): prefer "hf-esp" there.
"""

from __future__ import annotations

import numpy as np

from molflow_sim.errors import MissingDependencyError, ParameterError
from molflow_sim.threads import one_openmp_thread
from molflow_sim.units import BOHR

_QUADRUPOLE = {"xx": (0, 0), "xy": (0, 1), "yy": (1, 1), "xz": (0, 2), "yz": (1, 2), "zz": (2, 2)}


def gfn2_multipoles(numbers: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """GFN2-xTB's atomic charges, dipoles and quadrupoles of a neutral molecule.

    Parameters
    ----------
    numbers : (N,) array of int
        Atomic numbers.
    positions : (N, 3) array
        Å.

    Returns
    -------
    charges : (N,) array
        Mulliken charges in e.
    dipoles : (N, 3) array
        Atomic dipoles in e·Å.
    quadrupoles : (N, 3, 3) array
        Traceless atomic quadrupoles ``(3 <r r> - <r²> 1)/2`` in e·Å².

    Raises
    ------
    MissingDependencyError
        tblite is not installed.
    ParameterError
        The self-consistent field does not converge, or this tblite gives no atomic multipoles.
    """
    try:
        from tblite.exceptions import TBLiteRuntimeError, TBLiteValueError
        from tblite.interface import Calculator
    except ImportError as error:
        raise MissingDependencyError("tblite (for GFN2-xTB charges)", "xtb") from error
    try:
        calculator = Calculator("GFN2-xTB", np.asarray(numbers), np.asarray(positions) / BOHR)
        calculator.set("verbosity", 0)
        calculator.add("xtbml_xyz")
        with one_openmp_thread():
            result = calculator.singlepoint()
        charges = np.array(result.get("charges"))
        found = result.get("post-processing-dict")
        dipoles = np.stack([found[f"dipm_A_{axis}"] for axis in "xyz"], axis=1)
        quadrupoles = np.zeros((len(charges), 3, 3))
        for name, (i, j) in _QUADRUPOLE.items():
            quadrupoles[:, i, j] = quadrupoles[:, j, i] = found[f"qm_A_{name}"]
    except (TBLiteRuntimeError, TBLiteValueError, KeyError) as error:
        raise ParameterError(
            f"GFN2-xTB gave no atomic multipoles ({error}); use another charge model, for example charges='mmff94'"
        ) from error
    return charges, dipoles * BOHR, quadrupoles * BOHR**2


def multipole_potential(
    positions: np.ndarray, multipoles: tuple[np.ndarray, np.ndarray, np.ndarray], points: np.ndarray
) -> np.ndarray:
    """Potential of atomic charges, dipoles and quadrupoles.

    Parameters
    ----------
    positions : (N, 3) array
        Å.
    multipoles : tuple of arrays
        As from `gfn2_multipoles`.
    points : (M, 3) array
        Å.

    Returns
    -------
    (M,) array
        ``Σ q/R + d·R/R³ + R·Θ·R/R⁵`` in e/Å.
    """
    charges, dipoles, quadrupoles = multipoles
    r = points[:, None] - positions
    inverse = 1 / np.linalg.norm(r, axis=-1)
    return (
        inverse @ charges
        + (np.einsum("mni,ni->mn", r, dipoles) * inverse**3).sum(1)
        + (np.einsum("mni,nij,mnj->mn", r, quadrupoles, r) * inverse**5).sum(1)
    )
