"""Crystals of a molecule straight from a generator, with what is needed to make them again, and files of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from molflow_sim.errors import InputError, NoCandidatesError, StoreError
from molflow_sim.runs.files import atomic_path, write_bytes_atomically
from molflow_sim.runs.identity import code_version
from molflow_sim.screening.settings import FLOW_DRAWS, PROPOSING_GENERATOR, ScreenSettings
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule

BATCH = 500
"""Candidates generated and pressed at once; batch k draws from (seed, k), so more candidates leave the first as is."""
SUFFIXES = (".extxyz", ".xyz", ".db", ".cif")
"""Files that crystals are written to; a path without a suffix is a folder of CIFs."""


def generate_crystals(
    molecule: Molecule | str,
    n: int = 100,
    *,
    generator: str = PROPOSING_GENERATOR,
    weights: str | Path | None = None,
    flow_share: float = 0.5,
    flow_draws: int = FLOW_DRAWS,
    space_groups: str | Sequence[str] = "common",
    z_prime: int = 1,
    seed: int = 0,
    press: bool = False,
    charges: str = "mmff94",
) -> list[MolecularCrystal]:
    """Propose crystals of a molecule.

    Parameters
    ----------
    molecule : Molecule or str
        The molecule, or its SMILES.
    n : int
        How many are proposed.
    generator : {"random", "flow", "mixed"}
        Where they come from, see `molflow_sim.generators.crystals`.
    weights : path, optional
        Folder of weights for the flow; those of the package if not given.
    flow_share : float
        Share of the flow's candidates in "mixed".
    flow_draws : int
        Packings that the flow draws for each one it proposes, which are the lower ones in energy.
    space_groups : "common" or sequence of str
        As `molflow_sim.screen`.
    z_prime : int
        Molecules in the asymmetric unit.
    seed : int
        Same seed, settings and version: same crystals.
    press : bool
        Press them to rigid minima of the potential; what does not converge to a plausible density is left out.
    charges : str
        Charge model of the potential, with `press`.

    Returns
    -------
    list of MolecularCrystal
        Their `info` tells where they come from: ``name``, ``candidate`` (its number), ``seed``, ``generator``,
        ``weights`` (SHA-256), ``version``, ``pressed``, and after the press ``energy_kj_per_mol`` (lattice energy and
        strain, per molecule).

    Raises
    ------
    InputError
        Settings that cannot be used (MoleculeError, SpaceGroupError ...).
    WeightsError
        Missing or damaged weights.
    NoCandidatesError
        No candidate survived the press.
    """
    from molflow_sim.packing import RigidPackings
    from molflow_sim.packing import press as run_press
    from molflow_sim.systems.molecule import Molecule

    settings = ScreenSettings(
        candidates=n,
        seed=seed,
        space_groups=space_groups if isinstance(space_groups, str) else tuple(space_groups),
        z_prime=z_prime,
        charges=charges,
        generator=generator,
        flow_share=flow_share,
        flow_draws=flow_draws,
        weights=None if weights is None else str(weights),
    )
    if isinstance(molecule, str):
        molecule = Molecule.from_smiles(molecule)
    chosen = settings.make_generator()
    notes = _provenance(molecule, settings, chosen.identity(), press)
    groups = settings.space_groups if isinstance(settings.space_groups, str) else list(settings.space_groups)
    parts = [
        chosen.propose(molecule, min(BATCH, n - k), seed=seed, first_index=k, space_groups=groups, z_prime=z_prime)
        for k in range(0, n, BATCH)
    ]
    if press:
        from molflow_sim.forcefield import parametrize

        parameters = parametrize(molecule, charges)
        parts = [run_press(part, parameters) for part in parts]
    packings = RigidPackings.concatenate(parts)
    rows = np.flatnonzero(packings.ok) if press else np.arange(len(packings))
    if not len(rows):
        counts = {reason: packings.reasons.count(reason) for reason in sorted(set(packings.reasons))}
        raise NoCandidatesError(f"none of {n} packings of {molecule.smiles} survived the press ({counts})")
    crystals = []
    for i in rows.tolist():
        own: dict[str, Any] = {"candidate": int(packings.index[i]), "density_g_per_cm3": float(packings.density[i])}
        if press:
            own["energy_kj_per_mol"] = float(packings.energy[i]) / KJ_PER_MOL
        crystals.append(packings.crystal(i).with_info(**notes, **own))
    return crystals


def _provenance(molecule: Molecule, settings: ScreenSettings, identity: dict[str, Any], press: bool) -> dict[str, Any]:
    origin = identity.get("first", identity)
    notes: dict[str, Any] = {
        "name": molecule.name or molecule.formula,
        "seed": settings.seed,
        "generator": identity["generator"],
        "version": code_version("molflow_sim.generators.generate"),
        "pressed": press,
    }
    if "weights" in origin:
        notes["weights"] = f"sha256:{origin['weights']}"
        notes["flow_draws"] = origin["draws"]
    if "share" in identity:
        notes["flow_share"] = identity["share"]
    return notes


class CrystalWriter(Protocol):
    """An open output; crystals are appended molecule by molecule."""

    def write(self, crystals: Iterable[MolecularCrystal], molecule: str = "") -> None:
        """Append crystals; `molecule` names a subfolder where the output is a folder of several molecules."""
        ...


@contextmanager
def crystal_writer(path: str | Path, *, overwrite: bool = False) -> Iterator[CrystalWriter]:
    """Open an output of crystals; a file appears when the block ends without an error, or not at all.

    Parameters
    ----------
    path : path
        ``.extxyz`` (or ``.xyz``, the same format), ``.db`` (an ASE database), ``.cif`` (all in one file), or a folder
        (no suffix) that gets one CIF for each crystal.
    overwrite : bool
        Replace a file, or the crystals in a folder; other files there stay.

    Raises
    ------
    InputError
        An unknown suffix.
    StoreError
        Something is there already, or the place cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix and suffix not in SUFFIXES:
        raise InputError(
            f"crystals are written to {', '.join(SUFFIXES)} files or to a folder of CIFs, not to {suffix!r}"
        )
    if not overwrite and path.exists() and (path.is_file() or any(path.iterdir())):
        raise StoreError(f"{path} exists; give another output or --overwrite")
    try:
        with ExitStack() as stack:
            writer: CrystalWriter
            if not suffix:
                path.mkdir(parents=True, exist_ok=True)
                for old in path.rglob("crystal_*.cif"):
                    old.unlink()
                writer = _Folder(path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = stack.enter_context(atomic_path(path))
                if suffix == ".db":
                    writer = stack.enter_context(_database(temporary))
                else:
                    file = stack.enter_context(open(temporary, "w", encoding="utf-8"))
                    writer = _Cif(file) if suffix == ".cif" else _Extxyz(file)
            yield writer
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def cif_text(crystal: MolecularCrystal, block: str) -> str:
    """CIF of a crystal with its provenance as ``_molflow_`` items, in a data block of the given name."""
    lines = crystal.to_cif().split("\n")
    items = [f"_molflow_{key:<26} {_cif_value(value)}" for key, value in crystal.info.items() if key != "name"]
    return "\n".join([f"data_{block}", *items, *lines[1:]])


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, crystals: Iterable[MolecularCrystal], molecule: str = "") -> None:
        folder = self.path / molecule if molecule else self.path
        for crystal in crystals:
            name = f"crystal_{crystal.info['candidate']:05d}"
            write_bytes_atomically(folder / f"{name}.cif", cif_text(crystal, name).encode())


