"""Structures of anybody, ranked: read, evaluated or relaxed, merged, and reported as those of a screening are."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.chemistry.checks import canonical_smiles, mirror_image
from molflow_sim.energies.models import check_energy_spec, energy_model
from molflow_sim.errors import CrystalError, InputError, MolflowError, NoCandidatesError, StoreError
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.runs.identity import digest
from molflow_sim.runs.progress import Progress
from molflow_sim.screening.landscape import Dropped, Landscape, dropped_dataframe
from molflow_sim.screening.powder import measured
from molflow_sim.screening.ranking import RelaxedRow, build_landscape, distinct, dropped_row, rerank
from molflow_sim.screening.run import CODE, Chosen, Pool, Run, code_of
from molflow_sim.screening.serialise import (
    crystal_to_json,
    from_bytes,
    molecule_from_json,
    molecule_identity,
    molecule_to_json,
    to_bytes,
)
from molflow_sim.screening.settings import DEFAULT_ENERGY, ScreenSettings
from molflow_sim.screening.stages import Shared, Stages

if TYPE_CHECKING:
    from molflow_sim.systems.collect import Found
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule

_CODE = {
    **CODE,
    "relax": ("stages:relax_batch", "stages:parametrize", "stages:relax", "stages:validity", "given:as_given"),
    "unique": ("run:Run._representatives", "given:same_or_mirrored"),
}


@dataclass(frozen=True, eq=False)
class Ranking:
    """What `rank` made of structures: a landscape for each molecule; ``ranking[0]``, iterate, or ``len``.

    Attributes
    ----------
    landscapes : tuple of Landscape
        In the order in which the molecules come.
    dropped : tuple of Dropped
        All structures that are in none of them, with the reason.
    folder : Path
        The results folder.
    """

    landscapes: tuple[Landscape, ...]
    dropped: tuple[Dropped, ...]
    folder: Path

    def __len__(self) -> int:
        return len(self.landscapes)

    def __getitem__(self, index: int) -> Landscape:
        return self.landscapes[index]

    def __iter__(self) -> Iterator[Landscape]:
        return iter(self.landscapes)


def rank(
    structures: Any,
    energy: str = DEFAULT_ENERGY,
    relax: bool = False,
    *,
    charges: str = "mmff94",
    temperature: float | None = None,
    output: str | Path | None = None,
    pxrd: str | Path | None = None,
    wavelength: float | None = None,
    top: int = 100,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Ranking:
    """Rank crystal structures of any origin.

    Parameters
    ----------
    structures : path, ase.Atoms, pymatgen Structure, MolecularCrystal, or an iterable of them
        Files: CIF (all blocks), JSON of pymatgen, and what ASE reads (all frames or rows). Crystals of one molecule are
        ranked together.
    energy : str
        What ranks, see `molflow_sim.energies.models`: ``"best"``, ``"potential"``, ``"so3lr"`` ...
    relax : bool
        Relax cell and atoms first, space group kept: on the potential, and then, where ``best`` ranks, on ``best``.
        Otherwise energies are those of the structures as they are.
    charges : str
        Of the potential, see `molflow_sim.parametrize`.
    temperature : float, optional
        K; the first ten are ranked by their free energy with harmonic lattice vibrations. Needs `relax`.
    output : path, optional
        Results folder, with a subfolder for each molecule if there are several; a temporary one if not given. The same
        call again carries on where a former one was stopped; more structures may be added.
    pxrd, wavelength : path, float, optional
        Measured powder pattern to compare with, and its wavelength in Å, as in `screen`.
    top : int
        CIF files written.
    scheduler : str, optional
        Address of a Dask scheduler; batches run in this process otherwise.
    overwrite : bool
        Replace the results of another run in `output`.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    Ranking
        One landscape for each molecule; `dropped` has the duplicates and what could not be read or evaluated.

    Raises
    ------
    InputError
        No structures, a file that is not there, an unknown energy or charge model, or a temperature without `relax`.
    NoCandidatesError
        No structure could be read or evaluated; the message has the first reason.
    StoreError
        `output` belongs to another run or is in use.
    MissingDependencyError
        A library that the energy needs is not installed.
    """
    from molflow_sim.systems.collect import find_crystals

    check_energy_spec(energy)
    if temperature is not None and not relax:
        raise InputError("vibrations are those of relaxed structures: with a temperature, relax as well (--relax)")
    file = None if pxrd is None else str(pxrd)
    settings = ScreenSettings(
        generator="random", energy=energy, charges=charges, top=top, temperature=temperature, pxrd=file,
        wavelength=wavelength,
    )  # fmt: skip
    measured(settings)  # refuses what cannot be compared before the work begins
    bars = Progress(progress)
    with bars.stage("Reading structures", 1) as advance:
        found = list(find_crystals(structures))
        if any(item.cluster is not None for item in found):
            raise InputError(
                "there are clusters in open space: molflow_sim.screening.rank_clusters ranks them (and molflow rank), "
                "crystals need a call of their own"
            )
        groups, dropped = by_molecule(found)
        advance(1)
    if not groups:
        raise NoCandidatesError(
            f"none of {len(found)} structures can be ranked; the first, {dropped[0].source}: {dropped[0].reason}"
        )
    folder = Path(tempfile.mkdtemp(prefix="molflow-")) if output is None else Path(output)
    if len(groups) > 1 and (folder / "run.json").exists():
        raise StoreError(f"{folder} holds the ranking of one molecule, these are {len(groups)}; give another folder")
    landscapes = []
    for group in groups:
        molecule = group[0].crystal.molecules[0]
        bars.say(f"{molecule.formula}, {molecule.smiles}: {len(group)} structures")
        name = f"{molecule.formula}_{digest(without_hand(molecule), length=6)}"
        where = folder if len(groups) == 1 else folder / name
        chosen = replace(settings, energy_top=len(group), refine_top=len(group) if relax else 0, relax_top=len(group))
        run = RankRun(molecule, chosen, Stages(), where, overwrite, progress, tuple(group), relax)
        if len(groups) == 1:
            landscapes.append(run.rank(scheduler, dropped))
            return Ranking(tuple(landscapes), landscapes[0].dropped, folder)
        try:
            landscapes.append(run.rank(scheduler, []))
            dropped += landscapes[-1].dropped
        except StoreError:
            raise
        except MolflowError as error:  # one molecule of several; the others go on
            warnings.warn(f"{molecule.formula} ({molecule.smiles}) is not ranked: {error.reason}", stacklevel=2)
            dropped += [Dropped("", "rank", error.reason, source=item.source) for item in group]
    write_bytes_atomically(folder / "dropped.csv", dropped_dataframe(dropped).to_csv(index=False).encode())
    if not landscapes:
        raise NoCandidatesError(f"no molecule could be ranked; see {folder / 'dropped.csv'}")
    return Ranking(tuple(landscapes), tuple(dropped), folder)


@dataclass(frozen=True, eq=False)
class Given:
    """A structure that can be ranked."""

    source: str
    crystal: MolecularCrystal


def by_molecule(found: Sequence[Found]) -> tuple[list[list[Given]], list[Dropped]]:
    """Crystals by molecule, atoms in the order of the first of each molecule, and what cannot be ranked."""
    from molflow_sim.systems.collect import in_order_of

    groups: list[list[Given]] = []
    dropped: list[Dropped] = []
    for item in found:
        crystal = item.crystal
        if crystal is None:
            dropped.append(Dropped("", "read", item.reason, source=item.source))
        elif len(crystal.molecules) > 1:
            names = ", ".join(m.formula for m in crystal.molecules)
            dropped.append(Dropped("", "read", f"holds several species ({names}), not one", source=item.source))
        else:
            for group in groups:
                if group[0].crystal.formula == crystal.formula:
                    try:
                        ordered = in_order_of(crystal, group[0].crystal.molecules[0])
                    except CrystalError:  # an isomer
                        continue
                    group.append(Given(item.source, ordered))
                    break
            else:
                groups.append([Given(item.source, crystal)])
    return groups, dropped


def without_hand(molecule: Molecule) -> str:
    """SMILES, the same for a molecule and its mirror image."""
    return min(canonical_smiles(molecule.rdmol), canonical_smiles(mirror_image(molecule.rdmol)))


def as_given(crystals: Sequence[MolecularCrystal], parameters: Any) -> list[Any]:
    """Energies, forces and stress of crystals as they are (`RelaxResult`, energies in eV per molecule)."""
    from molflow_sim.forcefield import CrystalPotential
    from molflow_sim.relax.flexible import relax_flexible

    results = relax_flexible(crystals, CrystalPotential([parameters]), max_steps=1)
    return [
        replace(r, crystal=c, n_steps=0, reason="as given" if np.isfinite(r.energy) else r.reason)
        for c, r in zip(crystals, results)
    ]


def same_or_mirrored(crystals: Sequence[MolecularCrystal], energies: np.ndarray) -> np.ndarray:
    """For each crystal the index of the one that stands for it; a mirror image, which has its energy, is no other."""
    from molflow_sim.evaluate.deduplicate import deduplicate_crystals

    return np.asarray(deduplicate_crystals(crystals, energies, allow_inversion=True))


@dataclass
class RankRun(Run):
    """The ranking of the crystals of one molecule, with the steps and the store of a screening."""

    given: tuple[Given, ...]
    flexible: bool

    def rank(self, scheduler: str | None, unread: list[Dropped]) -> Landscape:
        """Evaluate, merge, rank and report; `unread` are structures to be listed as dropped."""
        # the energy may change within a folder
        identity = {
            "what": "ranking", "molecule": without_hand(self.molecule), "charges": self.settings.charges,
            "relax": self.flexible,
        }  # fmt: skip
        self.key = digest(identity)
        self.stages = replace(self.stages, deduplicate_crystals=same_or_mirrored)
        if not self.flexible:
            self.stages = replace(self.stages, relax=as_given)
        return self.in_folder(identity, code_of(_CODE), scheduler, lambda: self._rank(unread))

    def _rank(self, unread: list[Dropped]) -> Landscape:
        from molflow_sim.screening.outputs import provenance, write_outputs
        from molflow_sim.systems.collect import in_order_of

        data = self.store.once("molecule.json", self.key, lambda: to_bytes(molecule_to_json(self.molecule)))
        self.molecule = molecule_from_json(from_bytes(data))
        crystals = [in_order_of(g.crystal, self.molecule) for g in self.given]
        self.key = digest(self.key, molecule_identity(self.molecule))
        self.shared = Shared(self.stages, self.molecule, self._parameters(), self.settings)
        self._choose_energy()
        tally: dict[str, dict[str, int]] = {
            "read": {"structures": len(crystals) + len(unread), "not read": len(unread)}
        }
        rows = self._evaluated([crystal_to_json(c) for c in crystals], tally)
        keep, dropped = distinct(rows, self._unique(rows), tally)
        keep = self._refine(self._by_energy(keep, dropped), dropped, tally)
        shown = {
            "energy": self.settings.energy, "relax": self.flexible, "charges": self.settings.charges,
            "temperature": self.settings.temperature,
        }  # fmt: skip
        told = provenance(self.store, shown, self.molecule)
        run = {**told, "code": self.code, "energy": self._energy_words()}
        landscape = build_landscape(self.molecule, keep, [*unread, *dropped], tally, run, None, self.store.folder)
        landscape = self._warmed(landscape)
        landscape = self._matched(landscape)
        write_outputs(self.store, landscape, self.settings, self.bars)
        return landscape

    def _evaluated(self, stored: list[dict[str, Any]], tally: dict[str, dict[str, int]]) -> list[RelaxedRow]:
        """Rows of all structures, relaxed or as given; an id is that of the content, and of the how manieth it is."""
        content = [digest(self.key, {**data, "info": {}}) for data in stored]
        seen: Counter[str] = Counter()
        ids = []
        for c in content:
            ids.append(digest(c, seen[c], length=10))
            seen[c] += 1
        n = len(ids)
        chosen = Chosen(np.arange(n), np.full(n, np.nan), np.ones(n, dtype=int), stored)
        title = "Relaxing flexible molecules" if self.flexible else "Evaluating the potential"
        rows = self._relax(Pool(None, ids, self.key), chosen, tally, title)
        if not self.flexible:
            counts = tally.pop("relax")
            tally["evaluate"] = {"evaluated": counts["relaxed"], "valid": counts["valid"]}
        return [replace(row, source=g.source) for row, g in zip(rows, self.given)]

    def _by_energy(self, rows: list[RelaxedRow], dropped: list[Dropped]) -> list[RelaxedRow]:
        """Rows by the energy that ranks; those without one go to `dropped`."""
        found = list(zip(rows, self._second_energies(rows, "are left out")))
        if not found:
            return rows
        dropped += [dropped_row(row, "energy", r["reason"]) for row, r in found if r["energy"] is None]
        good = [(row, r) for row, r in found if r["energy"] is not None]
        if not good:
            raise NoCandidatesError(f"{self.spec} gave no energy for any structure: {found[0][1]['reason']}")
        return rerank([row for row, _ in good], [r for _, r in good], energy_model(self.spec).name)
