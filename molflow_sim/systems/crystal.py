"""Molecular crystals: a cell, a space group, and an asymmetric unit of rigid molecules.

Cartesian position of atom k in the copy of a molecule made by operation g (W, w on fractional columns)::

    x = (W s + w) @ cell + Wcart R b_k

with s the fractional centre of mass, R the molecule's rotation, b_k the atom in the body frame, cell rows a, b, c
and Wcart the Cartesian form of W. Molecules are therefore whole, and may reach out of the cell.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.errors import CrystalError, DisorderedCrystalError
from molflow_sim.symmetry import SpaceGroup, cell_parameters
from molflow_sim.systems import assembly, crystal_symmetry, export
from molflow_sim.systems.molecule import Molecule
from molflow_sim.systems.rigid import RigidMolecule
from molflow_sim.units import AMU_PER_A3

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from pymatgen.core import Structure


@dataclass(frozen=True, eq=False)
class MolecularCrystal:
    """A crystal of whole molecules.

    Attributes
    ----------
    molecules : tuple of Molecule
        The chemical species.
    asymmetric_unit : tuple of RigidMolecule
    space_group : SpaceGroup
    cell : ndarray (3, 3)
        Rows a, b, c in Å in the standard frame (a along x, b in the xy plane, positive determinant).
    info : dict
        Free notes: name, source, and what was corrected on reading.

    Raises
    ------
    CrystalError
        If shapes, the frame of the cell, or indices are wrong, or numbers are not finite.
    """

    molecules: tuple[Molecule, ...]
    asymmetric_unit: tuple[RigidMolecule, ...]
    space_group: SpaceGroup
    cell: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cell = np.array(self.cell, dtype=float)
        if cell.shape != (3, 3) or not np.isfinite(cell).all():
            raise CrystalError("the cell must be a finite (3, 3) matrix of row vectors in Å")
        scale = np.abs(cell).max()
        if np.abs(cell[np.triu_indices(3, 1)]).max() > 1e-6 * scale or np.diag(cell).min() <= 0:
            raise CrystalError("the cell must be in the standard frame: a along x, b in xy, c towards +z")
        if not self.asymmetric_unit:
            raise CrystalError("a crystal needs at least one molecule")
        object.__setattr__(self, "cell", cell)
        object.__setattr__(self, "molecules", tuple(self.molecules))
        object.__setattr__(self, "asymmetric_unit", tuple(self.asymmetric_unit))
        for k, rigid in enumerate(self.asymmetric_unit):
            if not 0 <= rigid.species < len(self.molecules):
                raise CrystalError(f"molecule {k}: no species {rigid.species}")
            n = self.molecules[rigid.species].n_atoms
            if np.shape(rigid.conformer) != (n, 3) or np.shape(rigid.centroid) != (3,):
                raise CrystalError(f"molecule {k}: the conformer must be ({n}, 3) and the centroid (3,)")
            if not rigid.images or not all(0 <= g < self.space_group.order for g in rigid.images):
                raise CrystalError(f"molecule {k}: images must be operations of {self.space_group.name}")
            if not all(np.isfinite(a).all() for a in (rigid.conformer, rigid.centroid, rigid.orientation)):
                raise CrystalError(f"molecule {k}: NaN or infinite coordinates")

    # ------------------------------------------------------------------ numbers

    @property
    def z(self) -> int:
        """Molecules in the cell, of all species."""
        return sum(len(rigid.images) for rigid in self.asymmetric_unit)

    @property
    def z_prime(self) -> float:
        """Molecules per asymmetric unit: `z` over the order of the space group, 0.5 on an inversion centre.

        For several species this counts molecules, not formula units.
        """
        return self.z / self.space_group.order

    @property
    def volume(self) -> float:
        """Cell volume in Å³."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def density(self) -> float:
        """Density in g/cm³."""
        mass = sum(len(r.images) * self.molecules[r.species].molar_mass for r in self.asymmetric_unit)
        return mass / self.volume * AMU_PER_A3

    @cached_property
    def cell_parameters(self) -> np.ndarray:
        """(a, b, c, α, β, γ) in Å and degrees."""
        return cell_parameters(self.cell)

    @cached_property
    def formula(self) -> str:
        """Formulas of the species with their smallest integer ratio, e.g. ``C9H8O4`` or ``(C4H4N2)(H2O)2``."""
        counts = np.zeros(len(self.molecules), dtype=int)
        for rigid in self.asymmetric_unit:
            counts[rigid.species] += len(rigid.images)
        counts = counts // np.gcd.reduce(counts)
        parts = [(m.formula, int(c)) for m, c in zip(self.molecules, counts) if c]
        if len(parts) == 1 and parts[0][1] == 1:
            return parts[0][0]
        return "".join(f"({name})" + (str(c) if c > 1 else "") for name, c in parts)

    # ------------------------------------------------------------------ the cell's content

    def copies(self, k: int) -> np.ndarray:
        """Cartesian positions (copies, N, 3) in Å of every copy of molecule k of the asymmetric unit, whole."""
        rigid, group = self.asymmetric_unit[k], self.space_group
        images = list(rigid.images)
        body = rigid.conformer @ np.asarray(rigid.orientation).T
        centres = group.rotations[images] @ rigid.centroid + group.translations[images]
        return (centres @ self.cell)[:, None] + np.einsum("gij,nj->gni", group.cartesian_rotations[images], body)

    def unit_cell(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All atoms of the cell, one whole molecule after another, atoms in the species' order.

        Returns
        -------
        numbers : ndarray (n,) of int
        positions : ndarray (n, 3)
            Å, not wrapped into the cell.
        molecule_index : ndarray (n,) of int
        species : ndarray (z,) of int
        """
        positions = [self.copies(k) for k in range(len(self.asymmetric_unit))]
        species = np.repeat([r.species for r in self.asymmetric_unit], [len(p) for p in positions])
        numbers = np.concatenate([self.molecules[s].numbers for s in species])
        sizes = [self.molecules[s].n_atoms for s in species]
        return (
            numbers,
            np.concatenate([p.reshape(-1, 3) for p in positions]),
            np.repeat(np.arange(len(species)), sizes),
            species,
        )

    @cached_property
    def masses(self) -> np.ndarray:
        """Atomic masses (n,) in amu, isotopes honoured, in `unit_cell` order."""
        return np.concatenate([self.molecules[r.species].masses for r in self.asymmetric_unit for _ in r.images])

    def with_geometry(self, cell: np.ndarray, positions: np.ndarray, tolerance: float = 0.05) -> MolecularCrystal:
        """The crystal with a relaxed cell and relaxed positions.

        Parameters
        ----------
        cell : ndarray (3, 3)
            Rows in Å, in any right-handed frame.
        positions : ndarray (n, 3)
            Å, in `unit_cell` order; wrapped or whole.
        tolerance : float
            Å; copies that agree with the space group (and its cell constraints) this well are averaged over it,
            otherwise the result is P 1.

        Raises
        ------
        CrystalError
            Wrong shape, non-finite numbers, or a cell without volume.
        """
        return crystal_symmetry.with_geometry(self, cell, positions, tolerance)

    def with_info(self, **notes: Any) -> MolecularCrystal:
        """The same crystal with entries added to `info`."""
        return replace(self, info={**self.info, **notes})

    # ------------------------------------------------------------------ in and out

    def to_ase(self) -> Atoms:
        """ASE atoms of the cell, molecules whole; ``arrays["molecule"]``, ``info`` with space group and SMILES."""
        return export.to_ase(self)

    def to_pymatgen(self) -> Structure:
        """Pymatgen structure of the cell with site property ``molecule``."""
        return export.to_pymatgen(self)

    def to_cif(self) -> str:
        """CIF text that keeps the symmetry: operations and the symmetry-unique atoms.

        Raises
        ------
        CrystalError
            If a molecule on a special position lacks the symmetry of its site.
        """
        return export.to_cif(self)

    def write(self, path: str | Path) -> None:
        """Write a CIF to `path` (any other suffix that ASE knows goes through ASE); whole or not at all."""
        export.write(self, Path(path))

    @classmethod
    def from_cif(
        cls,
        source: str | Path,
        *,
        normalise_hydrogens: bool = False,
        molecules: Sequence[Molecule] | None = None,
        block: str | None = None,
        symprec: float | None = None,
    ) -> MolecularCrystal:
        """Read a structure of a CIF.

        Parameters
        ----------
        source : path or str
            A path, or the text of a CIF.
        normalise_hydrogens : bool
            Put X-H bonds at their neutron lengths (C-H 1.089, N-H 1.015, O-H 0.993 Å; Allen & Bruno,
            Acta Cryst. B66, 380, 2010).
        molecules : sequence of Molecule, optional
            Species to recognise, so that their atom order is kept.
        block : str, optional
            Name of the data block; the first that holds atoms by default, with a warning if there are others.
        symprec : float, optional
            Let spglib look for the space group within this many Å instead of taking the file's: for P 1 dumps.

        Raises
        ------
        DisorderedCrystalError, MissingHydrogensError, OverlappingAtomsError, UnsupportedElementError, CrystalError
            Saying what, and where: also where what was read contradicts the formula that the file declares.
        """
        return cls(
            **assembly.read_cif(
                source, normalise_hydrogens=normalise_hydrogens, molecules=molecules, block=block, symprec=symprec
            )
        )

    @classmethod
    def from_ase(
        cls, atoms: Atoms, *, symprec: float | None = None, molecules: Sequence[Molecule] | None = None
    ) -> MolecularCrystal:
        """Recognise the molecules of periodic ASE atoms; P 1, or the group spglib finds within `symprec` Å.

        Raises
        ------
        CrystalError
            As `from_cif`, or if the atoms are not periodic in all directions.
        """
        if not np.all(atoms.pbc):
            raise CrystalError("the atoms are not periodic in three directions; set atoms.pbc = True")
        return cls(
            **assembly.from_sites(
                atoms.numbers, atoms.get_positions(), atoms.cell.array, symprec=symprec, molecules=molecules,
                isotopes=assembly.heavy_hydrogen(atoms.numbers, atoms.get_masses()),
            )
        )  # fmt: skip

    @classmethod
    def from_pymatgen(
        cls, structure: Structure, *, symprec: float | None = None, molecules: Sequence[Molecule] | None = None
    ) -> MolecularCrystal:
        """Recognise the molecules of a pymatgen structure; P 1, or the group spglib finds within `symprec` Å.

        Raises
        ------
        DisorderedCrystalError, CrystalError
            As `from_cif`.
        """
        if not structure.is_ordered:
            raise DisorderedCrystalError("the structure has partial occupancies")
        numbers = np.array([site.specie.Z for site in structure])
        masses = np.array([float(site.specie.atomic_mass) for site in structure])  # an isotope has the element's symbol
        return cls(
            **assembly.from_sites(
                numbers, structure.cart_coords, structure.lattice.matrix, symprec=symprec, molecules=molecules,
                isotopes=assembly.heavy_hydrogen(numbers, masses),
            )
        )  # fmt: skip

    def __repr__(self) -> str:
        a = ", ".join(f"{p:.2f}" for p in self.cell_parameters)
        return f"MolecularCrystal({self.formula}, {self.space_group.name}, Z={self.z}, [{a}], {self.density:.3f} g/cm³)"
