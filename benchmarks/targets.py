"""The rigid experimental crystals that the benchmarks are judged on, and why each other one is left out.

A crystal of the Crystallography Open Database is a target when it holds one species with at most one molecule in the
asymmetric unit, H, C, N, O, F, Cl, Br and S only, at most 36 atoms a molecule, at most one rotatable bond and no
flexible ring. These rules are applied to every file; nothing else is looked at.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem

from molflow_sim import MolecularCrystal, Molecule
from molflow_sim.errors import MolflowError
from molflow_sim.evaluate import found_rmsd
from molflow_sim.evaluate.fingerprint import compared_atoms

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cod_organic"
ELEMENTS = frozenset([1, 6, 7, 8, 9, 16, 17, 35])
MAX_ATOMS = 36
MAX_ROTATABLE = 1


@dataclass(frozen=True, eq=False)
class Target:
    """One experimental crystal and its molecule.

    Attributes
    ----------
    name : str
        COD number.
    crystal : MolecularCrystal
        As measured; X-H bonds lengthened to neutron values.
    experimental : Molecule
        The molecule with the crystal's conformer.
    racemic : bool
        Whether a molecule with fixed stereocentres crystallises together with its mirror image.
    """

    name: str
    crystal: MolecularCrystal
    experimental: Molecule
    racemic: bool

    @property
    def found_rmsd(self) -> float:
        """RMSD15 (Å) below which a packing is this form."""
        numbers = self.experimental.numbers
        return found_rmsd(int(compared_atoms(numbers, np.zeros(len(numbers), int)).sum()))

    @property
    def smiles(self) -> str:
        """Canonical isomeric SMILES of the molecule in the asymmetric unit."""
        return self.experimental.smiles

    def generated(self, seed: int = 0, minima: int | None = None) -> Molecule:
        """The molecule as a user would have it, conformers from the SMILES.

        Parameters
        ----------
        seed : int
        minima : int, optional
            So many of the lowest vacuum minima, as is usual elsewhere, instead of the conformers of all families.

        Raises
        ------
        MolflowError
            Where RDKit or MMFF94 cannot handle it; the benchmark counts that as a miss.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Molecule.from_smiles(self.smiles, n_conformers=minima, seed=seed, name=self.name)


def flexible_rings(mol: Chem.Mol) -> int:
    """Number of rings that can pucker: five or more members and a single bond between two sp3 ring atoms.

    Rings of bridged systems (adamantane, hexamine, norbornane) are rigid and do not count.
    """
    info = mol.GetRingInfo()
    rings = [set(r) for r in info.AtomRings()]
    bridged = set()
    for i, a in enumerate(rings):
        for b in rings[:i]:
            if len(a & b) > 2:
                bridged |= a | b
    sp3 = Chem.HybridizationType.SP3
    count = 0
    for atoms, bonds in zip(rings, info.BondRings()):
        if len(atoms) < 5 or atoms <= bridged:
            continue
        pairs = [mol.GetBondWithIdx(b) for b in bonds]
        count += any(p.GetBeginAtom().GetHybridization() == p.GetEndAtom().GetHybridization() == sp3 for p in pairs)
    return count


def reason_left_out(
    crystal: MolecularCrystal, max_atoms: int = MAX_ATOMS, max_rotatable: int | None = MAX_ROTATABLE
) -> str | None:
    """Which rule a crystal breaks, or None for a target.

    Without `max_rotatable` flexible molecules are targets too, those with flexible rings among them.
    """
    if len(crystal.molecules) != 1:
        return "more than one species"
    if len(crystal.asymmetric_unit) > 1 or crystal.z_prime > 1:
        return "more than one molecule in the asymmetric unit"
    molecule = crystal.molecules[0]
    if not set(np.unique(molecule.numbers).tolist()) <= ELEMENTS:
        return "other elements"
    if molecule.n_atoms > max_atoms:
        return f"more than {max_atoms} atoms"
    if max_rotatable is not None and molecule.n_rotatable > max_rotatable:
        return f"more than {max_rotatable} rotatable bond"
    if max_rotatable is not None and flexible_rings(molecule.rdmol):
        return "a flexible ring"
    if not 0.5 <= crystal.density <= 3.0:
        return f"an impossible density of {crystal.density:.2f} g/cm³ in the file"
    return None


def read_targets(
    folder: Path = DATA, left_out_because: Callable[[MolecularCrystal], str | None] = reason_left_out
) -> tuple[list[Target], dict[str, str]]:
    """All targets in the folder, smallest molecule first, and the reason each other file is left out.

    Parameters
    ----------
    folder : Path
        Holds cif/.
    left_out_because : callable
        The rule: a reason, or None for a target.

    Raises
    ------
    FileNotFoundError
        If the data folder is not there.
    """
    files = sorted((folder / "cif").glob("*.cif"))
    if not files:
        raise FileNotFoundError(f"no CIF files in {folder / 'cif'}; give the folder with --data")
    targets, left_out = [], {}
    for path in files:
        try:
            crystal = MolecularCrystal.from_cif(path, normalise_hydrogens=True)
            reason = left_out_because(crystal)
        except MolflowError as error:
            reason = f"not read: {type(error).__name__}"
        if reason is not None:
            left_out[path.stem] = reason
            continue
        molecule = crystal.molecules[0]
        molecule = molecule.with_conformers(np.asarray(crystal.asymmetric_unit[0].conformer)[None])
        racemic = molecule.is_chiral and not crystal.space_group.is_sohncke
        targets.append(Target(path.stem, crystal, molecule, racemic))
    targets.sort(key=lambda t: (t.experimental.n_atoms, t.name))
    return targets, left_out
