"""Molecules with true conformers and RDKit's starts, as the network reads them. An archive needs NumPy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim.errors import ConformerError, MolflowError, StoreError
from molflow_sim.io.ensembles import ConformerEnsemble, read_ensembles
from molflow_sim.models.coarsenconf.graphs import ConformerGraph, conformer_graph, heavy_atoms
from molflow_sim.models.coarsenconf.matching import Match, match
from molflow_sim.runs.files import sha256, write_bytes_atomically
from molflow_sim.runs.store import pack_arrays, unpack_format

FILE = "pairs/conformer_pairs.npz"
"""The archive in a folder of ensembles."""
FORMAT = 1
CHUNK = 50
"""Molecules prepared between two writings of the archive."""
MAX_TRUE, MIN_STARTS, MAX_STARTS = 30, 4, 8
"""True conformers of a molecule that are taken (those of the largest shares), and starts embedded, one for each; half
of the starts are minimised as well."""
SAME = 2e-3
"""Å, between coordinates of conformers that are the same."""
DIELECTRIC = 4.0
"""Relative permittivity of MMFF94 that the starts are minimised with."""


@dataclass(frozen=True, eq=False)
class ConformerPairs:
    """One molecule: heavy atoms only, in Å.

    Attributes
    ----------
    smiles, name, source, split : str
        As of the ensemble.
    graph : ConformerGraph
    true : ndarray of float32, shape (K, n, 3)
    shares : ndarray, shape (K,)
    starts : ndarray of float32, shape (S, n, 3)
        Each about its mean.
    minimised : ndarray of bool, shape (S,)
        Which starts MMFF94 has minimised.
    match : Match
    """

    smiles: str
    name: str
    source: str
    split: str
    graph: ConformerGraph
    true: np.ndarray
    shares: np.ndarray
    starts: np.ndarray
    minimised: np.ndarray
    match: Match


@dataclass(frozen=True, eq=False)
class PairData:
    """Molecules and the hash of what they were read from."""

    records: list[ConformerPairs]
    identity: str = ""

    def __len__(self) -> int:
        return len(self.records)

    def of(self, split: str) -> PairData:
        """One side of the split."""
        return PairData([r for r in self.records if r.split == split], self.identity)


def prepared(ensemble: ConformerEnsemble) -> ConformerPairs:
    """Pairs of one molecule: embeds starts, minimises a copy of each, superposes. Needs RDKit.

    Raises
    ------
    MolflowError
        A molecule that nothing can be embedded of.
    """
    from molflow_sim.chemistry.checks import mirror_image, molecule_of, same_stereo
    from molflow_sim.chemistry.embedding import embedded

    rdmol = molecule_of(ensemble.smiles)
    heavy = heavy_atoms(ensemble.numbers)
    graph = conformer_graph(rdmol)
    true, shares = likeliest(ensemble)
    count = int(np.clip(len(true), MIN_STARTS, MAX_STARTS)) if graph.n_beads > 1 else 2
    first = [x for x in embedded(rdmol, count, seed=0) if x is not None]
    if not first:
        raise ConformerError(f"{ensemble.smiles}: no three-dimensional structure could be embedded")
    second = relaxed(rdmol, np.array(first[::2]))
    starts = np.concatenate([first, second])[:, heavy].astype(np.float32)
    starts -= starts.mean(1, keepdims=True)
    mirror = same_stereo(rdmol, mirror_image(rdmol))
    return ConformerPairs(
        ensemble.smiles, ensemble.name, ensemble.source, ensemble.split, graph, true, shares, starts,
        np.arange(len(starts)) >= len(first),
        match(true, starts, graph, mirror),
    )  # fmt: skip


def likeliest(ensemble: ConformerEnsemble) -> tuple[np.ndarray, np.ndarray]:
    """Heavy atoms (K, n, 3) in Å of the conformers of the largest shares, `MAX_TRUE` at most, and those shares (K,)."""
    order = np.argsort(-ensemble.shares, kind="stable")[:MAX_TRUE]
    positions = ensemble.positions[order][:, heavy_atoms(ensemble.numbers)]
    return positions.astype(np.float32), np.asarray(ensemble.shares[order], np.float32)


def relaxed(rdmol: Any, positions: np.ndarray) -> np.ndarray:
    """Those of the conformers (K, N, 3) in Å that MMFF94 (permittivity `DIELECTRIC`) minimises without harm."""
    from molflow_sim.chemistry.conformers import keeps_stereo
    from molflow_sim.forcefield.mmff import extract_mmff
    from molflow_sim.forcefield.mmff_minimise import in_dielectric, minimise

    try:
        terms = in_dielectric(extract_mmff(rdmol), DIELECTRIC)
    except MolflowError:  # MMFF94 has no types for it
        return positions[:0]
    found = minimise(terms, positions).positions
    found = found[np.isfinite(found).all((1, 2))]
    return found[keeps_stereo(rdmol, found)] if len(found) else found


def prepare(ensembles: Iterable[ConformerEnsemble], known: Iterable[ConformerPairs] = ()) -> list[ConformerPairs]:
    """Pairs of all molecules of at least three heavy atoms to train or validate on that RDKit can embed.

    Parameters
    ----------
    ensembles : iterable of ConformerEnsemble
    known : iterable of ConformerPairs
        Pairs made before; they are taken where the true conformers are the same.
    """
    made = {(r.smiles, r.source): r for r in known}
    out = []
    for e in ensembles:
        if e.split == "test" or (e.numbers > 1).sum() < 3:
            continue
        found = made.get((e.smiles, e.source))
        true, _ = likeliest(e)
        if found is not None and found.true.shape == true.shape and np.allclose(found.true, true, atol=SAME):
            out.append(replace(found, name=e.name, split=e.split))
            continue
        try:
            out.append(prepared(e))
        except MolflowError:
            continue
    return out


def read_pairs(paths: str | Path | Sequence[str | Path]) -> PairData:
    """Read folders of conformer ensembles, or archives of pairs.

    A folder with ensembles gets its archive, `FILE`, which is all that a machine without RDKit needs; it is made again
    where ensembles were added.

    Raises
    ------
    StoreError
        Nothing to read, or a damaged archive.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    records: list[ConformerPairs] = []
    for path in map(Path, given):
        archive = path / FILE if path.is_dir() else path
        known = _read(archive) if archive.exists() else []
        if path.is_dir() and (not known or _ensembles_in(path)):
            known = _prepared_anew(archive, read_ensembles(path), known)
        elif not known:
            raise StoreError(f"{path} is no archive of conformer pairs; give a folder of molflow dataset conformers")
        records += known
    return PairData(records, _identity(records))


