"""Where the experimental form came in a landscape, and whether the potential keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim.chemistry.bonds import skeleton
from molflow_sim.chemistry.checks import canonical_smiles
from molflow_sim.chemistry.conformers import keeps_stereo, with_stereo
from molflow_sim.energies.models import BESTS
from molflow_sim.errors import CrystalError, InputError
from molflow_sim.runs.files import sha256
from molflow_sim.runs.progress import Progress
from molflow_sim.screening.failures import FAILURES, reason_of
from molflow_sim.screening.landscape import short_symbol
from molflow_sim.screening.ranking import RelaxedRow
from molflow_sim.screening.stages import Shared
from molflow_sim.units import KJ_PER_MOL

MAX_MATCHES = 100
"""Ways to lay the screened molecule on the reference's that are tried."""
SEARCHED = 200
"""Structures compared with the reference, from the top of the ranking."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """An experimental structure of the screened molecule.

    Attributes
    ----------
    name : str
        File name.
    digest : str
        SHA-256 of the file.
    crystal : MolecularCrystal
        As read, X-H lengths normalised.
    atom_map : ndarray of int, shape (N,)
        Atom ``atom_map[k]`` of the crystal's molecule is atom k of the screened molecule.
    """

    name: str
    digest: str
    crystal: Any
    atom_map: np.ndarray


def read_reference(path: str | Path, molecule: Any, block: str | None = None) -> Experiment:
    """Read an experimental CIF and check that it is a crystal of the molecule.

    Raises
    ------
    InputError
        If the file cannot be read or holds other molecules or another stereoisomer (CrystalError and its kin for
        disorder, missing hydrogens or partial occupancies). Where the SMILES gives no hand, either is accepted.
    """
    from molflow_sim.systems.crystal import MolecularCrystal

    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"reference {path} cannot be read: {error.strerror}") from error
    crystal = MolecularCrystal.from_cif(path, normalise_hydrogens=True, block=block)
    if len(crystal.molecules) != 1:
        names = ", ".join(m.formula for m in crystal.molecules)
        raise CrystalError(f"reference {path.name} holds several species ({names}); one, {molecule.formula}, is needed")
    return Experiment(path.name, sha256(data), crystal, _atom_map(crystal, molecule, path.name))


def _atom_map(crystal: Any, molecule: Any, name: str) -> np.ndarray:
    """Atom of the crystal's molecule for each atom of `molecule`: same elements and bonds, same stereochemistry."""
    other = crystal.molecules[0]
    matches: tuple = ()
    if other.n_atoms == molecule.n_atoms:
        # Bond orders read from a crystal may be drawn otherwise (tautomeric resonance, nitro groups): graph only.
        graphs = skeleton(other.rdmol), skeleton(molecule.rdmol)
        matches = graphs[0].GetSubstructMatches(graphs[1], uniquify=False, maxMatches=MAX_MATCHES)
    if not matches:
        raise CrystalError(
            f"reference {name} is a crystal of {other.formula} ({other.smiles}), not of the screened molecule "
            f"{molecule.formula} ({molecule.smiles})"
        )
    if molecule.is_enantiopure and other.racemic:
        raise CrystalError(
            f"reference {name} is a racemic crystal, but one hand is screened ({molecule.smiles}), which never packs "
            "like that; leave the stereochemistry out of the SMILES to screen the racemate"
        )
    positions = np.array([other.conformers[0][list(match)] for match in matches])
    same = keeps_stereo(molecule.rdmol, positions)
    if not molecule.is_enantiopure:
        same |= keeps_stereo(molecule.rdmol, -positions)
    if not same.any():
        raise CrystalError(
            f"reference {name} is another stereoisomer, {canonical_smiles(with_stereo(molecule.rdmol, positions[0]))}, "
            f"than the screened molecule, {molecule.smiles}; screen that SMILES to compare with it"
        )
    return np.array(matches[int(same.argmax())])


