"""A binding pocket for AutoDock Vina: the receptor, a box about the measured ligand, and docked poses against it.

Vina: Eberhardt et al., J. Chem. Inf. Model. 61, 3891 (2021). Meeko writes receptor and ligands in its format.
"""

import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from benchmarks.conformer_metrics import mappings
from molflow_sim.errors import InputError, MissingDependencyError, MolflowError

MARGIN = 5.0
"""Å of the box beyond the measured ligand."""


class DockingError(MolflowError):
    """Vina or Meeko cannot dock this ligand."""


@dataclass(frozen=True)
class Pose:
    """The best-scored pose: Vina's ``score`` in kcal/mol, ``rmsd`` in Å to the measured one where both lie."""

    score: float
    rmsd: float


def libraries() -> tuple[Any, Any]:
    """The modules vina and meeko.

    Raises
    ------
    MissingDependencyError
        One is not installed.
    """
    try:
        import meeko
        import vina
    except ImportError as error:
        raise MissingDependencyError("AutoDock Vina with Meeko", "dock") from error
    logging.getLogger("meeko").setLevel(logging.ERROR)
    return vina, meeko


def read_ligand(path: Path) -> Chem.Mol:
    """The first molecule of an SDF as measured, without hydrogens, its stereochemistry that of its coordinates."""
    try:
        mol = next(iter(Chem.SDMolSupplier(str(path))), None)
    except OSError as error:
        raise InputError(f"{path}: {error}") from None
    if mol is None or not mol.GetNumConformers() or not mol.GetConformer().Is3D():
        raise InputError(f"{path}: no molecule with coordinates in three dimensions is its first; give one as SDF")
    Chem.AssignStereochemistryFrom3D(mol)
    return mol


def receptor_pdbqt(path: Path) -> str:
    """A receptor as PDBQT: what the file holds, or a PDB typed by Meeko, which adds hydrogens that are missing.

    Raises
    ------
    InputError
        The file cannot be read, or Meeko knows no template of a residue (it would look for one in the network).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    atoms = [line for line in text.splitlines() if line.startswith(("ATOM", "HETATM"))]
    if not atoms:
        raise InputError(f"{path}: no atoms; a receptor is a file PDB or PDBQT")
    if path.suffix.lower() == ".pdbqt":
        return text
    meeko = libraries()[1]
    templates = meeko.ResidueChemTemplates.create_from_defaults()
    known = {*templates.residue_templates, *templates.ambiguous}
    if unknown := sorted({line[17:20].strip() for line in atoms} - known):
        raise InputError(
            f"{path}: no template of {', '.join(unknown)}; take them out, or prepare a PDBQT by Meeko's "
            "mk_prepare_receptor.py with --add_templates"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            polymer = meeko.Polymer.from_pdb_string(text, templates, meeko.MoleculePreparation())
            return str(meeko.PDBQTWriterLegacy.write_from_polymer(polymer)[0])
    except (meeko.PolymerCreationError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: Meeko cannot type it: {str(error).strip()[:500]}") from None


def ligand_pdbqt(rdmol: Chem.Mol, rigid: bool) -> str:
    """A ligand with its conformer as PDBQT; rings stay as they are, with `rigid` all torsions do, polar groups' too."""
    meeko = libraries()[1]
    held: dict[str, Any] = {"rigidify_bonds_smarts": ["*~*"], "rigidify_bonds_indices": [[0, 1]]} if rigid else {}
    try:
        setups = meeko.MoleculePreparation(rigid_macrocycles=True, **held).prepare(rdmol)
        text, good, reason = meeko.PDBQTWriterLegacy.write_string(setups[0])
    except (RuntimeError, ValueError, KeyError) as error:
        good, reason = False, str(error)
    if not good:
        raise DockingError(f"Meeko cannot type {Chem.MolToSmiles(Chem.RemoveHs(rdmol))}: {reason}")
    return str(text)


def in_place(reference: Chem.Mol, other: Chem.Mol) -> float:
    """RMSD in Å of the heavy atoms of two copies of a molecule where they lie, over symmetric names.

    Raises
    ------
    InputError
        They are different molecules.
    """
    atoms, orders = mappings(reference, other)
    x, y = (m.GetConformer().GetPositions() for m in (reference, other))
    return float(np.sqrt(((x[atoms] - y[orders]) ** 2).sum(2).mean(1).min()))


class Pocket:
    """A receptor about a measured ligand.

    Parameters
    ----------
    receptor : str
        PDBQT.
    measured : rdkit.Chem.Mol
        As `read_ligand` gives it; lies in the pocket.
    seed : int
        Of Vina's search.

    Raises
    ------
    MissingDependencyError
        Vina or Meeko is not installed.
    InputError
        Vina cannot read the receptor.
    """

    def __init__(self, receptor: str, measured: Chem.Mol, seed: int) -> None:
        vina, self._meeko = libraries()
        self._measured = measured
        x = measured.GetConformer().GetPositions()
        low, high = x.min(0) - MARGIN, x.max(0) + MARGIN
        self._vina = vina.Vina(cpu=1, seed=seed + 1, verbosity=0)  # Vina's seed 0 stands for any
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "receptor.pdbqt"
            path.write_text(receptor, encoding="utf-8")
            try:
                self._vina.set_receptor(str(path))
            except (RuntimeError, TypeError) as error:
                raise InputError(f"Vina cannot read the receptor: {error}") from None
        self._vina.compute_vina_maps(((low + high) / 2).tolist(), (high - low).tolist())

    def dock(self, rdmol: Chem.Mol, positions: np.ndarray, *, rigid: bool, exhaustiveness: int) -> Pose:
        """The best pose that Vina finds.

        Parameters
        ----------
        rdmol : rdkit.Chem.Mol
            The measured molecule with explicit hydrogens, in any atom order.
        positions : ndarray (N, 3)
            Å, wherever.
        rigid : bool
            Only the whole turns and moves; otherwise Vina turns its torsions, too, and starts from random ones.
        exhaustiveness : int
            Runs of the search.

        Raises
        ------
        DockingError
            Meeko or Vina fails.
        InputError
            It is another molecule.
        """
        mol = Chem.Mol(rdmol)
        mol.RemoveAllConformers()
        conformer = Chem.Conformer(len(positions))
        conformer.SetPositions(np.ascontiguousarray(positions, dtype=float))
        mol.AddConformer(conformer)
        try:
            self._vina.set_ligand_from_string(ligand_pdbqt(mol, rigid))
            self._vina.dock(exhaustiveness=exhaustiveness, n_poses=1)
            score = float(self._vina.energies(n_poses=1)[0][0])
            read = self._meeko.PDBQTMolecule(self._vina.poses(n_poses=1), skip_typing=True)
            pose = self._meeko.RDKitMolCreate.from_pdbqt_mol(read)[0]
        except (RuntimeError, ValueError, IndexError) as error:
            raise DockingError(f"no pose: {error}") from None
        return Pose(round(score, 3), round(in_place(self._measured, pose), 3))
