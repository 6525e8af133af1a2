"""Conformers of files: SDF records and molecules of measured crystals, each in the atom order of its SMILES."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from molflow_sim.chemistry.checks import canonical_smiles, check_molecule, parse_smiles, same_stereo
from molflow_sim.chemistry.conformers import with_positions, with_stereo
from molflow_sim.dataset.items import Item, Row
from molflow_sim.dataset.skeletons import skeletons, three_way_split
from molflow_sim.errors import ConformerError, CrystalError, MoleculeError, MolflowError, NonFiniteError
from molflow_sim.io.ensembles import ConformerEnsemble, boltzmann_shares
from molflow_sim.io.sdf import graph_smiles, read_records, record_property, record_title
from molflow_sim.runs.identity import digest
from molflow_sim.units import KCAL_PER_MOL

SDF, CRYSTAL = "sdf", "crystal"
"""Kinds of items."""


def sdf_items(path: Path) -> tuple[list[Item], list[Row]]:
    """The records of an SDF by molecule, and rows for records that say of no molecule.

    Records belong together that have one ``smiles`` property, or, without it, one title, or else one bond graph.

    Raises
    ------
    InputError
        The file cannot be read or holds no record.
    """
    records: dict[str, list[str]] = {}
    rows = []
    for number, text in enumerate(read_records(path), 1):
        named = record_property(text, "smiles") or record_title(text) or graph_smiles(text)
        if not named:
            reason = "MoleculeError: a record that RDKit cannot read, without a title or a SMILES"
            rows.append({"source": f"{path.name}:{number}", "name": "", "smiles": "", "reason": reason})
            continue
        records.setdefault(named, []).append(json.dumps([number, text]))
    items = []
    for named, texts in records.items():
        first, text = json.loads(texts[0])
        title = record_title(text)
        items.append(Item(SDF, digest(named, texts), "\n".join(texts), title, f"{path.name}:{first}"))
    return items, rows


def sdf_ensemble(
    item: Item, excluded: Mapping[str, str], energy_property: str | None, source: str
) -> tuple[ConformerEnsemble, dict[str, Any]]:
    """The conformers of a molecule that stand in an SDF.

    Parameters
    ----------
    item : Item
        Of `sdf_items`.
    excluded : mapping
        Skeletons that belong to the test side.
    energy_property : str, optional
        Property with an energy in kcal/mol; a record without it is kept, with the energy unknown.
    source : str

    Raises
    ------
    MolflowError
        No record can be used; the message holds the first reason.
    """
    reference: Chem.Mol | None = None
    positions, energies, left_out = [], [], []
    first: MolflowError | None = None
    for line in item.content.split("\n"):
        number, text = json.loads(line)
        try:
            mol = _read(text)
            energy = _energy(text, energy_property)
            if reference is None:
                reference = _reference(mol, record_property(text, "smiles"))
            positions.append(_in_order(mol, reference))
            energies.append(energy)
        except MolflowError as error:
            first = first or error
            left_out.append(f"record {number}: {error.reason}")
    if reference is None or not positions:
        raise first or ConformerError("no record")
    ensemble, blocks = _ensemble(reference, np.array(positions), np.array(energies), item.name, source, excluded)
    return ensemble, {"skeleton": blocks[0], "left_out": left_out}


def crystal_ensemble(item: Item, excluded: Mapping[str, str]) -> tuple[ConformerEnsemble, dict[str, Any]]:
    """The molecules of a measured crystal of one species, hydrogens at neutron distances.

    Raises
    ------
    CrystalError
        Several species.
    MolflowError
        The file cannot be read as a crystal of whole molecules.
    """
    from molflow_sim.systems.crystal import MolecularCrystal

    crystal = MolecularCrystal.from_cif(Path(item.content), normalise_hydrogens=True)
    if len(crystal.molecules) != 1:
        names = ", ".join(m.formula for m in crystal.molecules)
        raise CrystalError(f"{len(crystal.molecules)} species ({names}); crystals of one species are taken")
    rdmol = crystal.molecules[0].rdmol
    reference = Chem.AddHs(parse_smiles(canonical_smiles(rdmol)))
    positions, left_out = [], []
    first: MolflowError | None = None
    for unit in crystal.asymmetric_unit:
        # of a racemate the molecule of the other hand is at hand, too
        hand = 1.0 if same_stereo(with_stereo(rdmol, unit.conformer), reference) else -1.0
        try:
            positions.append(_in_order(with_positions(rdmol, hand * unit.conformer), reference))
        except MolflowError as error:
            first = first or error
            left_out.append(error.reason)
    if not positions:
        raise first or ConformerError("no molecule in the asymmetric unit")
    unknown = np.full(len(positions), np.nan)
    ensemble, blocks = _ensemble(reference, np.array(positions), unknown, item.name, "measured", excluded)
    return ensemble, {"skeleton": blocks[0], "left_out": left_out}


def _ensemble(
    reference: Chem.Mol, positions: np.ndarray, energies: np.ndarray, name: str, source: str,
    excluded: Mapping[str, str],
) -> tuple[ConformerEnsemble, tuple[str, ...]]:  # fmt: skip
    blocks = skeletons(reference)
    relative = energies - np.nanmin(energies) if np.isfinite(energies).any() else energies
    order = np.argsort(relative, kind="stable")  # unknown ones last
    ensemble = ConformerEnsemble(
        smiles=canonical_smiles(reference), name=name,
        numbers=np.array([a.GetAtomicNum() for a in reference.GetAtoms()]), positions=positions[order],
        energies=relative[order], shares=boltzmann_shares(relative[order]), source=source,
        split=three_way_split(blocks, excluded),
    )  # fmt: skip
    return ensemble, blocks


def _reference(mol: Chem.Mol, smiles: str) -> Chem.Mol:
    """The molecule of the SMILES, or, where that leaves stereochemistry open or is missing, of the coordinates."""
    seen = with_stereo(mol, mol.GetConformer().GetPositions())
    if not smiles:
        return Chem.AddHs(parse_smiles(canonical_smiles(seen)))
    written = parse_smiles(smiles)
    with rdBase.BlockLogs():
        open_ = any(s.specified != Chem.StereoSpecified.Specified for s in Chem.FindPotentialStereo(written))
    if open_ and same_stereo(seen, Chem.AddHs(written)):
        written = parse_smiles(canonical_smiles(seen))
    # canonical, so that its atoms are in the order of the SMILES that is stored
    return Chem.AddHs(parse_smiles(canonical_smiles(written)))


def _in_order(mol: Chem.Mol, reference: Chem.Mol) -> np.ndarray:
    """Positions (N, 3) in Å of a molecule, in the order of `reference`.

    Raises
    ------
    MoleculeError
        It is another molecule.
    ConformerError
        It is another stereoisomer.
    """
    positions = mol.GetConformer().GetPositions()
    if not np.isfinite(positions).all():
        raise NonFiniteError("coordinates that are NaN or infinite")
    seen = with_stereo(mol, positions)
    with rdBase.BlockLogs():
        Chem.SanitizeMol(seen, catchErrors=True)  # aromatic where RDKit has it so, as the SMILES
    if seen.GetNumAtoms() == reference.GetNumAtoms():
        order = seen.GetSubstructMatch(reference, useChirality=True)
        if order:
            return np.asarray(positions[list(order)])
    flat, other = Chem.Mol(seen), Chem.Mol(reference)
    Chem.RemoveStereochemistry(flat)
    Chem.RemoveStereochemistry(other)
    if canonical_smiles(flat) == canonical_smiles(other):
        raise ConformerError(
            f"another stereoisomer: the coordinates show {canonical_smiles(seen)}, the molecule is "
            f"{canonical_smiles(reference)}"
        )
    raise MoleculeError(
        f"another molecule: the record holds {canonical_smiles(seen)}, expected {canonical_smiles(reference)}"
    )


def _read(text: str) -> Chem.Mol:
    """The molecule of a record, with all its hydrogens and coordinates.

    Raises
    ------
    MolflowError
        What is wrong with it.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(text, removeHs=False)
    if mol is None:
        raise MoleculeError("RDKit cannot read the record, or its valences are impossible")
    what = record_title(text) or "the record"
    missing = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
    if missing:
        raise MoleculeError(f"{missing} hydrogens are missing; conformers are taken with all of them")
    if mol.GetNumAtoms() > 4 and not np.ptp(mol.GetConformer().GetPositions(), axis=0).all():
        if any(a.GetHybridization() == Chem.HybridizationType.SP3 for a in mol.GetAtoms()):
            raise ConformerError("flat: coordinates of a drawing, not of a conformer")
    return check_molecule(mol, what)


def _energy(text: str, name: str | None) -> float:
    """In eV; NaN where the record has none."""
    value = record_property(text, name) if name else ""
    if not value:
        return float("nan")
    try:
        energy = float(value)
    except ValueError:
        energy = float("nan")
    if not np.isfinite(energy):
        raise NonFiniteError(f"the energy {name} is {value!r}, not a number")
    return energy * KCAL_PER_MOL
