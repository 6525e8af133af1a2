"""What a worker does: one molecule (or one CIF) in, the bytes of its shard or of a row with the reason out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.dataset.items import Excluded, Item, shard_or_row
from molflow_sim.dataset.settings import DatasetSettings
from molflow_sim.dataset.shards import pack_shard
from molflow_sim.errors import CrystalError, MoleculeTooLargeError, MolflowError, NoCandidatesError
from molflow_sim.generators.protocol import CrystalRequest
from molflow_sim.runs.identity import code_version, digest
from molflow_sim.screening.stages import Stages
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule

PRESS_MARGIN = 5.0 * KJ_PER_MOL
"""Added to the window for the press's energies, whose cut-off electrostatics err by this much for polar groups."""
EVALUATE_AT_MOST = 4
"""Packings evaluated with the full potential, as a multiple of those to keep."""
EVALUATE_BATCH = 32
"""Crystals evaluated side by side."""
MOVED = 1.0
"""Å, RMSD15; an experimental crystal that the press moves further is kept as it was read."""

STEPS = ("parametrize", "generate", "press", "deduplicate_packings", "evaluate", "similarity")
CODE = ("molflow_sim.dataset.packings:make_shard", *(f"molflow_sim.screening.stages:{name}" for name in STEPS))
"""What the numbers of a shard depend on, see `molflow_sim.runs.identity.code_identity`."""

Caught = list[warnings.WarningMessage]


def make_shard(stages: Stages, settings: DatasetSettings, excluded: Mapping[str, str], item: Item) -> bytes:
    """Shard of an item, or the row that says why there is none; never raises for what the item holds.

    Parameters
    ----------
    stages : Stages
        The steps of the search.
    settings : DatasetSettings
    excluded : mapping
        Skeletons that must not be trained on, with a SMILES of each.
    item : Item
    """
    kind: Callable[..., bytes] = _molecule_shard if item.kind == "molecule" else _crystal_shard

    def make() -> bytes:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            return kind(stages, settings, excluded, item, caught)

    return shard_or_row(item, make)


def _molecule_shard(
    stages: Stages, settings: DatasetSettings, excluded: Mapping[str, str], item: Item, caught: Caught
) -> bytes:
    from rdkit import Chem

    from molflow_sim.chemistry.checks import parse_smiles
    from molflow_sim.dataset.skeletons import skeletons
    from molflow_sim.systems.molecule import Molecule

    parsed = parse_smiles(item.content)
    n_atoms = Chem.AddHs(parsed).GetNumAtoms()
    if n_atoms > settings.max_atoms:
        raise MoleculeTooLargeError(f"{n_atoms} atoms with hydrogens; this data set takes up to {settings.max_atoms}")
    blocks = skeletons(parsed)
    for block in blocks:
        if block in excluded:
            raise Excluded(f"excluded: a tautomer or stereoisomer of {excluded[block]} in the list of exclusions")
    molecule = Molecule.from_smiles(item.content, seed=settings.seed, name=item.name)
    parameters = stages.parametrize(molecule, settings.charges)
    seed = int(digest(settings.seed, item.content, length=8), 16)
    request = CrystalRequest(molecule, settings.space_groups, settings.z_prime)
    proposed = stages.generate(settings.make_generator(), request, settings.candidates, seed)
    packings = stages.press(proposed, parameters)
    good = np.flatnonzero(packings.ok)
    if not len(good):
        raise NoCandidatesError(f"none of {settings.candidates} packings pressed to a plausible crystal")
    packings = packings.select(good)
    representative = stages.deduplicate_packings(packings, packings.energy)
    copies = np.bincount(representative, minlength=len(packings))
    rows = np.flatnonzero(representative == np.arange(len(packings)))
    rows = rows[np.argsort(packings.energy[rows], kind="stable")]
    window = settings.window * KJ_PER_MOL
    near = packings.energy[rows] <= packings.energy[rows[0]] + window + PRESS_MARGIN
    rows = rows[near][: EVALUATE_AT_MOST * settings.keep]
    crystals = [packings.crystal(i) for i in rows]
    full = _evaluate(stages, crystals, parameters)
    # Lattice energy plus strain: the same zero for every conformer, and the one experimental crystals have.
    energy = full - np.nanmin(molecule.energies)
    order = np.argsort(energy, kind="stable")
    if not len(order) or not np.isfinite(energy[order[0]]):
        raise NoCandidatesError("the full potential gave no finite energy for any pressed packing")
    order = order[energy[order] <= energy[order[0]] + window][: settings.keep]
    kept = rows[order]
    columns = {
        "energy": energy[order],
        "press_energy": packings.energy[kept],
        "relaxed": np.ones(len(kept), bool),
        "copies": copies[kept],
    }
    conformer = np.repeat(packings.conformer[kept][:, None], packings.centroid.shape[1], axis=1)
    meta = _meta(molecule, item, settings, excluded, blocks, caught)
    meta["search"] = {
        "pressed": len(good), "distinct": int((representative == np.arange(len(representative))).sum()),
        "in_window": int((energy <= energy[order[0]] + window).sum()), "packings_seed": seed,
    }  # fmt: skip
    return pack_shard(molecule, packings.conformers, [crystals[i] for i in order], conformer, columns, meta)


