"""The shard: all kept packings of one molecule (or one experimental crystal) as flat arrays in an npz file.

========================  ==============  ====================================================================
array                     shape           meaning
========================  ==============  ====================================================================
``meta``                  ()              JSON: SMILES, key, skeleton, split, source, provenance
``numbers``               (N,)            atomic numbers
``bonds``                 (nb, 2)         bonded pairs
``conformers``            (K, N, 3)       Å, centred on the centre of mass
``group``                 (P,)            space-group symbols of the P sites
``operations``            (P, 2)          first and last + 1 of the site's group among the operations below
``rotations``             (G, 3, 3)       int8, on fractional columns
``translations``          (G, 3)          fractional
``cartesian_rotations``   (G, 3, 3)       the rotations in the Cartesian standard frame
``images``                (I,)            operations that make the distinct copies, all sites after one another
``image_range``           (P, 2)          first and last + 1 of the site's images
``site``                  (n, M)          site of each molecule of the asymmetric unit
``conformer``             (n, M)          its conformer
``centroid``              (n, M, 3)       fractional
``rotation``              (n, M, 3, 3)    orientation
``cell``                  (n, 3, 3)       rows, Å, standard frame
``energy``                (n,)            eV per molecule: lattice energy by the full potential plus strain
``press_energy``          (n,)            the same by the press (NaN where it did not run)
``relaxed``               (n,)            bool: the press relaxed the geometry rigidly
``copies``                (n,)            candidates that led to this packing
========================  ==============  ====================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.errors import StoreError
from molflow_sim.runs.store import pack_arrays, unpack_arrays

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule

FORMAT = 1
"""Version of the layout; readers refuse others."""

Shard = dict[str, Any]


def pack_shard(
    molecule: Molecule,
    conformers: np.ndarray,
    crystals: Sequence[MolecularCrystal],
    conformer: np.ndarray,
    columns: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
) -> bytes:
    """Bytes of a shard.

    Parameters
    ----------
    molecule : Molecule
    conformers : ndarray, shape (K, N, 3)
        Å.
    crystals : sequence of MolecularCrystal, n of them
        All with M molecules of the one species in the asymmetric unit.
    conformer : ndarray of int, shape (n, M)
        Which of `conformers` each molecule has.
    columns : mapping
        ``energy``, ``press_energy`` (eV per molecule), ``relaxed``, ``copies``, each of shape (n,).
    meta : mapping
        JSON-like values.
    """
    sites: dict[tuple[str, tuple[int, ...]], int] = {}
    groups = {}
    site = []
    for crystal in crystals:
        groups[crystal.space_group.name] = crystal.space_group
        keys = [(crystal.space_group.name, tuple(int(g) for g in u.images)) for u in crystal.asymmetric_unit]
        site.append([sites.setdefault(key, len(sites)) for key in keys])
    first = dict(zip(groups, np.cumsum([0, *(g.order for g in groups.values())])[:-1].tolist()))
    ends = np.cumsum([0, *(len(images) for _, images in sites)])
    return pack_arrays(
        {
            "meta": json.dumps({"format": FORMAT, **meta}, ensure_ascii=False),
            "numbers": molecule.numbers.astype(np.int16),
            "bonds": molecule.bonds.astype(np.int32),
            "conformers": conformers,
            "group": [name for name, _ in sites],
            "operations": [[first[name], first[name] + groups[name].order] for name, _ in sites],
            "rotations": np.concatenate([g.rotations for g in groups.values()]).astype(np.int8),
            "translations": np.concatenate([g.translations for g in groups.values()]),
            "cartesian_rotations": np.concatenate([g.cartesian_rotations for g in groups.values()]),
            "images": np.concatenate([images for _, images in sites]).astype(np.int32),
            "image_range": np.stack([ends[:-1], ends[1:]], 1),
            "site": np.array(site, np.int32),
            "conformer": np.asarray(conformer, np.int32),
            "centroid": [[u.centroid for u in c.asymmetric_unit] for c in crystals],
            "rotation": [[u.orientation for u in c.asymmetric_unit] for c in crystals],
            "cell": [c.cell for c in crystals],
            **columns,
        }
    )


def unpack_shard(data: bytes, what: str) -> Shard:
    """Arrays of a shard, ``meta`` as a dict; `what` names the file in the message of an error.

    Raises
    ------
    StoreError
        If the bytes are no shard of this format.
    """
    try:
        shard: Shard = unpack_arrays(data)
        shard["meta"] = json.loads(str(shard["meta"]))
        found = shard["meta"]["format"]
    except Exception as error:  # zip, zlib and NumPy each raise their own kinds
        raise StoreError(f"{what} is damaged or no shard of a crystal data set: {error}") from error
    if found != FORMAT:
        raise StoreError(f"{what} has format {found}; this version reads format {FORMAT}")
    return shard
