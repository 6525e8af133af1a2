"""What may be a molecule here, and which stereoisomer it is."""

from __future__ import annotations

from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers as mmff

from molflow_sim.errors import MoleculeError, MoleculeTooLargeError, UnsupportedElementError

ELEMENTS = ("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I")
"""Elements a molecule may contain."""
MAX_ATOMS = 200
"""Largest molecule, hydrogens included."""
_MAX_SMILES = 2000
_ALLOWED = frozenset(Chem.GetPeriodicTable().GetAtomicNumber(s) for s in ELEMENTS)


def check_molecule(rdmol: Chem.Mol, what: str, force_field: bool = False) -> Chem.Mol:
    """Return `rdmol` (explicit hydrogens) if it is one neutral closed-shell molecule of supported elements.

    With `force_field`, MMFF94 must have types for every atom.

    Raises
    ------
    MoleculeError, UnsupportedElementError, MoleculeTooLargeError
        Saying which rule is broken.
    """
    what = what if len(what) <= 80 else what[:77] + "..."
    n = rdmol.GetNumAtoms()
    if n == 0:
        raise MoleculeError(f"{what!r}: no atoms")
    strange = sorted({a.GetSymbol() for a in rdmol.GetAtoms() if a.GetAtomicNum() not in _ALLOWED})
    if strange:
        raise UnsupportedElementError(
            f"{what}: element {', '.join(strange)} is not supported; supported are {', '.join(ELEMENTS)}"
        )
    fragments = len(Chem.GetMolFrags(rdmol))
    if fragments > 1:
        raise MoleculeError(
            f"{what}: {fragments} components; co-crystals, salts and solvates are not supported yet, give one molecule"
        )
    if n > MAX_ATOMS:
        raise MoleculeTooLargeError(f"{what}: {n} atoms with hydrogens; the limit is {MAX_ATOMS}")
    if any(a.GetNumRadicalElectrons() for a in rdmol.GetAtoms()):
        raise MoleculeError(f"{what}: radicals are not supported; add the missing hydrogen or bond")
    charge = Chem.GetFormalCharge(rdmol)
    if charge:
        raise MoleculeError(f"{what}: net charge {charge:+d}; give the neutral molecule, ions are not supported")
    if force_field:
        with rdBase.BlockLogs():
            typed = mmff.MMFFHasAllMoleculeParams(rdmol)
        if not typed:
            boron = " (it has none for boron)" if any(a.GetAtomicNum() == 5 for a in rdmol.GetAtoms()) else ""
            raise UnsupportedElementError(
                f"{what}: MMFF94 has no type for an atom of this molecule{boron}; it cannot be parametrised"
            )
    return rdmol


def canonical_smiles(rdmol: Chem.Mol) -> str:
    """Canonical isomeric SMILES without explicit hydrogens."""
    with rdBase.BlockLogs():
        return str(Chem.MolToSmiles(_heavy(rdmol)))


def mirror_image(rdmol: Chem.Mol) -> Chem.Mol:
    """The enantiomer: every tetrahedral and axial stereo tag inverted, atom order kept."""
    out = Chem.Mol(rdmol)
    for atom in out.GetAtoms():
        atom.InvertChirality()
    swap = {
        Chem.BondStereo.STEREOATROPCW: Chem.BondStereo.STEREOATROPCCW,
        Chem.BondStereo.STEREOATROPCCW: Chem.BondStereo.STEREOATROPCW,
    }
    for bond in out.GetBonds():
        if bond.GetStereo() in swap:
            bond.SetStereo(swap[bond.GetStereo()])
    return out


def same_stereo(a: Chem.Mol, b: Chem.Mol) -> bool:
    """Whether two molecules are the same stereoisomer."""
    if canonical_smiles(a) == canonical_smiles(b):
        return True
    a, b = _heavy(a), _heavy(b)
    return a.GetNumAtoms() == b.GetNumAtoms() and a.HasSubstructMatch(b, useChirality=True)


def _heavy(rdmol: Chem.Mol) -> Chem.Mol:
    """The molecule with implicit hydrogens, also where RDKit cannot sanitize its own aromatic form again."""
    try:
        return Chem.RemoveHs(rdmol)
    except Chem.MolSanitizeException:
        return Chem.RemoveHs(rdmol, sanitize=False)


def molecule_of(smiles: str) -> Chem.Mol:
    """The molecule of a SMILES with explicit hydrogens, which come after the other atoms; raises as `parse_smiles`."""
    return Chem.AddHs(parse_smiles(smiles))


def parse_smiles(smiles: str) -> Chem.Mol:
    """The sanitized molecule of a SMILES, without RDKit's messages on stderr.

    Raises
    ------
    MoleculeError, MoleculeTooLargeError
        Saying what is wrong with it.
    """
    if not isinstance(smiles, str) or not smiles.strip():
        raise MoleculeError("an empty SMILES; give one molecule, e.g. 'CC(=O)Oc1ccccc1C(=O)O'")
    smiles = smiles.strip()
    if len(smiles) > _MAX_SMILES:
        raise MoleculeTooLargeError(f"a SMILES of {len(smiles)} characters; the limit is {MAX_ATOMS} atoms")
    if any(c.isspace() for c in smiles) or not smiles.isprintable() or not smiles.isascii():
        raise MoleculeError(f"cannot read SMILES {smiles!r}: it contains white space or characters outside ASCII")
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles, sanitize=False)
        problems = "" if mol is None else "; ".join(p.Message() for p in Chem.DetectChemistryProblems(mol))
        sane = None if mol is None or problems else Chem.MolFromSmiles(smiles)
    if sane is None:
        raise MoleculeError(f"cannot read SMILES {smiles!r}: {problems or 'it is not valid SMILES syntax'}")
    return sane