def _crystal_shard(
    stages: Stages, settings: DatasetSettings, excluded: Mapping[str, str], item: Item, caught: Caught
) -> bytes:
    from molflow_sim.chemistry.conformers import mmff_energies
    from molflow_sim.dataset.skeletons import skeletons
    from molflow_sim.systems.crystal import MolecularCrystal

    crystal = MolecularCrystal.from_cif(Path(item.content), normalise_hydrogens=True)
    if len(crystal.molecules) != 1:
        names = ", ".join(m.formula for m in crystal.molecules)
        raise CrystalError(f"{len(crystal.molecules)} species ({names}); crystals of one species are taken")
    molecule = crystal.molecules[0]
    blocks = skeletons(molecule.rdmol)
    parameters = stages.parametrize(molecule, settings.charges)
    pressed, press_energy, why = _pressed(stages, crystal, parameters)
    if pressed is not None:
        crystal = pressed
    (full,) = _evaluate(stages, [crystal], parameters)
    units = crystal.asymmetric_unit
    strain = mmff_energies(molecule.rdmol, np.stack([u.conformer for u in units]))
    # The strain of an experimental conformer says how force field and experiment differ, not how stable it is.
    energy = full - np.average(strain, weights=[len(u.images) for u in units])
    if not np.isfinite(energy):
        raise NoCandidatesError("the potential gave no finite energy for this crystal")
    columns = {
        "energy": np.array([energy]),
        "press_energy": np.array([press_energy]),
        "relaxed": np.array([pressed is not None]),
        "copies": np.ones(1, int),
    }
    meta = _meta(molecule, item, settings, excluded, blocks, caught)
    if why:
        meta["notes"].append(f"not relaxed: {why}")
    conformers = np.stack([u.conformer for u in units])
    return pack_shard(molecule, conformers, [crystal], np.arange(len(units))[None], columns, meta)


def _pressed(stages: Stages, crystal: MolecularCrystal, parameters: Any) -> tuple[MolecularCrystal | None, float, str]:
    """The crystal relaxed rigidly and its energy; or None, NaN and why it stays as it was read."""
    from molflow_sim.packing import PressSettings, RigidPackings, press

    if len(crystal.asymmetric_unit) > 1:
        return None, np.nan, "the rigid press takes several molecules in the asymmetric unit only of one shape"
    # The stages that part overlapping molecules are for random packings.
    settings = PressSettings(soft_evaluations=0, squeeze_evaluations=0)
    try:
        packings = press(RigidPackings.from_crystals([crystal]), parameters, settings)
        if not packings.ok[0]:
            return None, np.nan, packings.reasons[0]
        found = packings.crystal(0)
        match = stages.similarity(crystal, found)
    except (MolflowError, RuntimeError, ValueError, FloatingPointError) as error:
        return None, np.nan, " ".join(str(error).split())
    if not match.same(MOVED):
        return None, np.nan, f"the press moves it by more than {MOVED:g} Å (RMSD15)"
    return found, float(packings.energy[0]), ""


def _evaluate(stages: Stages, crystals: list[MolecularCrystal], parameters: Any) -> np.ndarray:
    """Full-potential energies (eV per molecule), infinite where not finite."""
    parts = [
        np.asarray(stages.evaluate(crystals[i : i + EVALUATE_BATCH], parameters), float)
        for i in range(0, len(crystals), EVALUATE_BATCH)
    ]
    energies = np.concatenate(parts)
    return np.where(np.isfinite(energies), energies, np.inf)


def _meta(
    molecule: Molecule,
    item: Item,
    settings: DatasetSettings,
    excluded: Mapping[str, str],
    blocks: tuple[str, ...],
    caught: Caught,
) -> dict[str, Any]:
    return {
        **described(molecule, blocks, excluded),
        "name": item.name,
        "experimental": item.kind == "crystal",
        "conformer_energies": [float(e) if np.isfinite(e) else None for e in molecule.energies],
        "input": item.content if item.kind == "molecule" else item.name,
        "source": item.source,
        # Warnings that a terminal would have shown, e.g. of a stereocentre that was chosen.
        "notes": [" ".join(str(w.message).split()) for w in caught if "molflow" in w.filename],
        "code": code_version(*CODE),
        "settings": settings.to_dict(),
    }


def described(molecule: Molecule, blocks: tuple[str, ...], excluded: Mapping[str, str]) -> dict[str, Any]:
    """What a shard says of its molecule; `blocks` are its `skeletons`, `excluded` those that are not trained on."""
    from molflow_sim.dataset.skeletons import split_of_skeletons

    return {
        "smiles": molecule.smiles,
        "name": molecule.name,
        "key": molecule_key(molecule),
        "skeleton": blocks[0],
        "split": split_of_skeletons(blocks, excluded),
        "racemic": bool(molecule.racemic),
        "enantiopure": bool(molecule.is_enantiopure),
    }


def molecule_key(molecule: Molecule) -> str:
    """The molecule's key; that of a racemate does not depend on the hand that was drawn."""
    from molflow_sim.chemistry.checks import mirror_image

    if not molecule.racemic:
        return molecule.key
    return min(molecule.key, replace(molecule, rdmol=mirror_image(molecule.rdmol)).key)