class _Cif:
    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, crystals: Iterable[MolecularCrystal], molecule: str = "") -> None:
        for crystal in crystals:
            head = f"{molecule}_" if molecule else ""
            self.file.write(cif_text(crystal, f"{head}crystal_{crystal.info['candidate']:05d}") + "\n")


class _Extxyz:
    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, crystals: Iterable[MolecularCrystal], molecule: str = "") -> None:
        from ase.io import write

        for crystal in crystals:
            write(self.file, crystal.to_ase(), format="extxyz")


class _Database:
    def __init__(self, database: Any) -> None:
        self.database = database

    def write(self, crystals: Iterable[MolecularCrystal], molecule: str = "") -> None:
        for crystal in crystals:
            atoms = crystal.to_ase()
            keys = {k: v for k, v in atoms.info.items() if isinstance(v, (int, float, bool)) or not _like_a_number(v)}
            atoms.info.clear()
            self.database.write(atoms, **keys)


@contextmanager
def _database(path: Path) -> Iterator[_Database]:
    import ase.db

    with ase.db.connect(path, use_lock_file=False) as database:
        yield _Database(database)


def _like_a_number(text: str) -> bool:
    """ase.db refuses text that reads as a number or truth value."""
    try:
        float(text)
    except ValueError:
        return text in ("True", "False") or not text
    return True


def _cif_value(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if text and text.replace("+", "").replace(".", "").replace("-", "").isalnum() else f"'{text}'"
