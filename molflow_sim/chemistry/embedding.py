"""Numbered embeddings of RDKit's distance geometry: conformer k of a seed is the same however many are asked for.

ETKDGv3: Wang et al., J. Chem. Inf. Model. 60, 2044 (2020); KDG, without torsion preferences: Riniker & Landrum, J.
Chem. Inf. Model. 55, 2562 (2015).
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom

from molflow_sim.chemistry import conformers as conf
from molflow_sim.errors import ConformerError

ATTEMPTS = 30
"""Of the embedding, for each conformer."""
BATCH = 8
"""Conformers embedded at once at first; twice as many after each batch that is whole."""
PATIENCE = 4
"""Conformers, by their numbers, for which all ways of `conformers.embed` are tried: seconds each for a crowded cage."""
TRIALS = 3
"""Embeddings that must fail for a molecule to count as one that needs a way of `conformers.embed`."""

LARGE = 120
"""Atoms up to which an embedding takes about half a second at most."""


def effort(rdmol: Chem.Mol) -> float:
    """Share of the embeddings that a molecule gets: their time goes with the cube of its atoms."""
    return min(1.0, (LARGE / rdmol.GetNumAtoms()) ** 3)


def embedded(
    rdmol: Chem.Mol, n: int, seed: int, first_index: int = 0, torsion_preferences: bool = True
) -> list[np.ndarray | None]:
    """Embeddings `first_index` to `first_index` + n - 1 of a seed.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Explicit hydrogens.
    n : int
    seed : int
    first_index : int
    torsion_preferences : bool
        ETKDGv3; without, or where it embeds nothing, KDG.

    Returns
    -------
    list of ndarray (N, 3) or None
        Å; None where neither the usual nor random starting coordinates embed, nor, for the first `PATIENCE`, any way of
        `conformers.embed`, or none shows the stereochemistry of `rdmol`.
    """
    start = int(np.random.SeedSequence(seed).generate_state(1)[0] // 8) + first_index
    found: list[np.ndarray | None] = [None] * n
    preferences = _way(rdmol.ToBinary(Chem.PropertyPickleOptions.AllProps), torsion_preferences)
    if preferences is not None:
        found = _right(rdmol, _from(rdmol, n, start, preferences, False))
    for k in range(n):
        if preferences is not None and found[k] is None:
            found[k] = _right(rdmol, _from(rdmol, 1, start + k, preferences, True))[0]
        if found[k] is None and first_index + k < PATIENCE:  # cages and others that embed by many attempts only
            with suppress(ConformerError):
                found[k] = _right(rdmol, [conf.embed(rdmol, 1, start + k).GetConformer().GetPositions()])[0]
    return found


@lru_cache(maxsize=16)
def _way(binary: bytes, preferences: bool) -> bool | None:
    """The torsion preferences with which one of a few embeddings succeeds: those asked for, else none, else None."""
    rdmol = Chem.Mol(binary)  # type: ignore[call-overload]
    for way in (preferences, False):
        if any(_from(rdmol, 1, k + 1, way, random)[0] is not None for k in range(TRIALS) for random in (False, True)):
            return way
    return None


def _right(rdmol: Chem.Mol, found: list[np.ndarray | None]) -> list[np.ndarray | None]:
    """Without those that show another stereoisomer."""
    there = [x for x in found if x is not None]
    kept = iter(conf.keeps_stereo(rdmol, np.array(there)) if there else ())
    return [x if x is not None and next(kept) else None for x in found]


def _from(rdmol: Chem.Mol, n: int, start: int, preferences: bool, random: bool) -> list[np.ndarray | None]:
    parameters = conf.embedding_parameters(start, preferences, random, ATTEMPTS)
    parameters.enableSequentialRandomSeeds = True  # conformer k is that of the seed start + k
    mol = Chem.Mol(rdmol)
    found: list[np.ndarray | None] = []
    size, growth = BATCH, 2
    while len(found) < n:
        size = min(size, n - len(found))
        parameters.randomSeed = start + len(found)
        with rdBase.BlockLogs():
            rdDistGeom.EmbedMultipleConfs(mol, size, parameters)
        made = [c.GetPositions() for c in mol.GetConformers()]
        if len(made) == size or size == 1:
            found += made or [None]
            size *= growth
        else:  # which ones failed RDKit does not tell: from here on each by itself
            size = growth = 1
    return found
