"""Which molecules are the same but for stereochemistry and tautomerism, and on which side of the split they fall."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Container, Iterable, Sequence
from functools import lru_cache

from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

TEST_SHARE = 5
"""One skeleton in this many is never trained on (80:20)."""
VALIDATION_SHARE = 9
"""Of the molecules that are not on the test side, one in this many is for validation, where there is such a side."""
MAX_TAUTOMERS = 200
"""Tautomers enumerated at most for a molecule; RDKit's 1000 can take minutes."""


def skeletons(rdmol: Chem.Mol) -> tuple[str, ...]:
    """First blocks of the InChIKeys of a molecule and of its canonical tautomer, the latter first.

    The first block does not depend on stereochemistry, and standard InChI merges tautomers that differ by a mobile
    hydrogen between heteroatoms; RDKit's canonical tautomer adds the others (keto and enol among them).

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Hydrogens may be explicit.

    Returns
    -------
    tuple of str
        One or two; a digest of the SMILES where InChI has no key.
    """
    with rdBase.BlockLogs():
        bare = Chem.RemoveHs(rdmol)
        own = _first_block(bare)
        try:
            canonical = _first_block(_enumerator().Canonicalize(bare))
        except (RuntimeError, ValueError):  # some molecules cannot be kekulised after a hydrogen shift
            canonical = own
    return (canonical,) if canonical == own else (canonical, own)


def skeletons_of_smiles(smiles: Iterable[str]) -> dict[str, str]:
    """Skeleton -> SMILES of all molecules that RDKit can read; the rest is ignored, as it equals nothing."""
    found: dict[str, str] = {}
    for text in smiles:
        with rdBase.BlockLogs():
            rdmol = Chem.MolFromSmiles(text)
        if rdmol is not None:
            for block in skeletons(rdmol):
                found.setdefault(block, text)
    return found


def split_of(skeleton: str) -> str:
    """``"train"`` or ``"test"``, decided by a hash of the skeleton: the same in every data set and session."""
    digest = hashlib.sha256(f"split:{skeleton}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % TEST_SHARE == 0 else "train"


def split_of_skeletons(blocks: Sequence[str], excluded: Container[str] = ()) -> str:
    """The side of a molecule given by `skeletons`: the one rule for packings, experimental crystals and benchmarks.

    Parameters
    ----------
    blocks : sequence of str
        What `skeletons` returns.
    excluded : container of str
        Skeletons that are never trained on; a molecule with one of them is ``"test"`` whatever its hash.
    """
    return "test" if any(block in excluded for block in blocks) else split_of(blocks[0])


def three_way_split(blocks: Sequence[str], excluded: Container[str] = ()) -> str:
    """``train``, ``validation`` or ``test``; the test side is that of `split_of_skeletons`."""
    if split_of_skeletons(blocks, excluded) == "test":
        return "test"
    return "validation" if zlib.crc32(f"validation:{blocks[0]}".encode()) % VALIDATION_SHARE == 0 else "train"


def split_of_molecule(rdmol: Chem.Mol, excluded: Container[str] = ()) -> str:
    """`split_of_skeletons` of an RDKit molecule."""
    return split_of_skeletons(skeletons(rdmol), excluded)


def _first_block(rdmol: Chem.Mol) -> str:
    key = Chem.MolToInchiKey(rdmol).split("-")[0]
    if key:
        return str(key)
    return hashlib.sha256(Chem.MolToSmiles(rdmol, isomericSmiles=False).encode()).hexdigest()[:14].upper()


@lru_cache(maxsize=1)
def _enumerator() -> rdMolStandardize.TautomerEnumerator:
    enumerator = rdMolStandardize.TautomerEnumerator()
    enumerator.SetMaxTautomers(MAX_TAUTOMERS)
    return enumerator
