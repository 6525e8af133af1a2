"""Rigid packings as a struct of arrays: what generators propose, the press improves and the store keeps."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.errors import CrystalError, StoreError
from molflow_sim.geometry.superposition import kabsch
from molflow_sim.symmetry.placements import Placement
from molflow_sim.units import AMU_PER_A3

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule

STATUS = (
    "ok", "not pressed", "not converged", "implausible density", "not finite", "overlap-free", "not generated",
    "no lattice implied",
)  # fmt: skip
"""Meaning of `RigidPackings.status`; "overlap-free": dense, without overlaps, not pressed (`relieve`). The last two,
like "not finite": there is nothing to press."""
OVERLAP_FREE = STATUS.index("overlap-free")
SAME_SHAPE = 0.05
"""Å; atoms of conformers that are no farther apart make one rigid shape."""
_USABLE = ("ok", "not pressed", "overlap-free")


@dataclass(frozen=True, eq=False)
class RigidPackings:
    """n packings of one molecule, each with M molecules in its asymmetric unit.

    Attributes
    ----------
    molecule : Molecule
    conformers : ndarray, shape (K, N, 3)
        Å, body frame, centred on the centre of mass.
    placements : tuple of Placement
        The space groups and sites that occur.
    placement : ndarray of int, shape (n,)
        Index into `placements`.
    conformer : ndarray of int, shape (n,)
        Index into `conformers`.
    cell : ndarray, shape (n, 3, 3)
        Rows a, b, c in Å, standard frame.
    centroid : ndarray, shape (n, M, 3)
        Fractional coordinates of the centres of mass.
    rotation : ndarray, shape (n, M, 3, 3)
        Orientations; atoms are at rotation @ conformer. Improper ones are copies of the conformer's other hand.
    energy : ndarray, shape (n,)
        Lattice energy in eV per molecule, relative to separate rigid molecules, plus the conformer's strain if
        the press was told it; NaN before the press.
    status : ndarray of int8, shape (n,)
        Index into `STATUS`.
    index : ndarray of int, shape (n,)
        Number of the candidate in its run.
    """

    molecule: Molecule
    conformers: np.ndarray
    placements: tuple[Placement, ...]
    placement: np.ndarray
    conformer: np.ndarray
    cell: np.ndarray
    centroid: np.ndarray
    rotation: np.ndarray
    energy: np.ndarray
    status: np.ndarray
    index: np.ndarray

    STATUS = STATUS
    _ROWS = ("placement", "conformer", "cell", "centroid", "rotation", "energy", "status", "index")

    @classmethod
    def proposed(cls, molecule, conformers, placements, placement, conformer, cell, centroid, rotation, index=None):
        """Packings that have not been pressed yet: energies NaN, status ``not pressed``."""
        n = len(cell)
        return cls(
            molecule, conformers, tuple(placements), np.asarray(placement), np.asarray(conformer), cell, centroid,
            rotation, np.full(n, np.nan), np.full(n, STATUS.index("not pressed"), np.int8),
            np.arange(n) if index is None else np.asarray(index),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.cell)

    @property
    def ok(self) -> np.ndarray:
        """Boolean (n,): pressed, converged and plausible."""
        return self.status == 0

    @property
    def reasons(self) -> list[str]:
        """`status` in words for those that failed, "" for the others."""
        return ["" if STATUS[s] in _USABLE else STATUS[s] for s in self.status]

    def systems(self) -> list[MolecularCrystal | None]:
        """The crystals, None for those that failed."""
        return [None if reason else self.crystal(i) for i, reason in enumerate(self.reasons)]

    @cached_property
    def z(self) -> np.ndarray:
        """Molecules in the cell (n,)."""
        return np.array([p.n_images for p in self.placements])[self.placement] * self.centroid.shape[1]

    @cached_property
    def volume(self) -> np.ndarray:
        """Cell volumes (n,) in Å³."""
        return np.abs(np.linalg.det(self.cell))

    @cached_property
    def density(self) -> np.ndarray:
        """Densities (n,) in g/cm³."""
        return self.z * self.molecule.molar_mass * AMU_PER_A3 / self.volume

    @property
    def space_groups(self) -> list[str]:
        """Space-group symbol of each packing."""
        return [self.placements[k].space_group for k in self.placement]

    @property
    def z_prime(self) -> np.ndarray:
        """Z′ (n,)."""
        share = np.array([p.z_prime_per_molecule for p in self.placements])[self.placement]
        return share * self.centroid.shape[1]

    def select(self, rows: np.ndarray | Sequence[int] | slice) -> RigidPackings:
        """The packings at `rows` (indices, mask or slice)."""
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        arrays: dict[str, Any] = {name: getattr(self, name)[rows] for name in self._ROWS}
        return replace(self, **arrays)

    @staticmethod
    def concatenate(parts: Iterable[RigidPackings]) -> RigidPackings:
        """One collection of several, all of the same molecule, conformers and M.

        Raises
        ------
        CrystalError
            If they do not belong together.
        """
        parts = list(parts)
        first = parts[0]
        for p in parts[1:]:
            if p.conformers.shape != first.conformers.shape or p.centroid.shape[1] != first.centroid.shape[1]:
                raise CrystalError("packings of different molecules, conformers or Z′ cannot be joined")
        placements, rows = _numbered([q for p in parts for q in p.placements])
        starts = np.cumsum([0, *(len(p.placements) for p in parts)])
        arrays: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in first._ROWS}
        arrays["placement"] = rows[arrays["placement"] + np.repeat(starts[:-1], [len(p) for p in parts])]
        return replace(first, placements=placements, **arrays)

    def crystal(self, i: int) -> MolecularCrystal:
        """Packing i as a `MolecularCrystal`."""
        from molflow_sim.symmetry import SpaceGroup
        from molflow_sim.systems.crystal import MolecularCrystal, RigidMolecule

        place = self.placements[self.placement[i]]
        signs = np.where(np.linalg.det(self.rotation[i]) < 0, -1.0, 1.0)
        unit = tuple(
            RigidMolecule(
                species=0,
                conformer=sign * self.conformers[self.conformer[i]],
                centroid=self.centroid[i, m],
                orientation=sign * self.rotation[i, m],
                images=place.images,
            )
            for m, sign in enumerate(signs)
        )
        group = SpaceGroup.from_name(place.space_group)
        return MolecularCrystal((self.molecule,), unit, group, self.cell[i], {})

    @classmethod
    def from_crystals(cls, crystals: Sequence[MolecularCrystal]) -> RigidPackings:
        """Collect crystals of one species with the same number of molecules in the asymmetric unit.

        Every crystal brings its own conformer, that of its first molecule.

        Raises
        ------
        CrystalError
            If a crystal has several species, or asymmetric units differ in size, or one has several molecules of
            different shapes (by more than `SAME_SHAPE`) or on special positions.
        """
        from molflow_sim.symmetry.sites import placement_of

        if len({len(c.asymmetric_unit) for c in crystals}) != 1:
            raise CrystalError("crystals with differently sized asymmetric units cannot share one batch")
        if any(len(c.molecules) != 1 for c in crystals):
            raise CrystalError("the rigid press handles one molecular species only")
        placements, rows = _numbered([placement_of(c) for c in crystals])
        return cls.proposed(
            crystals[0].molecules[0],
            np.stack([c.asymmetric_unit[0].conformer for c in crystals]),
            placements,
            rows,
            np.arange(len(crystals)),
            np.stack([c.cell for c in crystals]),
            np.stack([[u.centroid for u in c.asymmetric_unit] for c in crystals]),
            np.stack([_orientations(c) for c in crystals]),
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write to a NumPy archive without pickled objects (the molecule is not written)."""
        arrays = {name: getattr(self, name) for name in (*self._ROWS, "conformers")}
        described = []
        for k, p in enumerate(self.placements):
            described.append(
                {f.name: getattr(p, f.name) for f in fields(p) if isinstance(getattr(p, f.name), (str, float))}
            )
            for f in fields(p):
                value = getattr(p, f.name)
                if not isinstance(value, (str, float)):
                    arrays[f"placement{k}.{f.name}"] = np.asarray(value)
        arrays["described"] = np.array(json.dumps(described))
        with open(path, "wb") as stream:
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike, molecule: Molecule) -> RigidPackings:
        """Read what `save` wrote.

        Raises
        ------
        StoreError
            If the file is damaged or holds another molecule.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                described = json.loads(str(data["described"]))
                placements = []
                for k, d in enumerate(described):
                    prefix = f"placement{k}."
                    rest = {n[len(prefix) :]: data[n] for n in data.files if n.startswith(prefix)}
                    rest["images"] = tuple(int(x) for x in rest["images"])
                    placements.append(Placement(**d, **rest))
                arrays = {name: data[name] for name in (*cls._ROWS, "conformers")}
        except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise StoreError(f"{Path(path).name} is damaged or not a file of packings: {error}") from error
        if arrays["conformers"].shape[1] != molecule.n_atoms:
            raise StoreError(f"{Path(path).name} holds packings of another molecule")
        return cls(molecule, placements=tuple(placements), **arrays)


def _orientations(crystal: MolecularCrystal) -> list[np.ndarray]:
    """Orientations (3, 3) of the molecules as copies of the first one's conformer, improper for its other hand."""
    first, *others = crystal.asymmetric_unit
    found = [np.asarray(first.orientation)]
    for other in others:
        turns = [np.eye(3), *(kabsch(first.conformer, other.conformer, improper) for improper in (False, True))]
        gaps = [np.linalg.norm(first.conformer @ turn.T - other.conformer, axis=1).max() for turn in turns]
        if min(gaps) > SAME_SHAPE or {len(first.images), len(other.images)} != {crystal.space_group.order}:
            raise CrystalError(
                "the rigid press takes several molecules in the asymmetric unit only of one shape and in general "
                f"positions; here one has atoms {min(gaps):.2f} Å off the other's, and {len(other.images)} copies in "
                f"{crystal.space_group.name}"
            )
        found.append(np.asarray(other.orientation) @ turns[int(np.argmin(gaps))])
    return found


def _numbered(places: Sequence[Placement]) -> tuple[tuple[Placement, ...], np.ndarray]:
    """The different placements among some, in order, and for each of these its number among them."""
    keys = [(p.space_group, p.images, tuple(np.round(p.site_centroid, 6))) for p in places]
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    different = {key: place for key, place in reversed(list(zip(keys, places)))}
    return tuple(different[key] for key in number), np.array([number[key] for key in keys], dtype=int)
