"""Molecules: from SMILES or a file to atoms, bonds and conformers. The one place that reads molecules with RDKit."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolDescriptors

from molflow_sim.chemistry import conformers as conf
from molflow_sim.chemistry.checks import (
    ELEMENTS,
    MAX_ATOMS,
    canonical_smiles,
    check_molecule,
    mirror_image,
    parse_smiles,
    same_stereo,
)
from molflow_sim.chemistry.crystal_conformers import Conformers, crystal_conformers
from molflow_sim.chemistry.pointgroup import point_group
from molflow_sim.errors import MoleculeError

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["ELEMENTS", "MAX_ATOMS", "Molecule"]


@dataclass(frozen=True, eq=False)
class Molecule:
    """A neutral closed-shell molecule with explicit hydrogens and at least one conformer.

    Attributes
    ----------
    rdmol : rdkit.Chem.Mol
        Sanitized, hydrogens explicit. Its atom order is the atom order everywhere.
    conformers : ndarray (K, N, 3)
        Å, each centred on its centre of mass, sorted by energy when generated here.
    energies : ndarray (K,)
        In eV, of MMFF94 unless ``info["energy_model"]`` names another; NaN where they are unknown (MMFF94 has no types
        for some molecules of files and crystals).
    name : str
        Free text.
    racemic : bool
        The sample holds the molecule and its mirror image in equal parts, so that crystals may have improper
        operations even if the molecule is chiral.
    shares : ndarray (K,)
        Shares of the conformers among the candidates of a search, made to sum to 1; by their strain if none are given.
    info : mapping
        Notes, such as where generated conformers come from.
    """

    rdmol: Chem.Mol
    conformers: np.ndarray
    energies: np.ndarray
    name: str = ""
    racemic: bool = False
    shares: np.ndarray = field(default_factory=lambda: np.empty(0))
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = self.rdmol.GetNumAtoms()
        positions = np.array(self.conformers, dtype=float)
        if positions.ndim != 3 or positions.shape[1:] != (n, 3) or len(positions) == 0:
            raise MoleculeError(f"conformers must have shape (K, {n}, 3) with K > 0, not {positions.shape}")
        if not np.isfinite(positions).all():
            raise MoleculeError("conformers contain NaN or infinite coordinates")
        masses = np.array([atom.GetMass() for atom in self.rdmol.GetAtoms()])
        positions -= np.einsum("n,knx->kx", masses / masses.sum(), positions)[:, None]
        object.__setattr__(self, "conformers", positions)
        energies = np.array(self.energies, dtype=float)
        if energies.shape != (len(positions),):
            raise MoleculeError(f"energies must be {len(positions)} numbers, one a conformer, not {energies.shape}")
        object.__setattr__(self, "energies", energies)
        shares = np.array(self.shares, dtype=float) if len(self.shares) else conf.strain_shares(self.energies)
        if shares.shape != (len(positions),) or not np.all(shares >= 0.0) or not 0.0 < shares.sum() < np.inf:
            raise MoleculeError(f"shares must be {len(positions)} numbers that are not negative, not {shares}")
        object.__setattr__(self, "shares", shares / shares.sum())

    @classmethod
    def from_smiles(
        cls, smiles: str, *, n_conformers: int | None = None, seed: int = 0, name: str = "", search: bool = True
    ) -> Molecule:
        """Build a molecule and its conformers from a SMILES.

        Parameters
        ----------
        smiles : str
            One neutral component. Unspecified stereocentres are set to one isomer, with a warning that names it; if
            none is specified, the molecule counts as racemic.
        n_conformers : int, optional
            How many of the lowest vacuum minima to take. By default a rigid molecule has one conformer, any other up to
            about forty of the kinds that crystals have, with their `shares` (`conformers_crystal`).
        seed : int
            Seed of the embedding; same seed and versions, same conformers.
        name : str
            Free text kept with the molecule.
        search : bool
            Without, a single embedded conformer that is not minimised (energy NaN): fast, for what makes conformers of
            its own.

        Raises
        ------
        MoleculeError
            Unparsable or empty SMILES, several components, radicals, a net charge.
        UnsupportedElementError
            An element outside `ELEMENTS`, or an atom that MMFF94 has no type for.
        MoleculeTooLargeError
            More than `MAX_ATOMS` atoms.
        ConformerError
            No three-dimensional structure could be made.
        """
        if n_conformers is not None and n_conformers < 1:
            raise MoleculeError(f"n_conformers must be at least 1, not {n_conformers}")
        parsed = parse_smiles(smiles)
        rdmol = check_molecule(Chem.AddHs(parsed), what=smiles, force_field=search)
        racemic = _is_flat(rdmol)
        if not search:
            rdmol, positions = _embedded(rdmol, seed)
            return cls(rdmol, positions[None], np.array([np.nan]), name, racemic)
        rdmol, found = _stereoisomer(rdmol, n_conformers, seed)
        return cls(rdmol, found.positions, found.energies, name, racemic, found.shares)

    @classmethod
    def from_file(cls, path: str | Path) -> Molecule:
        """Read one molecule with coordinates from a MOL, SDF (first record) or XYZ file.

        Missing hydrogens of a MOL/SDF are added; a flat (2D) one is embedded afresh. Bonds of an XYZ are perceived.

        Raises
        ------
        MoleculeError
            If the file cannot be read, or the molecule is refused as in `from_smiles`.
        """
        from molflow_sim.io.molecule_read import read_file

        rdmol, name = read_file(Path(path))
        flat = not rdmol.GetNumConformers()
        check_molecule(rdmol, what=str(path), force_field=flat)
        if flat:
            racemic = _is_flat(rdmol)
            rdmol, found = _stereoisomer(rdmol, None, 0)
            return cls(rdmol, found.positions, found.energies, name, racemic, found.shares)
        return cls.from_rdkit(rdmol, name=name)

    @classmethod
    def from_rdkit(cls, rdmol: Chem.Mol, name: str = "") -> Molecule:
        """Wrap an RDKit molecule with its conformers; stereochemistry is assigned from the first one.

        Raises
        ------
        MoleculeError
            If hydrogens are implicit, no 3D conformer is present, one shows another stereoisomer than the first, or the
            molecule is refused as in `from_smiles`.
        """
        if not isinstance(rdmol, Chem.Mol):
            raise MoleculeError(f"an rdkit Mol is needed, not {type(rdmol).__name__}")
        rdmol = Chem.Mol(rdmol)
        if rdmol.GetNumConformers() == 0:
            raise MoleculeError("the RDKit molecule has no conformer; embed one, or use Molecule.from_smiles")
        if any(atom.GetTotalNumHs() for atom in rdmol.GetAtoms()):
            raise MoleculeError("the RDKit molecule has implicit hydrogens; use Chem.AddHs(mol, addCoords=True)")
        rdmol.UpdatePropertyCache()
        check_molecule(rdmol, what=name or "molecule")
        positions = np.array([c.GetPositions() for c in rdmol.GetConformers()])
        if not np.isfinite(positions).all():
            raise MoleculeError("the conformers contain NaN or infinite coordinates")
        bare = conf.with_stereo(rdmol, positions[0])
        if len(positions) > 1 and not (kept := conf.keeps_stereo(bare, positions)).all():
            other = canonical_smiles(conf.with_stereo(bare, positions[kept.argmin()]))
            raise MoleculeError(
                f"conformer {kept.argmin()} is another stereoisomer, {other}, than conformer 0, "
                f"{canonical_smiles(bare)}; give the conformers of one, or use Molecule.from_smiles"
            )
        return cls(bare, positions, conf.mmff_energies(bare, positions), name)

    def with_conformers(self, positions: np.ndarray) -> Molecule:
        """The same molecule with other conformers (K, N, 3) in Å, in its atom order; energies are recomputed.

        Raises
        ------
        MoleculeError
            If the shape is wrong or coordinates are not finite.
        """
        positions = np.asarray(positions, dtype=float)
        if positions.ndim != 3 or positions.shape[1:] != (self.n_atoms, 3) or not np.isfinite(positions).all():
            raise MoleculeError(f"positions must be finite with shape (K, {self.n_atoms}, 3), not {positions.shape}")
        return replace(
            self, conformers=positions, energies=conf.mmff_energies(self.rdmol, positions), shares=np.empty(0)
        )

    @cached_property
    def numbers(self) -> np.ndarray:
        """Atomic numbers (N,)."""
        return np.array([atom.GetAtomicNum() for atom in self.rdmol.GetAtoms()], dtype=int)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Element symbols, N of them."""
        return tuple(atom.GetSymbol() for atom in self.rdmol.GetAtoms())

    @cached_property
    def site_symbols(self) -> tuple[str, ...]:
        """Element symbols, N of them, with D and T for the isotopes of hydrogen."""
        named = {("H", 2): "D", ("H", 3): "T"}
        return tuple(named.get((a.GetSymbol(), a.GetIsotope()), a.GetSymbol()) for a in self.rdmol.GetAtoms())

    @cached_property
    def masses(self) -> np.ndarray:
        """Atomic masses (N,) in amu, isotopes honoured."""
        return np.array([atom.GetMass() for atom in self.rdmol.GetAtoms()])

    @cached_property
    def bonds(self) -> np.ndarray:
        """Bonded pairs (nb, 2), i < j, sorted."""
        pairs = sorted(tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in self.rdmol.GetBonds())
        return np.array(pairs, dtype=int).reshape(-1, 2)

    @cached_property
    def smiles(self) -> str:
        """Canonical isomeric SMILES without explicit hydrogens."""
        return canonical_smiles(self.rdmol)

    @cached_property
    def inchi_key(self) -> str:
        """Standard InChIKey, empty where InChI has none. Tautomers can share one."""
        with rdBase.BlockLogs():
            try:
                return str(Chem.MolToInchiKey(self.rdmol))
            except Exception:  # an RDKit build without InChI
                return ""

    @cached_property
    def key(self) -> str:
        """Identifier, the same in every session: InChIKey and a digest of the SMILES (it tells tautomers apart)."""
        digest = hashlib.sha256(self.smiles.encode()).hexdigest()
        return f"{self.inchi_key}-{digest[:8]}" if self.inchi_key else digest[:32]

    @property
    def n_atoms(self) -> int:
        """Number of atoms, hydrogens included."""
        return int(self.rdmol.GetNumAtoms())

    @cached_property
    def formula(self) -> str:
        """Hill formula, e.g. ``C9H8O4``."""
        return str(rdMolDescriptors.CalcMolFormula(self.rdmol, separateIsotopes=True, abbreviateHIsotopes=True))

    @cached_property
    def n_rotatable(self) -> int:
        """Rotatable bonds, RDKit's strict definition (terminal groups and amides excluded)."""
        return int(rdMolDescriptors.CalcNumRotatableBonds(self.rdmol))

    @cached_property
    def volume(self) -> float:
        """Van der Waals volume of the first conformer in Å³."""
        return conf.molecular_volume(self.rdmol, self.conformers[0])

    @property
    def molar_mass(self) -> float:
        """Mass in amu (g/mol)."""
        return float(self.masses.sum())

    @cached_property
    def is_chiral(self) -> bool:
        """Whether the stereochemistry differs from its mirror image, so that an enantiopure crystal is a Sohncke one.

        Fixed stereochemistry only: a twisted conformer of a molecule without stereocentres is not chiral here.
        """
        return not same_stereo(self.rdmol, mirror_image(self.rdmol))

    @property
    def is_enantiopure(self) -> bool:
        """Whether only one hand of a chiral molecule is there, which leaves its crystals the Sohncke groups."""
        return self.is_chiral and not self.racemic

    def point_group_operations(self, k: int = 0, tolerance: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
        """Rotations and rotoreflections that map conformer k on itself.

        Parameters
        ----------
        k : int
            Which conformer.
        tolerance : float
            Largest displacement in Å.

        Returns
        -------
        matrices : ndarray (M, 3, 3)
            Orthogonal to rounding, a closed group, the identity first.
        permutations : ndarray (M, N)
            ``matrices[m] @ x[i]`` lies on ``x[permutations[m, i]]``; exactly so for `symmetrised`.
        """
        return self._point_group(k, tolerance)[:2]

    def symmetrised(self, k: int = 0) -> np.ndarray:
        """Conformer k averaged over its point group: positions (N, 3) in Å on which the operations act exactly."""
        return self._point_group(k, 0.1)[2].copy()

    def _point_group(self, k: int, tolerance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cache = self.__dict__.setdefault("_point_groups", {})
        if (k, tolerance) not in cache:
            cache[k, tolerance] = point_group(self.rdmol, self.conformers[k], tolerance)
        return cache[k, tolerance]

    def to_ase(self, k: int = 0) -> Atoms:
        """ASE atoms of conformer k, without a cell; ``info`` holds its ``smiles`` and the plain notes."""
        from ase import Atoms

        plain = {key: v for key, v in self.info.items() if isinstance(v, (str, int, float, bool))}
        return Atoms(self.numbers, self.conformers[k], masses=self.masses, info={**plain, "smiles": self.smiles})

    def with_info(self, **notes: Any) -> Molecule:
        """The same molecule with entries added to `info`."""
        return replace(self, info={**self.info, **notes})

    def __repr__(self) -> str:
        return f"Molecule({self.smiles!r}, {self.formula}, {len(self.conformers)} conformers)"


def _is_flat(rdmol: Chem.Mol) -> bool:
    """Whether there are stereocentres and none has its hand written down."""
    with rdBase.BlockLogs():
        stereo = [s for s in Chem.FindPotentialStereo(Chem.Mol(rdmol)) if s.type == Chem.StereoType.Atom_Tetrahedral]
    return bool(stereo) and all(s.specified == Chem.StereoSpecified.Unspecified for s in stereo)


def _stereoisomer(rdmol: Chem.Mol, n_conformers: int | None, seed: int) -> tuple[Chem.Mol, Conformers]:
    """Conformers, after fixing unspecified stereochemistry to that of the best of a few embeddings."""
    with rdBase.BlockLogs():
        fixed = Chem.Mol(rdmol)
        if _is_open(fixed):
            fixed = conf.with_stereo(rdmol, conf.generate(rdmol, 1, seed, mirror=False, trials=8)[0][0])
        mirror = same_stereo(fixed, mirror_image(fixed))
        if n_conformers is None:
            found = crystal_conformers(fixed, seed, mirror)
        else:
            found = Conformers(*conf.generate(fixed, n_conformers, seed, mirror))
    _warn_of_choice(rdmol, fixed)
    return fixed, found


def _embedded(rdmol: Chem.Mol, seed: int) -> tuple[Chem.Mol, np.ndarray]:
    """One embedded conformer (N, 3) in Å, whose stereochemistry stands where none is specified."""
    with rdBase.BlockLogs():
        positions = conf.embed(rdmol, 1, seed).GetConformer().GetPositions()
        fixed = conf.with_stereo(rdmol, positions) if _is_open(rdmol) else rdmol
    _warn_of_choice(rdmol, fixed)
    return fixed, positions


def _is_open(rdmol: Chem.Mol) -> bool:
    """Whether some stereochemistry is left open."""
    return any(s.specified == Chem.StereoSpecified.Unspecified for s in Chem.FindPotentialStereo(Chem.Mol(rdmol)))


def _warn_of_choice(rdmol: Chem.Mol, fixed: Chem.Mol) -> None:
    before, after = canonical_smiles(rdmol), canonical_smiles(fixed)
    if before != after:
        warnings.warn(
            f"{before}: stereochemistry is not fully specified; went on with {after}. "
            "Write the stereochemistry into the SMILES to choose",
            stacklevel=4,
        )
