"""Per-element parameters of the intermolecular exp-6 potential (the "FIT" set and its extension).

Two atoms of different molecules at distance r repel and attract with

    E(r) = A exp(-B r) - C/r⁶ + C g⁶/r¹²,   g = 1.1 Å,
    A = sqrt(A_i A_j),  B = (B_i + B_j)/2,  C = sqrt(C_i C_j).

The last term is a guard: bare exp-6 falls to minus infinity below about 1 Å. It moves no like-pair minimum by more
than 0.01 Å, and with it every pair of types repels monotonically from the minimum inwards.

Like pairs, with the guard: distance and depth of the minimum, against twice the van der Waals radius
(Bondi, J. Phys. Chem. 68, 441 (1964); H 1.20; B: Mantina et al., J. Phys. Chem. A 113, 5806 (2009)).

    =======  =========  ===========  =========  ==========================================================
    type     r_min / Å  ε / kJ/mol   2 R / Å    source
    =======  =========  ===========  =========  ==========================================================
    C        3.90       0.40         3.40       FIT [1]
    HC       3.31       0.05         2.40       FIT [1]; hydrogen on anything but N and O
    HX       2.49       0.04         2.40       FIT [2]; hydrogen on N or O
    N        3.66       0.32         3.10       FIT [1]
    O        3.41       0.40         3.04       FIT [3]
    F        3.46       0.29         2.94       FIT [4]
    S        4.09       0.69         3.60       FIT as distributed for blind tests [6]
    Cl       3.95       1.16         3.50       FIT [5]
    Br       4.12       1.85         3.70       isotropic part of an anisotropic set [6]
    I        4.54       1.09         3.96       isotropic part of an anisotropic set [6]
    B        4.41       0.31         3.84       derived here (below)
    Si       4.82       0.53         4.20       derived here (below)
    P        4.13       1.14         3.60       derived here (below)
    =======  =========  ===========  =========  ==========================================================

[1] D. E. Williams, S. R. Cox, Acta Cryst. B40, 404 (1984).
[2] D. S. Coombes, S. L. Price, D. J. Willock, M. Leslie, J. Phys. Chem. 100, 7352 (1996): H on N. Used here for H on O
    too.
[3] S. R. Cox, L.-Y. Hsu, D. E. Williams, Acta Cryst. A37, 293 (1981).
[4] D. E. Williams, D. J. Houpt, Acta Cryst. B42, 286 (1986).
[5] L.-Y. Hsu, D. E. Williams, Acta Cryst. A36, 277 (1980).
[6] Parameter files `fit.pots` (S) and `Day_halobenzenes.pots` (Br, I) distributed with mol-CSPy. Br and I have there
    a repulsion that is weaker along the C-X bond; only its isotropic part is used, so short halogen bonds come out too
    long.

Hydrogen on S, P, Si or B is given the parameters of hydrogen on C: it carries little charge, and no published set
distinguishes it; HX would let it come 0.8 Å too close to its neighbours.

B, Si and P have no published FIT parameters. They are derived from the six heavy elements of the FIT set (C, N, O, F,
S, Cl) by one rule, so that they sit on the same scale: the like-pair minimum of the bare exp-6 is 1.148 times
2 R (their mean ratio; 1.12 to 1.18), the steepness B r_min is 13.85 (their mean; 13.5 to 14.4) and C is 1.284 times
the DFT-D2 coefficient (their geometric mean; 1.04 to 1.61; S. Grimme, J. Comput. Chem. 27, 1787 (2006)). Then
``A = 6 C exp(B r_min)/(B r_min⁷)`` follows from dE/dr = 0. Expect them to be rougher than the fitted ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from molflow_sim.errors import UnsupportedElementError
from molflow_sim.units import KJ_PER_MOL

GUARD_RADIUS = 1.1
"""g in Å of the guard term C g⁶/r¹²."""


@dataclass(frozen=True)
class Exp6Type:
    """Parameters of a like pair: `a` in kJ/mol, `b` in 1/Å, `c` in kJ/mol·Å⁶; `radius` (van der Waals) in Å."""

    a: float
    b: float
    c: float
    radius: float


@dataclass(frozen=True)
class _Rule:
    """The rule for elements without published parameters; see the module's docstring."""

    distance_ratio: float = 1.148
    steepness: float = 13.85
    dispersion_ratio: float = 1.284

    def derive(self, radius: float, c6: float) -> Exp6Type:
        """Parameters from the van der Waals radius in Å and DFT-D2's C6 in kJ/mol·Å⁶."""
        r_min, c = 2 * radius * self.distance_ratio, c6 * self.dispersion_ratio
        b = self.steepness / r_min
        return Exp6Type(6 * c * np.exp(self.steepness) / (b * r_min**7), b, c, radius)


_EV = 1 / KJ_PER_MOL  # the files of [6] are in eV

EXP6_TYPES: dict[str, Exp6Type] = {
    "C": Exp6Type(369743.0, 3.60, 2439.8, 1.70),
    "HC": Exp6Type(11971.0, 3.74, 136.4, 1.20),
    "HX": Exp6Type(5029.68, 4.66, 21.50, 1.20),
    "N": Exp6Type(254529.0, 3.78, 1378.4, 1.55),
    "O": Exp6Type(230064.0, 3.96, 1123.59, 1.52),
    "F": Exp6Type(363725.0, 4.16, 844.0, 1.47),
    "S": Exp6Type(401034.0, 3.30, 5791.0, 1.80),
    "Cl": Exp6Type(924675.0, 3.51, 7740.48, 1.75),
    "Br": Exp6Type(12272.87868 * _EV, 3.30, 168.4782 * _EV, 1.85),
    "I": Exp6Type(13072.69 * _EV, 1 / 0.318249, 172.3809 * _EV, 1.98),
    "B": _Rule().derive(1.92, 3130.0),
    "Si": _Rule().derive(2.10, 9230.0),
    "P": _Rule().derive(1.80, 7840.0),
}
"""Parameters by type; "HX" is hydrogen on nitrogen or oxygen, "HC" any other hydrogen."""


def exp6_types(rdmol: Chem.Mol) -> list[str]:
    """Exp-6 type of each atom (keys of `EXP6_TYPES`).

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Molecule with explicit hydrogens.

    Returns
    -------
    list of str
        N names.

    Raises
    ------
    UnsupportedElementError
        An element without parameters.
    """
    names = []
    for atom in rdmol.GetAtoms():
        name = atom.GetSymbol()
        if name == "H":
            name = "HX" if any(b.GetAtomicNum() in (7, 8) for b in atom.GetNeighbors()) else "HC"
        names.append(name)
    unknown = sorted(set(names) - set(EXP6_TYPES))
    if unknown:
        raise UnsupportedElementError(
            f"no intermolecular parameters for {', '.join(unknown)}; "
            "supported elements: H, B, C, N, O, F, Si, P, S, Cl, Br, I"
        )
    return names


def exp6_parameters(rdmol: Chem.Mol) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exp-6 parameters of every atom.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Molecule with explicit hydrogens.

    Returns
    -------
    a, b, c : (N,) arrays
        A in eV, B in 1/Å, C in eV·Å⁶ of the like pairs.

    Raises
    ------
    UnsupportedElementError
        An element without parameters.
    """
    types = [EXP6_TYPES[name] for name in exp6_types(rdmol)]
    a, b, c = (np.array([getattr(t, field) for t in types], dtype=float) for field in ("a", "b", "c"))
    return a * KJ_PER_MOL, b, c * KJ_PER_MOL
