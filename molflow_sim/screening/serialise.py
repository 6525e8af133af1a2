"""Molecules and crystals as JSON, exact to the last bit (JSON keeps Python floats exactly)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from molflow_sim.errors import StoreError
from molflow_sim.runs.identity import digest
from molflow_sim.symmetry.spacegroup import GIVEN_SETTING


def molecule_to_json(molecule: Any) -> dict[str, Any]:
    """A `Molecule` as JSON-like values: topology by RDKit's JSON, conformers and energies as numbers."""
    from rdkit import Chem

    return {
        "rdkit": Chem.MolToJSON(Chem.Mol(molecule.rdmol, confId=-1)),
        "conformers": np.asarray(molecule.conformers, dtype=float).tolist(),
        "energies": np.asarray(molecule.energies, dtype=float).tolist(),
        "shares": np.asarray(molecule.shares, dtype=float).tolist(),
        "name": molecule.name,
        "racemic": bool(molecule.racemic),
    }


def molecule_from_json(data: dict[str, Any]) -> Any:
    """The inverse of `molecule_to_json`."""
    from rdkit import Chem

    from molflow_sim.systems.molecule import Molecule

    try:
        (rdmol,) = Chem.JSONToMols(data["rdkit"])
        Chem.SanitizeMol(rdmol)  # the JSON of a molecule without rings leaves them "not looked for", which MMFF needs
        return Molecule(
            rdmol=rdmol,
            conformers=np.array(data["conformers"], dtype=float),
            energies=np.array(data["energies"], dtype=float),
            name=data["name"],
            racemic=bool(data.get("racemic", False)),
            shares=np.array(data.get("shares", []), dtype=float),
        )
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise StoreError(f"a stored molecule cannot be read: {error}") from error


def molecule_identity(molecule: Any) -> str:
    """Hash of a molecule's chemistry, atom order, conformers (to 0.001 Å) and their shares."""
    conformers = np.round(np.asarray(molecule.conformers, dtype=float), 3) + 0.0  # + 0.0 turns -0.0 into 0.0
    shares = np.round(np.asarray(molecule.shares, dtype=float), 6)
    return digest(
        molecule.key, molecule.smiles, np.asarray(molecule.numbers).tolist(), conformers.tolist(), shares.tolist()
    )


def crystal_to_json(crystal: Any) -> dict[str, Any]:
    """A `MolecularCrystal` as JSON-like values; its species are stored apart, once a run."""
    group = crystal.space_group
    given = {"operations": list(group.symbols)} if group.name.endswith(GIVEN_SETTING) else {}
    return {
        "space_group": group.name,
        **given,
        "cell": np.asarray(crystal.cell, dtype=float).tolist(),
        "asymmetric_unit": [
            {
                "species": int(unit.species),
                "conformer": np.asarray(unit.conformer, dtype=float).tolist(),
                "centroid": np.asarray(unit.centroid, dtype=float).tolist(),
                "orientation": np.asarray(unit.orientation, dtype=float).tolist(),
                "images": [int(g) for g in unit.images],
            }
            for unit in crystal.asymmetric_unit
        ],
        "info": {k: v for k, v in crystal.info.items() if _is_json(v)},
    }


def crystal_from_json(data: dict[str, Any], molecules: Sequence[Any]) -> Any:
    """The inverse of `crystal_to_json`, given the species."""
    import gemmi

    from molflow_sim.symmetry import SpaceGroup
    from molflow_sim.symmetry.operations import space_group_from_operations
    from molflow_sim.systems.crystal import MolecularCrystal, RigidMolecule

    try:
        units = tuple(
            RigidMolecule(
                species=unit["species"],
                conformer=np.array(unit["conformer"], dtype=float),
                centroid=np.array(unit["centroid"], dtype=float),
                orientation=np.array(unit["orientation"], dtype=float),
                images=tuple(unit["images"]),
            )
            for unit in data["asymmetric_unit"]
        )
        return MolecularCrystal(
            molecules=tuple(molecules),
            asymmetric_unit=units,
            space_group=space_group_from_operations([gemmi.Op(text) for text in data["operations"]])
            if "operations" in data
            else SpaceGroup.from_name(data["space_group"]),
            cell=np.array(data["cell"], dtype=float),
            info=dict(data["info"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise StoreError(f"a stored crystal cannot be read: {error}") from error


def to_bytes(data: Any) -> bytes:
    """JSON as bytes, for the store."""
    return json.dumps(data, separators=(",", ":")).encode()


def from_bytes(data: bytes) -> Any:
    """The inverse of `to_bytes`."""
    return json.loads(data)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
