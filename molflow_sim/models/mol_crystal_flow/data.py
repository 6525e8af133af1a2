"""Crystals as the P 1 flow trains on them: reduced cells, all molecules of the cell as rigid poses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from molflow_sim.errors import CrystalError, MolflowError, StoreError
from molflow_sim.models.mol_crystal_flow.batch import P1Batch, Poses, Shapes
from molflow_sim.models.mol_crystal_flow.features import (
    chemical_features,
    chemical_features_of_smiles,
    crystal_volume,
    invariants,
)
from molflow_sim.models.mol_crystal_flow.frames import BodyFrame, body_frame, proper_pose
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.runs.store import pack_arrays, unpack_arrays
from molflow_sim.symmetry.reduction import reduced_basis

if TYPE_CHECKING:
    from molflow_sim.dataset.reader import CrystalRecord
    from molflow_sim.systems.crystal import MolecularCrystal


MAX_Z, MAX_ATOMS = 16, 120
Lengths = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Shape:
    """One rigid shape: a conformer in its canonical form.

    Attributes
    ----------
    numbers : ndarray (N,)
    frame : BodyFrame
    invariants : ndarray (18,)
        Scaled.
    """

    numbers: np.ndarray
    frame: BodyFrame
    invariants: np.ndarray

    @classmethod
    def of(cls, numbers: np.ndarray, conformer: np.ndarray, chemical: np.ndarray) -> Shape:
        """From a conformer (N, 3) centred on its centre of mass and the ten features of its graph."""
        frame = body_frame(numbers, conformer)
        return cls(np.asarray(numbers, int), frame, invariants(numbers, frame.moments, chemical))


@dataclass(frozen=True, eq=False)
class P1Crystal:
    """One crystal in P 1: reduced cell in the standard frame, Z rigid molecules.

    Attributes
    ----------
    cell : ndarray (3, 3)
    frac : ndarray (Z, 3)
    rotation : ndarray (Z, 3, 3)
    hand : ndarray (Z,)
        ±1; the axis-flip state is (1, 1, hand).
    shape : ndarray of int (Z,)
        Index into the shapes of the data.
    """

    cell: np.ndarray
    frac: np.ndarray
    rotation: np.ndarray
    hand: np.ndarray
    shape: np.ndarray


@dataclass
class P1Data:
    """Crystals with their shapes and weights.

    Attributes
    ----------
    shapes : list of Shape
    crystals : list of P1Crystal
    weights : list of float
        Relative probability of being drawn.
    skipped : list of (str, str)
        Name and reason of what was left out.
    max_z, max_atoms : int
        Molecules in the cell and atoms of a molecule; crystals beyond are left out.
    """

    shapes: list[Shape] = field(default_factory=list)
    crystals: list[P1Crystal] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    max_z: int = MAX_Z
    max_atoms: int = MAX_ATOMS
    _known: dict[bytes, int] = field(default_factory=dict, repr=False)
    _chemistry: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.crystals)

    @classmethod
    def from_crystals(
        cls, crystals: Iterable[MolecularCrystal], max_z: int = MAX_Z, max_atoms: int = MAX_ATOMS
    ) -> P1Data:
        """From crystals in any space group; those that cannot be used stand in `skipped`."""
        data = cls(max_z=max_z, max_atoms=max_atoms)
        for k, crystal in enumerate(crystals):
            data._try(str(crystal.info.get("name", k)), data.add_crystal, crystal)
        return data

    @classmethod
    def from_records(
        cls,
        records: Sequence[CrystalRecord],
        weights: Sequence[float] | np.ndarray | None = None,
        max_z: int = MAX_Z,
        max_atoms: int = MAX_ATOMS,
    ) -> P1Data:
        """From a `CrystalDataset` (or part of it), with its sampling weights."""
        data = cls(max_z=max_z, max_atoms=max_atoms)
        for i in range(len(records)):
            record = records[i]
            data._try(record.name, data.add_record, record, 1.0 if weights is None else float(weights[i]))
        return data

    def _try(self, name: str, add: Callable[..., None], *args: Any) -> None:
        try:
            add(*args)
        except MolflowError as error:
            self.skipped.append((name, error.reason))

    def add_crystal(self, crystal: MolecularCrystal, weight: float = 1.0) -> None:
        """Append one crystal.

        Raises
        ------
        CrystalError
            Beyond `max_z` or `max_atoms`, or without a usable cell.
        """
        copies = []
        group = crystal.space_group
        for rigid in crystal.asymmetric_unit:
            molecule = crystal.molecules[rigid.species]
            shape = self._shape(molecule.numbers, rigid.conformer, molecule.smiles, molecule.rdmol)
            for g in rigid.images:
                centre = group.rotations[g] @ rigid.centroid + group.translations[g]
                copies.append((shape, centre, group.cartesian_rotations[g] @ rigid.orientation))
        self._append(crystal.cell, copies, weight, group.rotations, group.translations)

    def add_record(self, record: CrystalRecord, weight: float = 1.0) -> None:
        """Append one record of a data set; raises as `add_crystal`."""
        copies = []
        for m, images in enumerate(record.images):
            shape = self._shape(record.numbers, record.conformers[m], record.smiles, None)
            for g in images:
                centre = record.rotations[g] @ record.centroid[m] + record.translations[g]
                copies.append((shape, centre, record.cartesian_rotations[g] @ record.orientation[m]))
        self._append(record.cell, copies, weight, record.rotations, record.translations)

    def _shape(self, numbers: np.ndarray, conformer: np.ndarray, smiles: str, rdmol: object) -> int:
        if len(numbers) > self.max_atoms:
            raise CrystalError(f"{len(numbers)} atoms in a molecule, more than the {self.max_atoms} of the range")
        key = np.asarray(numbers, np.int64).tobytes() + np.round(conformer, 5).tobytes() + smiles.encode()
        if key not in self._known:
            if smiles not in self._chemistry:
                self._chemistry[smiles] = (
                    chemical_features_of_smiles(smiles) if rdmol is None else chemical_features(rdmol)
                )
            self.shapes.append(Shape.of(numbers, np.asarray(conformer, float), self._chemistry[smiles]))
            self._known[key] = len(self.shapes) - 1
        return self._known[key]

    def _append(
        self,
        cell: np.ndarray,
        copies: list[tuple[int, np.ndarray, np.ndarray]],
        weight: float,
        rotations: np.ndarray,
        translations: np.ndarray,
    ) -> None:
        centring = translations[(rotations == np.eye(3)).all((1, 2))]
        change = reduced_basis(cell, centring)
        poses = [proper_pose(q, self.shapes[k].frame) for k, _, q in copies]
        cell, frac, rotation = change_basis(
            change, cell, np.array([centre for _, centre, _ in copies]), np.array([r for r, _ in poses])
        )
        # Of the copies that a centring translation makes one is left.
        apart = frac[:, None] - frac[None]
        apart -= np.rint(apart)
        new = ~np.tril(np.abs(apart @ cell).max(-1) < 0.05, -1).any(1)
        if new.sum() * len(centring) != len(copies):
            raise CrystalError("two molecules of the crystal have one centre")
        if new.sum() > self.max_z:
            raise CrystalError(f"{new.sum()} molecules in the cell, more than the {self.max_z} of the range")
        hand = np.array([h for _, h in poses])[new]
        shape = np.array([k for k, _, _ in copies])[new]
        self.crystals.append(P1Crystal(cell, frac[new], rotation[new], hand, shape))
        self.weights.append(weight)

    # ------------------------------------------------------------------ batches

    def batch(
        self, indices: Sequence[int] | np.ndarray, inverted: Sequence[bool] | np.ndarray | None = None
    ) -> P1Batch:
        """The crystals at `indices` as one padded float32 batch; those `inverted` as their mirror images."""
        chosen = [self.crystals[int(i)] for i in indices]
        if inverted is not None:
            chosen = [self._inverted(c) if flag else c for c, flag in zip(chosen, inverted)]
        used = np.unique(np.concatenate([c.shape for c in chosen]))
        m = max(len(c.shape) for c in chosen)
        b = len(chosen)
        frac, rotation = np.zeros((b, m, 3)), np.tile(np.eye(3), (b, m, 1, 1))
        chi, mask, species = np.ones((b, m, 3)), np.zeros((b, m), bool), np.zeros((b, m), int)
        for i, c in enumerate(chosen):
            z = len(c.shape)
            frac[i, :z], rotation[i, :z], chi[i, :z, 2] = c.frac, c.rotation, c.hand
            mask[i, :z], species[i, :z] = True, np.searchsorted(used, c.shape)
        cell = np.stack([c.cell for c in chosen])
        poses = Poses(*(torch.tensor(a, dtype=torch.float32) for a in (cell, frac, rotation, chi)))
        shapes = shape_tensors([self.shapes[k] for k in used])
        return P1Batch(shapes, poses, torch.tensor(species), torch.tensor(mask))

    def _inverted(self, crystal: P1Crystal) -> P1Crystal:
        """The crystal after inversion in the origin: same cell, opposite hands."""
        poses = []
        for k, rotation, hand in zip(crystal.shape, crystal.rotation, crystal.hand):
            frame = self.shapes[k].frame
            # Written about the canonical form, a copy's own frame is the identity.
            own = replace(frame, rotation=np.eye(3), hand=int(hand))
            poses.append(proper_pose(-rotation, own))
        rotation, hand = np.array([r for r, _ in poses]), np.array([h for _, h in poses])
        return replace(crystal, frac=np.mod(-crystal.frac, 1.0), rotation=rotation, hand=hand)

    def length_statistics(self) -> tuple[Lengths, Lengths]:
        """Mean and standard deviation of the logarithms of the cell lengths, for the settings' prior.

        In units of V^(1/3), V being the volume that the molecules take in crystals.
        """
        logs = []
        for c in self.crystals:
            volume = sum(crystal_volume(self.shapes[k].numbers) for k in c.shape)
            logs.append(np.log(np.linalg.norm(c.cell, axis=1) / volume ** (1 / 3)))
        (a, b, c), (da, db, dc) = np.mean(logs, axis=0).tolist(), np.std(logs, axis=0).tolist()
        return (a, b, c), (da, db, dc)

    def save(self, path: str | Path, identity: str = "") -> None:
        """Write shapes and crystals to one NumPy archive without pickled objects, whole or not at all."""
        arrays = {"identity": np.array(identity), "weights": np.array(self.weights)}
        arrays["atoms"] = np.array([len(s.numbers) for s in self.shapes])
        arrays["operations"] = np.array([len(s.frame.symmetry) for s in self.shapes])
        arrays["z"] = np.array([len(c.shape) for c in self.crystals])
        arrays["cell"] = np.array([c.cell for c in self.crystals])
        arrays["numbers"] = np.concatenate([s.numbers for s in self.shapes])
        arrays["invariants"] = np.array([s.invariants for s in self.shapes])
        for name in ("canonical", "symmetry"):
            arrays[name] = np.concatenate([getattr(s.frame, name) for s in self.shapes])
        for name in ("rotation", "hand", "achiral", "mirror", "moments"):
            arrays[f"frame_{name}"] = np.array([getattr(s.frame, name) for s in self.shapes])
        for name in ("frac", "rotation", "hand", "shape"):
            arrays[name] = np.concatenate([getattr(c, name) for c in self.crystals])
        write_bytes_atomically(Path(path), pack_arrays(arrays))

    @classmethod
    def load(cls, path: str | Path) -> tuple[P1Data, str]:
        """What `save` wrote, and the identity it was given; needs NumPy alone.

        Raises
        ------
        StoreError
            If the file is missing, damaged or of another kind.
        """
        try:
            a = unpack_arrays(Path(path))
            data = cls(weights=a["weights"].tolist())
            atoms, operations, z = (np.cumsum(a[name])[:-1] for name in ("atoms", "operations", "z"))
            frames = zip(
                np.split(a["canonical"], atoms), a["frame_rotation"], a["frame_hand"].tolist(),
                a["frame_achiral"].tolist(), np.split(a["symmetry"], operations), a["frame_mirror"],
                a["frame_moments"],
            )  # fmt: skip
            numbers = np.split(a["numbers"], atoms)
            data.shapes = [Shape(n, BodyFrame(*f), i) for n, f, i in zip(numbers, frames, a["invariants"])]
            parts = [np.split(a[name], z) for name in ("frac", "rotation", "hand", "shape")]
            data.crystals = [P1Crystal(cell, *rest) for cell, *rest in zip(a["cell"], *parts)]
            return data, str(a["identity"])
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise StoreError(f"{Path(path).name} is damaged or holds no P 1 crystals: {error}") from error


def change_basis(
    change: np.ndarray, cell: np.ndarray, frac: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same crystal in another basis, its cell in the standard frame (lower triangular, positive diagonal).

    The cell becomes P L and fractional coordinates s (rows) become s P⁻¹. The standard frame turns *everything*
    Cartesian, the molecules' orientations among it: a cell rebuilt from its six parameters around unchanged Cartesian
    coordinates is another crystal.

    Parameters
    ----------
    change : ndarray (3, 3)
        P, with a positive determinant.
    cell : ndarray (3, 3); frac : ndarray (M, 3); rotation : ndarray (M, 3, 3)

    Returns
    -------
    cell, frac, rotation : ndarray
        As given, transformed; fractional coordinates in [0, 1).

    Raises
    ------
    CrystalError
        If the cell has no volume or is left-handed.
    """
    cell = change @ np.asarray(cell, dtype=float)
    if not np.isfinite(cell).all() or np.linalg.det(cell) < 1e-6:
        raise CrystalError("the cell must be finite and right-handed, with a volume")
    standard = np.linalg.cholesky(cell @ cell.T)
    turn = np.linalg.solve(cell, standard).T
    return standard, np.mod(frac @ np.linalg.inv(change), 1.0), turn @ rotation


def shape_tensors(shapes: Sequence[Shape]) -> Shapes:
    """Padded float32 tensors of some shapes."""
    u, n = len(shapes), max(len(s.numbers) for s in shapes)
    k = max(len(s.frame.symmetry) for s in shapes)
    numbers, positions = np.zeros((u, n), int), np.zeros((u, n, 3))
    symmetry = np.tile(np.eye(3), (u, k, 1, 1))
    for i, s in enumerate(shapes):
        numbers[i, : len(s.numbers)], positions[i, : len(s.numbers)] = s.numbers, s.frame.canonical
        symmetry[i, : len(s.frame.symmetry)] = s.frame.symmetry
    real = [
        positions, np.array([s.invariants for s in shapes]), np.array([crystal_volume(s.numbers) for s in shapes]),
        symmetry,
    ]  # fmt: skip
    return Shapes(torch.tensor(numbers), *(torch.tensor(a, dtype=torch.float32) for a in real))
