"""Files that a finished screening leaves for people and other programs."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import molflow_sim
from molflow_sim.evaluate.powder import simulate, write_xy
from molflow_sim.runs.files import atomic_path, write_bytes_atomically
from molflow_sim.runs.progress import Progress
from molflow_sim.runs.store import Store
from molflow_sim.screening.landscape import Landscape
from molflow_sim.screening.settings import ScreenSettings

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

# What a screening writes beside run.json and the store; --overwrite removes these and nothing else.
OUTPUTS = (
    "report.html", "landscape.svg", "ranking.csv", "dropped.csv", "landscape.db", "landscape.db.lock",
    "structures/rank_*.cif", "structures/rank_*.xy",
)  # fmt: skip
_LIBRARIES = (
    "numpy", "torch", "numba", "rdkit", "torch-sim-atomistic", "ase", "pymatgen-core", "oxtalign",
)  # fmt: skip
_STAGES = {
    "sites.npz": "charges (Hartree-Fock)",
    "charges.json": "charges",
    "bespoke.json": "bespoke potential",
    "press": "press",
    "compare": "compare (duplicates)",
    "free": "compare (atoms free)",
    "evaluate": "compare (Ewald energies)",
    "relax": "relax",
    "unique": "merge duplicates",
    "judge": "compare (energy that ranks)",
    "energy": "energies that rank",
    "refine": "relax on best",
    "reference.json": "reference",
    "vibrations": "vibrations",
}


def provenance(store: Store, settings: dict[str, Any], molecule: Molecule) -> dict[str, Any]:
    """What run.json and the report say about where the numbers come from."""
    seconds = {name: round(store.seconds(stage), 2) for stage, name in _STAGES.items() if store.seconds(stage) > 0}
    return {
        "molecule": {
            "smiles": molecule.smiles,
            "name": molecule.name,
            "formula": molecule.formula,
            "key": molecule.key,
            "conformers": len(molecule.conformers),
        },
        "settings": settings,
        "timings_s": seconds,
        "versions": {
            "molflow-sim": molflow_sim.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _LIBRARIES},
        },
    }


def write_outputs(store: Store, landscape: Landscape, settings: ScreenSettings, bars: Progress) -> None:
    """Write report, tables, structures and database; each file appears whole. run.json, last, says done."""
    from dataclasses import asdict

    folder = store.folder
    with bars.stage("Writing the report", 5) as advance:
        landscape.save(folder / "store" / "landscape.json")
        write_bytes_atomically(folder / "ranking.csv", _csv(landscape.to_dataframe()))
        write_bytes_atomically(folder / "dropped.csv", _csv(landscape.dropped_dataframe()))
        advance(1)
        _write_structures(store, landscape, settings.top)
        advance(1)
        _write_database(store, landscape)
        advance(1)
        landscape.plot(folder / "landscape.svg")
        advance(1)
        landscape.report(folder / "report.html")
        store.write_run(
            status="done",
            **landscape.run,
            tally=landscape.tally,
            structures=len(landscape),
            reference=asdict(landscape.reference) if landscape.reference else None,
        )
        advance(1)


def _csv(frame: Any) -> bytes:
    return frame.to_csv(index=False).encode()


def _write_structures(store: Store, landscape: Landscape, top: int) -> None:
    folder = store.folder / "structures"
    names = set()
    for entry in landscape.entries[:top]:
        name = f"rank_{entry.rank:03d}"
        write_bytes_atomically(folder / f"{name}.cif", entry.to_cif().encode())
        title = f"{landscape.molecule.name or landscape.molecule.formula}, {name}, {entry.id}, simulated"
        write_xy(simulate(entry.crystal, landscape.wavelength), folder / f"{name}.xy", title)
        names.add(name)
    for old in (*folder.glob("rank_*.cif"), *folder.glob("rank_*.xy")):
        if old.stem not in names:
            old.unlink()


def _write_database(store: Store, landscape: Landscape) -> None:
    """``landscape.db`` for ``ase db`` and ``ase gui``: one row per structure, the table's columns as keys."""
    import ase.db

    with (
        atomic_path(store.folder / "landscape.db") as temporary,
        ase.db.connect(temporary, use_lock_file=False) as database,
    ):
        for entry in landscape:
            row = entry.row()
            keys = {
                "rank": row["rank"],
                "structure_id": f"s{row['id']}",  # ase.db refuses text that reads as a number
                "relative_energy": row["relative_energy_kj_per_mol"],
                "potential_relative": row["potential_relative_kj_per_mol"],
                "energy_per_molecule": row["energy_ev_per_molecule"],
                "density": row["density_g_per_cm3"],
                "space_group": row["space_group"],
                "z": row["z"],
                "z_prime": row["z_prime"],
                "converged": row["converged"],
                "copies": row["copies"],
                "residual_stress_gpa": row["residual_stress_gpa"],
                **({"free_energy_relative": entry.free_energy_relative} if entry.static_rank else {}),
                **({"source": entry.source} if entry.source else {}),
            }
            atoms = entry.to_ase()
            atoms.info.clear()
            database.write(atoms, **{k: v for k, v in keys.items() if v == v})


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