def locate(
    experiment: Experiment, rows: Sequence[RelaxedRow], shared: Shared, bars: Progress, spec: str = "potential"
) -> dict[str, Any]:
    """Relax the experimental structure and find it among the ranked rows.

    The form is found where a row is the measured structure, or that structure relaxed as the row was (on the force
    field, or on what ranks, `spec`), unless relaxation turns it into another packing: cells at 0 K may differ by more
    from measured ones than the bound for small molecules allows.

    Returns
    -------
    dict
        ``match``: fields of `ReferenceMatch` without rank and ΔE; ``hit``: id of the structure that is the
        experimental form, or None; ``rmsd15``: pairs (id, Å) of all structures that match 15 of 15 molecules.
    """
    crystal, stages = experiment.crystal, shared.stages
    compared = list(rows[:SEARCHED])
    match: dict[str, Any] = {
        "name": experiment.name,
        "space_group": short_symbol(crystal),
        "density": float(crystal.density),
    }
    notes = []
    relaxed = kept = refined = None
    with bars.stage("Looking for the reference", len(compared) + 1) as advance:
        try:
            result = stages.relax([crystal], _parameters(experiment, shared))[0]
            if result.crystal is None or not np.isfinite(result.energy):
                raise CrystalError(result.reason or "the relaxation failed")
            relaxed = result.crystal
            drift = stages.similarity(crystal, relaxed)
            match["relaxed_drift"] = float(drift.rmsd) if drift.n_matched == drift.n else None
            if match["relaxed_drift"] is not None:
                kept = relaxed
            else:
                notes.append(
                    f"the potential does not keep it ({drift.n_matched} of {drift.n} molecules after relaxation)"
                )
            match["relaxed_relative_energy"] = (float(result.energy) - min(r.energy for r in rows)) / KJ_PER_MOL
            if spec in BESTS:
                done = stages.refine([relaxed], _parameters(experiment, shared, shared.ranking), spec)[0]
                if done.crystal is None:
                    raise CrystalError(done.reason or f"the relaxation on {spec} failed")
                refined = done.crystal
                drift = stages.similarity(crystal, refined)
                if drift.n_matched < drift.n:
                    notes.append(f"best does not keep it ({drift.n_matched} of {drift.n} molecules after relaxation)")
                    refined = None
        except FAILURES as error:
            notes.append(f"not relaxed{'' if relaxed is None else ' on best'}: {reason_of(error)}")
        advance(1)
        alike, hit = {}, None
        for row in compared:
            alike[row.id] = stages.similarity(row.crystal, crystal)
            own = refined if np.isfinite(row.refined_energy) else kept
            if hit is None and (alike[row.id].found or (own is not None and stages.similarity(row.crystal, own).found)):
                hit = row
            advance(1)
    if hit is not None:
        match["rmsd15"] = float(alike[hit.id].rmsd) if alike[hit.id].full else None
        if relaxed is not None:
            same = stages.similarity(hit.crystal, relaxed)
            match["rmsd15_to_relaxed"] = float(same.rmsd) if same.n_matched == same.n else None
    else:
        notes.append(f"not among the first {len(compared)} structures")
    match["note"] = "; ".join(notes)
    full = [(key, float(m.rmsd)) for key, m in alike.items() if m.full]
    return {"match": match, "hit": hit.id if hit else None, "rmsd15": full}


def _parameters(experiment: Experiment, shared: Shared, own: Any = None) -> Any:
    """Parameters in the atom order of the reference's molecule, with the screened molecule's charges (or `own`'s)."""
    own = own or shared.parameters
    parameters = shared.stages.parametrize(experiment.crystal.molecules[0], "mmff94")
    order = np.argsort(experiment.atom_map)
    sites = None if own.sites is None else own.sites.reordered(order)
    return replace(parameters, charges=np.asarray(own.charges)[order], charge_model=own.charge_model, sites=sites)
