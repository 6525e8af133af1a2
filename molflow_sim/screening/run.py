"""What a search and a ranking do alike: steps as functions of the store, in batches, each computed once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim.energies.models import BESTS, FALLBACK, energy_identity, recipe, uses_sites
from molflow_sim.errors import NoCandidatesError, ParameterError
from molflow_sim.forcefield.sites import ChargeSites
from molflow_sim.io.powder_read import CU_K_ALPHA
from molflow_sim.runs.files import sha256
from molflow_sim.runs.folder import read_run
from molflow_sim.runs.identity import code_identity, digest
from molflow_sim.runs.progress import Progress
from molflow_sim.runs.scheduler import Executor, executor_for
from molflow_sim.runs.store import Store, pack_arrays, unpack_arrays
from molflow_sim.screening import stages as steps
from molflow_sim.screening.landscape import Dropped, Landscape
from molflow_sim.screening.powder import BATCH, fields_of, match_batch, measured
from molflow_sim.screening.ranking import RelaxedRow, by_potential, energy_batch, in_turn, merged, refined
from molflow_sim.screening.serialise import crystal_to_json, from_bytes
from molflow_sim.screening.settings import ENERGY_DIGITS, ScreenSettings
from molflow_sim.screening.stages import Shared, Stages
from molflow_sim.screening.vibrations import vibrating, vibrations_batch, warmed

_REFINE_BATCH = 8
CODE = {
    "charges": ("stages:parametrize", "stages:sites", "stages:stored_charges", "stages:with_charges"),
    "energy": ("ranking:energy_batch", "stages:energies"),
    "refine": ("stages:refine_batch", "stages:parametrize", "stages:refine", "stages:energies", "stages:validity"),
    "vibrations": ("vibrations:vibrations_batch", "stages:parametrize", "stages:vibrations"),
    "pxrd": ("powder:match_batch",),
}
"""The code that the stored results of a step depend on, beside the results of the steps before it."""


def code_of(steps: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """For each step the identity of the code that its stored results depend on, of the modules of `screening`."""
    return {name: code_identity(*(f"molflow_sim.screening.{root}" for root in roots)) for name, roots in steps.items()}


@dataclass
class Run:
    """One molecule in one folder: steps that read from and write to the store.

    `key` tells its question from others, `shared` is what all batches of work need; the run sets both before its steps.
    """

    molecule: Any
    settings: ScreenSettings
    stages: Stages
    folder: Path
    overwrite: bool
    progress: bool
    key: str = field(init=False)
    shared: Shared = field(init=False)

    def in_folder(
        self, identity: dict[str, Any], code: dict[str, str], scheduler: str | None, steps: Callable[[], Landscape]
    ) -> Landscape:
        """Take the steps with the store open and an executor ready."""
        from molflow_sim.screening.outputs import OUTPUTS

        self.code, self.bars = code, Progress(self.progress)
        with Store(self.folder, identity, OUTPUTS, overwrite=self.overwrite) as self.store:
            before = read_run(self.folder).get("code", {})
            if changed := [name for name, code in self.code.items() if before.get(name, code) != code]:
                self.bars.say(f"Computed again, since the code has changed: {', '.join(changed)}")
            self.executor: Executor = executor_for(scheduler)
            try:
                return steps()
            finally:
                self.executor.close()

    def _choose_energy(self) -> None:
        """What ranks this molecule: what was asked for, or what is left of it."""
        self.spec, self.energy_note = recipe(self.settings.energy, self.molecule)
        if uses_sites(self.spec):
            self.bars.say("Charges from Hartree-Fock (HF/6-31G*)")
            key = digest(self.key, self.code["charges"])
            try:
                data = self.store.once("sites.npz", key, lambda: pack_arrays(vars(self.stages.sites(self.molecule))))
                fit = replace(self.shared.ranking, sites=ChargeSites(**unpack_arrays(data)))
                self.shared = replace(self.shared, fit=fit)
            except ParameterError as error:
                if self.spec not in BESTS:
                    raise
                self.spec = replace(BESTS[self.spec], charges=False).spec
                self.energy_note = f"{error.reason}; ranked by {self.spec}"
        if self.energy_note:
            self.bars.say(self.energy_note)

    def _energy_words(self) -> dict[str, str]:
        """For the record: what was asked for, what ranked, and why that is another."""
        return {"asked for": self.settings.energy, "ranked by": self.spec, "note": self.energy_note}

    def _parameters(self) -> Any:
        if self.settings.charges == "mmff94":
            return self.stages.parametrize(self.molecule, "mmff94")
        # Quantum-chemical charges take minutes for a large molecule: computed once, kept in the store.
        made: list[Any] = []

        def compute() -> bytes:
            made.append(self.stages.parametrize(self.molecule, self.settings.charges))
            return steps.stored_charges(made[0])

        data = self.store.once("charges.json", digest(self.key, self.code["charges"]), compute)
        return made[0] if made else steps.with_charges(self.stages.parametrize(self.molecule, "mmff94"), data)

    def _relax(
        self, pool: Pool, chosen: Chosen, tally: dict[str, dict[str, int]], title: str = "Relaxing flexible molecules"
    ) -> list[RelaxedRow]:
        size = self.settings.relax_batch
        ids = [pool.ids[i] for i in chosen.index]
        code, settings = self.code["relax"], self._relax_settings()
        tasks = pieces("relax", chosen.crystals, size, lambda part: digest(code, ids[part], settings, *chosen.start))
        stored = [row for d in self._batches(title, steps.relax_batch, tasks) for row in from_bytes(d)]
        rows = [
            RelaxedRow.from_stored(id, row, float(e), int(n), self.molecule)
            for id, row, e, n in zip(ids, stored, chosen.energy, chosen.copies)
        ]
        valid = [row for row in rows if row.valid]
        tally["relax"] = {"relaxed": len(rows), "valid": len(valid), "converged": sum(row.converged for row in valid)}
        if not valid:
            reasons: dict[str, int] = {}
            for row in rows:
                text = row.reason.split(":")[0][:80] or "invalid"
                reasons[text] = reasons.get(text, 0) + 1
            raise NoCandidatesError(
                f"none of {len(rows)} structures is a valid crystal of the molecule ({counted(reasons)}); "
                f"see {self.store.folder}"
            )
        return rows

    def _relax_settings(self) -> list[float]:
        s = self.settings
        return [s.minimum_density, s.maximum_density, s.maximum_stress]

    def _unique(self, rows: Sequence[RelaxedRow]) -> np.ndarray:
        """For each valid row (in order) the position of the valid row that stands for it."""
        valid = [row for row in rows if row.valid]
        key = digest(self.code["relax"], self.code["unique"], [row.id for row in valid], [row.energy for row in valid])
        return self._representatives("representative", key, valid, np.array([row.energy for row in valid]))

    def _representatives(self, name: str, key: str, rows: Sequence[RelaxedRow], energies: np.ndarray) -> np.ndarray:
        """For each row the position of the one of the same structure that stands for it."""

        def compute() -> bytes:
            with self.bars.stage("Merging duplicates", len(rows)) as advance:
                representative = self.stages.deduplicate_crystals([row.crystal for row in rows], energies)
                advance(len(rows))
            return pack_arrays({"representative": np.asarray(representative)})

        return unpack_arrays(self.store.once(f"unique/{name}.npz", key, compute))["representative"]

    def _second_energies(
        self, rows: Sequence[RelaxedRow], failures: str = "keep the potential's order after the others"
    ) -> list[dict[str, Any]]:
        """Energies of the model that ranks; none where that is the potential, which has ranked already."""
        if self.spec == FALLBACK:
            return []
        best = rows[: self.settings.energy_top]
        keys = [(self.code["relax"], row.id, row.energy) for row in best]
        results = self._energies(f"Energies with {self.spec}", [crystal_to_json(row.crystal) for row in best], keys)
        failed = [result["reason"] for result in results if result["energy"] is None]
        if self.spec in BESTS and 2 * len(failed) > len(results):
            self.spec = replace(BESTS[self.spec], so3lr=False).spec if BESTS[self.spec].so3lr else FALLBACK
            self.energy_note = f"{failed[0]}: so for {len(failed)} of {len(results)} structures; ranked by {self.spec}"
            self.bars.say(self.energy_note)
            return self._second_energies(rows, failures)
        if failed:
            warnings.warn(
                f"{self.spec} gave no energy for {len(failed)} of {len(results)} structures, which {failures}; "
                f"the first because: {failed[0]}",
                stacklevel=2,
            )
        return results

    def _energies(
        self, title: str, rows: Sequence[dict[str, Any]], keys: Sequence[Any], folder: str = "energy", size: int = 1
    ) -> list[dict[str, Any]]:
        """Energies of stored crystals with the model that ranks, stored `size` at a time; `keys` tell them apart.

        One at a time where a model may take minutes: more structures, or one that fails, cost the others nothing.
        """
        code = digest(self.code["energy"], self.spec, energy_identity(self.spec))
        tasks = pieces(folder, rows, size, lambda part: digest(code, keys[part]), lambda batch: (self.spec, batch))
        # A failure is no result: what failed for want of memory or a library is tried again by the next call.
        data = self._batches(title, energy_batch, tasks, lambda d: all(v["energy"] is not None for v in from_bytes(d)))
        return [value for d in data for value in from_bytes(d)]

    def _refine(
        self, rows: list[RelaxedRow], dropped: list[Dropped], tally: dict[str, dict[str, int]]
    ) -> list[RelaxedRow]:
        """The first rows relaxed on the potential that ranks, by their energy there, like ones merged; then others.

        The first by either energy, in turn: what ranks is asked about geometries of the force field, where strains that
        relaxation takes away hide several kJ/mol between structures.
        """
        if self.spec not in BESTS:
            return rows
        known = [row for row in rows if np.isfinite(row.second_energy)]
        chosen = sorted(in_turn(range(len(known)), by_potential(known))[: self.settings.refine_top])
        first = [known[k] for k in chosen]
        taken = {row.id for row in first}
        rest = [row for row in rows if row.id not in taken]
        code = self.code["relax"], self.code["refine"], self.spec, energy_identity(self.spec), self._relax_settings()
        tasks = pieces(
            "refine", first, _REFINE_BATCH, lambda part: digest(*code, [(row.id, row.energy) for row in first[part]]),
            lambda batch: (self.spec, [crystal_to_json(row.crystal) for row in batch]),
        )  # fmt: skip
        data = self._batches("Relaxing on best", steps.refine_batch, tasks)
        stored = [row for d in data for row in from_bytes(d)]
        done = [refined(row, new, self.molecule) for row, new in zip(first, stored)]
        good = [row for row in done if np.isfinite(row.refined_energy)]
        repeats: list[Dropped] = []
        if good:
            key = digest(self.code["refine"], self.code["unique"], [(row.id, row.refined_energy) for row in good])
            energies = np.array([row.refined_energy for row in good])
            good, repeats = merged(good, self._representatives("refined", key, good, energies), "refine")
            dropped += repeats
        failed = len(first) - len(good) - len(repeats)
        tally["refine"] = {"relaxed": len(first), "failed": failed, "duplicates merged": len(repeats)}
        good.sort(key=lambda row: (round(row.refined_energy, ENERGY_DIGITS), row.id))
        other = [row for row in done if not np.isfinite(row.refined_energy)]
        return [*good, *other, *rest]

    def _warmed(self, landscape: Landscape) -> Landscape:
        """The landscape with free energies of the first structures, where a temperature is given.

        Modes are stored, not free energies: another temperature costs nothing.
        """
        temperature = self.settings.temperature
        if temperature is None:
            return landscape
        chosen = vibrating(landscape, self.settings.temperature_top)
        tasks = []
        for entry in chosen:
            spec = "potential" if entry.relaxed_on == "potential" else self.spec
            stored = crystal_to_json(entry.crystal)
            code = (
                self.code["vibrations"],
                self.code["relax"],
                "" if spec == "potential" else spec + energy_identity(spec),
            )
            key = digest(code, self.shared.parameters.charge_model, stored)
            tasks.append((f"vibrations/{key}.json", key, (spec, stored), 1))
        # A failure is no result: it is tried again by the next call.
        data = self._batches("Lattice vibrations", vibrations_batch, tasks, lambda d: not from_bytes(d)["reason"])
        timings = {**landscape.run["timings_s"], "vibrations": round(self.store.seconds("vibrations"), 2)}
        landscape = replace(landscape, run={**landscape.run, "timings_s": timings})
        return warmed(landscape, chosen, data, temperature)

    def _matched(self, landscape: Landscape) -> Landscape:
        """The landscape with the similarity of every structure to the measured pattern, if there is one."""
        target = measured(self.settings)
        if target is None:
            return replace(landscape, wavelength=self.settings.wavelength or CU_K_ALPHA)
        pattern = target.pattern
        if pattern.wavelength_assumed:
            self.bars.say(f"{pattern.name} states no wavelength: Cu Kα, {CU_K_ALPHA} Å, is assumed")
        numbers = sha256(pattern.two_theta.tobytes() + pattern.intensity.tobytes())
        rows = [crystal_to_json(entry.crystal) for entry in landscape]
        code = self.code["pxrd"], numbers, pattern.wavelength
        tasks = pieces("pxrd", rows, BATCH, lambda part: digest(*code, rows[part]), lambda batch: (target, batch))
        found = fields_of(self._batches("Comparing with the powder pattern", match_batch, tasks))
        entries = tuple(replace(entry, **fields) for entry, fields in zip(landscape, found))
        timings = {**landscape.run["timings_s"], "powder patterns": round(self.store.seconds("pxrd"), 2)}
        run = {**landscape.run, "timings_s": timings}
        return replace(landscape, entries=entries, run=run, wavelength=pattern.wavelength, measured=pattern)

    def _batches(
        self,
        title: str,
        function: Callable[..., bytes],
        tasks: Sequence[tuple[str, str, Any, int]],
        usable: Callable[[bytes], bool] = bool,
    ) -> list[bytes]:
        """Results of all batches in order: what the store has, and what is computed now and stored as it comes.

        A task is (file, id, item or a function that makes it, number of rows).
        """
        data = [self.store.read(key, id) for key, id, _, _ in tasks]
        data = [d if d is not None and usable(d) else None for d in data]
        todo = [k for k, d in enumerate(data) if d is None]
        total = sum(task[3] for task in tasks)
        done = total - sum(tasks[k][3] for k in todo)
        with self.bars.stage(title, total, done) as advance:
            items = [item() if callable(item) else item for item in (tasks[k][2] for k in todo)]
            results = self.executor.run(function, (self.shared,), items)
            for position, result, seconds in results:
                k = todo[position]
                key, id, _, size = tasks[k]
                self.store.write(key, id, result, seconds)
                data[k] = result
                advance(size)
        return [d for d in data if d is not None]


def pieces(
    folder: str,
    rows: Sequence[Any] | np.ndarray,
    size: int,
    key: Callable[[slice], str],
    item: Callable[[Any], Any] = lambda batch: batch,
) -> list[tuple[str, str, Any, int]]:
    """Tasks for `Run._batches` of `size` rows each, named by the `key` of their place; `item` is what a worker gets."""
    parts = [slice(k, min(k + size, len(rows))) for k in range(0, len(rows), size)]
    return [(f"{folder}/{id}.json", id, item(rows[p]), p.stop - p.start) for p in parts for id in (key(p),)]


@dataclass(frozen=True, eq=False)
class Pool:
    """All pressed packings, their ids, and the key of what they came from."""

    packings: Any
    ids: list[str]
    key: str


@dataclass(frozen=True, eq=False)
class Chosen:
    """Packings to relax: rows of the pool, press energies (eV per molecule), how often each was found, and crystals.

    `start` tells crystals apart that are no longer as pressed.
    """

    index: np.ndarray
    energy: np.ndarray
    copies: np.ndarray
    crystals: list[dict[str, Any]]
    start: tuple[str, ...] = ()


def counted(values: dict[str, int]) -> str:
    """Reasons with their numbers as a message tells them, the most frequent first; candidates are not told."""
    shown = {name: n for name, n in values.items() if n and name != "candidates"}
    return ", ".join(f"{shown[name]} {name}" for name in sorted(shown, key=lambda name: -shown[name]))