def _identity(records: Sequence[ConformerPairs]) -> str:
    told = [(r.smiles, r.source, r.split, sha256(r.true.tobytes() + r.starts.tobytes())) for r in records]
    return sha256(repr(told).encode())


def _prepared_anew(
    archive: Path, ensembles: Sequence[ConformerEnsemble], known: list[ConformerPairs]
) -> list[ConformerPairs]:
    """Pairs of all ensembles; the archive is written after every `CHUNK` new ones, so that little is lost by a kill."""
    made: list[ConformerPairs] = []
    stored = len(known)
    for first in range(0, len(ensembles), CHUNK):
        made += prepare(ensembles[first : first + CHUNK], known)
        if len(made) > stored:
            write_bytes_atomically(archive, packed(made))
            stored = len(made)
    if not made:
        archive.unlink(missing_ok=True)
    elif _identity(made) != _identity(known):
        write_bytes_atomically(archive, packed(made))
    return made


def _ensembles_in(folder: Path) -> bool:
    return (folder / "store").is_dir() or any(folder.glob("*.npz"))


def _read(path: Path) -> list[ConformerPairs]:
    try:
        return unpacked(path.read_bytes())
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path} cannot be read as an archive of conformer pairs ({error}); remove it") from error


_TEXTS = ("smiles", "name", "source", "split")
_GRAPH = ("nodes", "bonds", "bond_features", "owner", "symmetries")
_ARRAYS = ("true", "shares", "starts", "minimised")
_MATCH = ("rmsd", "renaming", "hand", "local")


def packed(records: Sequence[ConformerPairs]) -> bytes:
    """An archive of pairs: arrays of all molecules one after another, flat, with their shapes."""
    arrays: dict[str, Any] = {"format": np.array(FORMAT)}
    arrays |= {name: np.array([getattr(r, name) for r in records]) for name in _TEXTS}
    for names, of in ((_GRAPH, "graph"), (_ARRAYS, ""), (_MATCH, "match")):
        for name in names:
            values = [np.asarray(getattr(getattr(r, of) if of else r, name)) for r in records]
            flat = np.concatenate([v.ravel() for v in values])
            arrays[name] = flat.astype(np.float32) if flat.dtype == np.float64 else flat
            arrays[f"{name}_shape"] = np.array([v.shape for v in values])
    return pack_arrays(arrays)


def unpacked(data: bytes) -> list[ConformerPairs]:
    """The pairs of an archive.

    Raises
    ------
    ValueError, KeyError
        It is none.
    """
    arrays = unpack_format(data, FORMAT)
    parts: dict[str, list[np.ndarray]] = {}
    for name in (*_GRAPH, *_ARRAYS, *_MATCH):
        shapes = arrays[f"{name}_shape"]
        ends = np.cumsum(shapes.prod(1))[:-1]
        parts[name] = [v.reshape(shape) for v, shape in zip(np.split(arrays[name], ends), shapes)]
    records = []
    for k in range(len(arrays["smiles"])):
        fields: dict[str, Any] = {name: str(arrays[name][k]) for name in _TEXTS}
        fields |= {name: parts[name][k] for name in _ARRAYS}
        fields["graph"] = ConformerGraph(*(parts[name][k] for name in _GRAPH))
        fields["match"] = Match(*(parts[name][k] for name in _MATCH))
        records.append(ConformerPairs(**fields))
    return records
