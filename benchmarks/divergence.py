"""How far generated bond lengths and angles are from those of a simulation: Jensen-Shannon divergences.

Base 2, so that 0 is the same distribution and 1 no overlap. Bonds are classed by their elements and type, angles by the
elements and bond types along them; each class has one histogram of fixed bins for each side, and classes count by how
many bonds or angles they have. Values outside the range count in the first and last bin, so that nothing is lost. The
floor is what two halves of the same simulation give: no sample of the size can be told from the simulation below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rdkit import Chem

BOND_RANGE, BOND_BIN = (1.0, 2.2), 0.01
"""Å."""
ANGLE_RANGE, ANGLE_BIN = (60.0, 180.0), 2.0
"""Degrees."""
DEFINITION = (
    f"JSD base 2; bonds: bins of {BOND_BIN} Å from {BOND_RANGE[0]} to {BOND_RANGE[1]}, classes by elements and bond "
    f"type; angles: bins of {ANGLE_BIN}° from {ANGLE_RANGE[0]} to {ANGLE_RANGE[1]}, classes by elements and bond "
    "types; heavy atoms; mean over classes weighted by their size"
)


@dataclass(frozen=True, eq=False)
class InternalClasses:
    """Bonds and angles of the heavy atoms of a cluster, by class.

    Attributes
    ----------
    bonds : dict of str to ndarray (n, 2)
        Such as "C=C"; ":" for aromatic.
    angles : dict of str to ndarray (n, 3)
        Such as "C-C:C".
    """

    bonds: dict[str, np.ndarray]
    angles: dict[str, np.ndarray]

    @classmethod
    def of(cls, rdmols: Sequence[Chem.Mol], order: Sequence[int] | np.ndarray) -> InternalClasses:
        """Of a cluster of molecules, `order` the species of each, heavy atoms numbered through the cluster."""
        bonds: dict[str, list[tuple[int, ...]]] = {}
        angles: dict[str, list[tuple[int, ...]]] = {}
        first = 0
        for s in order:
            heavy = [a for a in rdmols[s].GetAtoms() if a.GetAtomicNum() > 1]
            place = {a.GetIdx(): first + k for k, a in enumerate(heavy)}
            for b in rdmols[s].GetBonds():
                ends = sorted((b.GetBeginAtom(), b.GetEndAtom()), key=lambda a: str(a.GetSymbol()))
                if all(a.GetIdx() in place for a in ends):
                    name = f"{ends[0].GetSymbol()}{_sign(b)}{ends[1].GetSymbol()}"
                    bonds.setdefault(name, []).append(tuple(place[a.GetIdx()] for a in ends))
            for a in heavy:
                around = [b for b in a.GetBonds() if b.GetOtherAtomIdx(a.GetIdx()) in place]
                for k, b in enumerate(around):
                    for c in around[:k]:
                        arms = [(x.GetOtherAtom(a).GetSymbol(), _sign(x), x) for x in (b, c)]
                        arms.sort(key=lambda arm: arm[:2])
                        (i, u, x), (j, w, y) = arms
                        ids = (x.GetOtherAtomIdx(a.GetIdx()), a.GetIdx(), y.GetOtherAtomIdx(a.GetIdx()))
                        angles.setdefault(f"{i}{u}{a.GetSymbol()}{w}{j}", []).append(tuple(place[n] for n in ids))
            first += len(heavy)
        return cls({k: np.array(v) for k, v in bonds.items()}, {k: np.array(v) for k, v in angles.items()})


def bond_divergence(classes: InternalClasses, found: np.ndarray, reference: np.ndarray) -> float:
    """JSD of bond lengths between two sets of frames (F, N, 3) in Å; NaN without bonds."""
    return _divergence(classes.bonds, bond_lengths, found, reference, BOND_RANGE, BOND_BIN)


def angle_divergence(classes: InternalClasses, found: np.ndarray, reference: np.ndarray) -> float:
    """JSD of bond angles between two sets of frames (F, N, 3) in Å; NaN without angles."""
    return _divergence(classes.angles, bond_angles, found, reference, ANGLE_RANGE, ANGLE_BIN)


def floor(classes: InternalClasses, frames: np.ndarray) -> tuple[float, float]:
    """JSDs of bonds and angles between every other frame (F, N, 3) and the rest."""
    a, b = frames[::2], frames[1::2]
    return bond_divergence(classes, a, b), angle_divergence(classes, a, b)


def bond_lengths(frames: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Å (F, n) in frames (F, N, 3)."""
    return np.linalg.norm(frames[:, bonds[:, 0]] - frames[:, bonds[:, 1]], axis=-1)


def bond_angles(frames: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Degrees (F, n) in frames (F, N, 3), about the middle one of three atoms."""
    i, j, k = (frames[:, angles[:, n]] for n in range(3))
    u, v = i - j, k - j
    cosine = (u * v).sum(-1) / (np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1)).clip(1e-12)
    return np.degrees(np.arccos(cosine.clip(-1.0, 1.0)))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Divergence in bits of two histograms (n,), in any units."""
    p, q = p / p.sum(), q / q.sum()
    m = 0.5 * (p + q)

    def relative(a: np.ndarray) -> float:
        seen = a > 0
        return float((a[seen] * np.log2(a[seen] / m[seen])).sum())

    return 0.5 * relative(p) + 0.5 * relative(q)


def _divergence(
    classes: dict[str, np.ndarray],
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
    found: np.ndarray,
    reference: np.ndarray,
    limits: tuple[float, float],
    width: float,
) -> float:
    edges = np.linspace(limits[0], limits[1], round((limits[1] - limits[0]) / width) + 1)
    values, sizes = [], []
    for atoms in classes.values():
        inside = [measure(x, atoms).clip(limits[0], limits[1] - 1e-9) for x in (found, reference)]
        p, q = (np.histogram(x, edges)[0].astype(float) for x in inside)
        values.append(jensen_shannon(p, q))
        sizes.append(len(atoms))
    return float(np.average(values, weights=sizes)) if values else float("nan")


def _sign(bond: Chem.Bond) -> str:
    return {1.0: "-", 2.0: "=", 3.0: "#", 1.5: ":"}.get(bond.GetBondTypeAsDouble(), "~")
