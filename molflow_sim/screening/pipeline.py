"""The screening: press -> compare -> relax -> rank -> report, each step a function of the store."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.energies.models import BEST, check_energy_spec, energy_identity, energy_model, recipe
from molflow_sim.errors import InputError, NoCandidatesError
from molflow_sim.generators.protocol import generator_identity
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
from molflow_sim.screening.ranking import (
    RelaxedRow,
    build_landscape,
    by_potential,
    distinct,
    energy_batch,
    in_turn,
    merged,
    refined,
    rerank,
)
from molflow_sim.screening.serialise import crystal_to_json, from_bytes, molecule_identity, to_bytes
from molflow_sim.screening.settings import ENERGY_DIGITS, ScreenSettings
from molflow_sim.screening.stages import Shared, Stages
from molflow_sim.screening.vibrations import vibrating, vibrations_batch, warmed

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

_EVALUATE_BATCH = 50
_ENERGY_BATCH = 16
_REFINE_BATCH = 8
# The code that the stored results of a step depend on, beside the results of the steps before it.
_CODE = {
    "charges": ("stages:parametrize", "stages:stored_charges", "stages:with_charges"),
    "bespoke": ("stages:distil", "stages:with_bespoke"),
    "press": ("stages:press_batch", "stages:parametrize", "stages:generate", "stages:press", "stages:load_packings"),
    "compare": ("pipeline:Run._distinct_packings", "stages:deduplicate_packings"),
    "evaluate": ("stages:evaluate_batch", "stages:parametrize", "stages:evaluate"),
    "relax": ("stages:relax_batch", "stages:parametrize", "stages:relax", "stages:validity"),
    "unique": ("pipeline:Run._representatives", "stages:deduplicate_crystals"),
    "energy": ("ranking:energy_batch", "stages:energies"),
    "refine": ("stages:refine_batch", "stages:parametrize", "stages:refine", "stages:energies", "stages:validity"),
    "reference": ("reference:locate", "stages:similarity", "stages:refine"),
    "vibrations": ("vibrations:vibrations_batch", "stages:parametrize", "stages:vibrations"),
    "pxrd": ("powder:match_batch",),
}


def screen(
    molecule: Molecule | str,
    candidates: int | None = None,
    *,
    seed: int | None = None,
    output: str | Path | None = None,
    space_groups: str | Sequence[str] | None = None,
    z_prime: int | None = None,
    charges: str | None = None,
    potential: str | None = None,
    relax_top: int | None = None,
    reference: str | Path | None = None,
    reference_block: str | None = None,
    energy: str | None = None,
    energy_top: int | None = None,
    refine_top: int | None = None,
    temperature: float | None = None,
    generator: str | None = None,
    weights: str | Path | None = None,
    pxrd: str | Path | None = None,
    wavelength: float | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    settings: ScreenSettings | None = None,
    stages: Stages | None = None,
) -> Landscape:
    """Search, relax and rank the crystal structures of a molecule.

    Parameters
    ----------
    molecule : Molecule or str
        The molecule, or its SMILES.
    candidates : int, optional
        Packings to try; the default takes some minutes for an aspirin-sized molecule on two cores.
    seed : int, optional
        Same seed, settings and version: same result.
    output : path, optional
        Results folder (report.html, ranking.csv, structures/ ...); a temporary one if not given. Calling again with
        the same arguments carries on where a former call was stopped, and repeats nothing that is done.
    space_groups : str or sequence of str, optional
        ``"common"``, or symbols (``["P 21/c", "P-1"]`` or ``"P21/c,P-1"``).
    z_prime : int, optional
        Molecules in the asymmetric unit.
    charges : str, optional
        ``mmff94``, ``hf-esp`` (extra ``esp``), ``gfn2`` or ``gfn2-esp`` (extra ``xtb``).
    potential : str, optional
        ``fit``, or ``bespoke``: fitted to SO3LR for this molecule first, see `molflow_sim.bespoke`.
    relax_top : int, optional
        How many packings are relaxed with flexible molecules.
    reference : path, optional
        CIF of the experimental form; the result then says where it came.
    reference_block : str, optional
        Its data block, where it has several.
    energy : str, optional
        What ranks, see `molflow_sim.energies.models`: ``"best"``, the mean of force field and SO3LR, unless said
        otherwise; ``"potential"`` is the force field alone.
    energy_top : int, optional
        How many structures it ranks; the others follow.
    refine_top : int, optional
        How many of the first are relaxed again on ``"best"``, where that ranks.
    temperature : float, optional
        K; the first ten are ranked by their free energy with harmonic lattice vibrations.
    generator : str, optional
        Where the packings come from: ``random``, ``flow`` (a trained crystal flow) or ``mixed`` (half of each).
    weights : path, optional
        Folder of weights for the flow instead of those of the package.
    pxrd : path, optional
        Measured powder pattern (text, two columns: 2θ and intensity) that every ranked structure is compared with.
    wavelength : float, optional
        Å, of that pattern and of the simulated ones; Cu Kα by default.
    scheduler : str, optional
        Address of a Dask scheduler (``tcp://...``); batches run in this process otherwise.
    overwrite : bool
        Replace the results of another run in `output`.
    progress : bool
        Show progress on standard error.
    settings : ScreenSettings, optional
        All settings at once, those of `ScreenSettings` by default; the arguments above that are given take precedence.
    stages : Stages, optional
        Other implementations of the steps.

    Returns
    -------
    Landscape

    Raises
    ------
    InputError
        Arguments that cannot be used (MoleculeError, SpaceGroupError, CrystalError for the reference...).
    StoreError
        `output` belongs to another run or is in use.
    WeightsError
        The generator's weights are missing or damaged.
    NoCandidatesError
        Nothing survived a step; the message counts the reasons.
    MissingDependencyError
        An optional library that was asked for is not installed.
    """
    given: dict[str, Any] = {
        "candidates": candidates, "seed": seed, "space_groups": space_groups, "z_prime": z_prime, "charges": charges,
        "potential": potential,
        "relax_top": relax_top, "energy": energy, "energy_top": energy_top, "refine_top": refine_top,
        "temperature": temperature, "generator": generator, "weights": weights, "pxrd": pxrd,
        "wavelength": wavelength,
    }  # fmt: skip
    chosen = replace(settings or ScreenSettings(), **{k: value for k, value in given.items() if value is not None})
    if isinstance(molecule, str):
        from molflow_sim.systems.molecule import Molecule

        molecule = Molecule.from_smiles(molecule)
    elif not hasattr(molecule, "conformers"):
        raise InputError(f"screen needs a Molecule or a SMILES, not {type(molecule).__name__}")
    check_energy_spec(chosen.energy)
    measured(chosen)  # refuses what cannot be compared before the work begins
    experiment = None
    if reference is not None:
        from molflow_sim.screening.reference import read_reference

        experiment = read_reference(reference, molecule, reference_block)
    folder = Path(tempfile.mkdtemp(prefix="molflow-")) if output is None else Path(output)
    return Run(molecule, chosen, stages or Stages(), folder, overwrite, progress).run(scheduler, experiment)


def code_of(steps: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """For each step the identity of the code that its stored results depend on, see `_CODE`."""
    return {name: code_identity(*(f"molflow_sim.screening.{root}" for root in roots)) for name, roots in steps.items()}


@dataclass
class Run:
    """One call of `screen`: the steps in order, each reading from and writing to the store."""

    molecule: Any
    settings: ScreenSettings
    stages: Stages
    folder: Path
    overwrite: bool
    progress: bool

    def run(self, scheduler: str | None, experiment: Any) -> Landscape:
        identity = {
            "what": "screening",
            "molecule": self.molecule.smiles,
            "conformers": molecule_identity(self.molecule),
            **self.settings.identity(),
        }
        self.key = digest(identity)
        code = code_of(_CODE)
        code["press"] = digest(code["press"], generator_identity(self.settings.make_generator()))
        if self.settings.potential == "bespoke":
            code |= {name: digest(code[name], code["bespoke"]) for name in ("press", "evaluate", "relax")}
        return self.in_folder(identity, code, scheduler, lambda: self._steps(experiment))

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

    def _steps(self, experiment: Any) -> Landscape:
        from molflow_sim.screening.outputs import provenance, write_outputs

        fit = self._parameters()
        parameters, potential = self._own(fit)
        self.shared = Shared(self.stages, self.molecule, parameters, self.settings, fit)
        self._choose_energy()
        tally: dict[str, dict[str, int]] = {}
        pool = self._press(tally)
        chosen = self._compare(pool, tally)
        rows = self._relax(pool, chosen, tally)
        keep, dropped = distinct(rows, self._unique(rows), tally)
        keep = rerank(keep, self._second_energies(keep), energy_model(self.spec).name)
        keep = self._refine(keep, dropped, tally)
        found = None
        if experiment is not None:
            from molflow_sim.screening.reference import locate

            code = self.code["relax"], self.code["reference"]
            energies = [(row.energy, row.refined_energy) for row in keep]
            key = digest(code, experiment.digest, self.spec, [row.id for row in keep], energies)
            best = self.spec == BEST
            data = self.store.once(
                "reference.json", key, lambda: to_bytes(locate(experiment, keep, self.shared, self.bars, best))
            )
            found = from_bytes(data)
        packings = generator_identity(self.settings.make_generator())
        told = provenance(self.store, self.settings.to_dict(), self.molecule)
        run = {
            **told,
            "potential": potential,
            "packings": packings,
            "code": self.code,
            "energy": self._energy_words(),
        }
        landscape = build_landscape(self.molecule, keep, dropped, tally, run, found, self.store.folder)
        landscape = self._warmed(landscape)
        landscape = self._matched(landscape)
        write_outputs(self.store, landscape, self.settings, self.bars)
        return landscape

    # -- steps --------------------------------------------------------------------------------------------------

    def _choose_energy(self) -> None:
        """What ranks this molecule: what was asked for, or what is left of it."""
        self.spec, self.energy_note = recipe(self.settings.energy, self.molecule)
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

    def _own(self, fit: Any) -> tuple[Any, dict[str, Any]]:
        """Parameters that press, compare and relax, and how they were judged."""
        if self.settings.potential == "fit":
            return fit, {}
        seed, say = self.settings.seed, self.bars.say
        data = self.store.once(
            "bespoke.json", digest(self.key, self.code["bespoke"]),
            lambda: self.stages.distil(self.molecule, fit, seed, say),
        )  # fmt: skip
        return steps.with_bespoke(self.molecule, data)

    def _press(self, tally: dict[str, dict[str, int]]) -> Pool:
        s = self.settings
        run = digest(self.key, self.code["press"])
        tasks = [
            (f"press/{first:06d}.npz", digest(run, first, n), i, n)
            for i in range(s.n_batches)
            for first, n in [(i * s.batch_size, s.size_of_batch(i))]
        ]
        data = self._batches("Packing and pressing", steps.press_batch, tasks)
        parts = [steps.read_packings(self.shared, d) for d in data]
        packings = type(parts[0]).concatenate(parts)
        ids = [digest(run, int(number), length=10) for number in packings.index]
        names = packings.STATUS
        counts = {str(names[k]): int(np.sum(packings.status == k)) for k in np.unique(packings.status)}
        tally["press"] = {"candidates": len(packings), **counts}
        return Pool(packings, ids, digest([task[1] for task in tasks]))

    def _compare(self, pool: Pool, tally: dict[str, dict[str, int]]) -> Chosen:
        s = self.settings
        key = digest(pool.key, self.code["compare"], s.compare_top, s.minimum_density, s.maximum_density)
        data = self.store.once("compare/distinct.npz", key, lambda: self._distinct_packings(pool))
        table = unpack_arrays(data)
        tally["compare"] = {"distinct": int(table["n_distinct"]), "evaluated": len(table["index"])}
        if len(table["index"]) == 0:
            raise NoCandidatesError(
                f"none of {len(pool.ids)} packings survived the press ({_counts(tally['press'])}); try more "
                f"candidates, other space groups or another conformer. What was computed is kept in {self.store.folder}"
            )
        rows = [crystal_to_json(pool.packings.crystal(int(i))) for i in table["index"]]
        tasks = []
        for k in range(0, len(rows), _EVALUATE_BATCH):
            batch, id = rows[k : k + _EVALUATE_BATCH], digest(key, self.code["evaluate"], k)
            tasks.append((f"evaluate/{id}.json", id, batch, len(batch)))
        parts = [from_bytes(d) for d in self._batches("Comparing (Ewald energies)", steps.evaluate_batch, tasks)]
        energies = np.array([np.nan if e is None else e for part in parts for e in part])
        tally["compare"]["failed"] = int(np.sum(np.isnan(energies)))
        order = np.argsort(np.round(energies, ENERGY_DIGITS), kind="stable")[: int(np.sum(np.isfinite(energies)))]
        if len(order) == 0:
            raise NoCandidatesError(f"the potential gave no finite energy for any of {len(rows)} packings")
        if self.spec == BEST:
            order = self._liked_by_either(order, [rows[i] for i in order], key)
        order = order[: s.relax_top]
        tally["compare"]["chosen to relax"] = len(order)
        return Chosen(table["index"][order], table["energy"][order], table["copies"][order], [rows[i] for i in order])

    def _liked_by_either(self, order: np.ndarray, rows: list[dict[str, Any]], key: str) -> np.ndarray:
        """Packings in turn from the order of the potential and from that of the energy that ranks."""
        keys = [(key, self.code["evaluate"], int(i)) for i in order]
        values = self._energies("Energies of packings", rows, keys, "judge", _ENERGY_BATCH)
        ranking = np.array([np.inf if v["energy"] is None else v["energy"] for v in values])
        other = order[np.argsort(np.round(ranking, ENERGY_DIGITS), kind="stable")]
        return np.array(in_turn(order, other))

    def _distinct_packings(self, pool: Pool) -> bytes:
        p, s = pool.packings, self.settings
        inside = (p.density >= s.minimum_density) & (p.density <= s.maximum_density)
        usable = np.flatnonzero((p.status == 0) & np.isfinite(p.energy) & inside)
        kept = np.empty(0, dtype=int)
        copies = np.empty(0, dtype=int)
        if len(usable):
            representative = self.stages.deduplicate_packings(p.select(usable), p.energy[usable])
            kept, copies = np.unique(representative, return_counts=True)
        index = usable[kept]
        order = np.argsort(np.round(p.energy[index], ENERGY_DIGITS), kind="stable")[: s.compare_top]
        return pack_arrays(
            {
                "index": index[order],
                "energy": p.energy[index[order]],
                "copies": copies[order],
                "n_distinct": np.array(len(index)),
            }
        )

    def _relax(
        self,
        pool: Pool,
        chosen: Chosen,
        tally: dict[str, dict[str, int]],
        title: str = "Relaxing flexible molecules",
    ) -> list[RelaxedRow]:
        size = self.settings.relax_batch
        ids = [pool.ids[i] for i in chosen.index]
        tasks = []
        for k in range(0, len(ids), size):
            key = digest(self.code["relax"], ids[k : k + size], self._relax_settings())
            tasks.append((f"relax/{key}.json", key, chosen.crystals[k : k + size], len(ids[k : k + size])))
        parts = [from_bytes(d) for d in self._batches(title, steps.relax_batch, tasks)]
        stored = [row for part in parts for row in part]
        rows = [
            RelaxedRow.from_stored(id, row, float(e), int(n), self.molecule)
            for id, row, e, n in zip(ids, stored, chosen.energy, chosen.copies)
        ]
        valid = [row for row in rows if row.valid]
        tally["relax"] = {
            "relaxed": len(rows),
            "valid": len(valid),
            "converged": sum(row.converged for row in valid),
        }
        if not valid:
            reasons: dict[str, int] = {}
            for row in rows:
                text = row.reason.split(":")[0][:80] or "invalid"
                reasons[text] = reasons.get(text, 0) + 1
            raise NoCandidatesError(
                f"none of {len(rows)} structures is a valid crystal of the molecule ({_counts(reasons)}); "
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
        if self.spec == "potential":
            return []
        best = rows[: self.settings.energy_top]
        keys = [(self.code["relax"], row.id, row.energy) for row in best]
        results = self._energies(f"Energies with {self.spec}", [crystal_to_json(row.crystal) for row in best], keys)
        failed = [result["reason"] for result in results if result["energy"] is None]
        if self.spec == BEST and 2 * len(failed) > len(results):
            note = f"{failed[0]}: so for {len(failed)} of {len(results)} structures; ranked by potential"
            self.spec, self.energy_note = "potential", note
            self.bars.say(note)
            return []
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
        tasks = []
        for k in range(0, len(rows), size):
            batch, id = rows[k : k + size], digest(code, keys[k : k + size])
            tasks.append((f"{folder}/{id}.json", id, (self.spec, batch), len(batch)))
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
        if self.spec != BEST:
            return rows
        known = [row for row in rows if np.isfinite(row.second_energy)]
        chosen = sorted(in_turn(range(len(known)), by_potential(known))[: self.settings.refine_top])
        first = [known[k] for k in chosen]
        taken = {row.id for row in first}
        rest = [row for row in rows if row.id not in taken]
        tasks = []
        for k in range(0, len(first), _REFINE_BATCH):
            batch = first[k : k + _REFINE_BATCH]
            key = digest(
                self.code["relax"], self.code["refine"], energy_identity(self.spec), self._relax_settings(),
                [(row.id, row.energy) for row in batch],
            )  # fmt: skip
            tasks.append((f"refine/{key}.json", key, [crystal_to_json(row.crystal) for row in batch], len(batch)))
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
            on_best, stored = entry.relaxed_on != "potential", crystal_to_json(entry.crystal)
            code = self.code["vibrations"], self.code["relax"], energy_identity(BEST) if on_best else ""
            key = digest(code, self.shared.parameters.charge_model, stored)
            tasks.append((f"vibrations/{key}.json", key, (on_best, stored), 1))
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
        tasks = []
        for k in range(0, len(rows), BATCH):
            key = digest(self.code["pxrd"], numbers, pattern.wavelength, rows[k : k + BATCH])
            tasks.append((f"pxrd/{key}.json", key, (target, rows[k : k + BATCH]), len(rows[k : k + BATCH])))
        found = fields_of(self._batches("Comparing with the powder pattern", match_batch, tasks))
        entries = tuple(replace(entry, **fields) for entry, fields in zip(landscape, found))
        timings = {**landscape.run["timings_s"], "powder patterns": round(self.store.seconds("pxrd"), 2)}
        run = {**landscape.run, "timings_s": timings}
        return replace(landscape, entries=entries, run=run, wavelength=pattern.wavelength, measured=pattern)

    # -- batches ------------------------------------------------------------------------------------------------

    def _batches(
        self,
        title: str,
        function: Callable[..., bytes],
        tasks: Sequence[tuple[str, str, Any, int]],
        usable: Callable[[bytes], bool] = bool,
    ) -> list[bytes]:
        """Results of all batches in order: what the store has, and what is computed now and stored as it comes."""
        data = [self.store.read(key, id) for key, id, _, _ in tasks]
        data = [d if d is not None and usable(d) else None for d in data]
        todo = [k for k, d in enumerate(data) if d is None]
        total = sum(task[3] for task in tasks)
        done = total - sum(tasks[k][3] for k in todo)
        with self.bars.stage(title, total, done) as advance:
            results = self.executor.run(function, (self.shared,), [tasks[k][2] for k in todo])
            for position, result, seconds in results:
                k = todo[position]
                key, id, _, size = tasks[k]
                self.store.write(key, id, result, seconds)
                data[k] = result
                advance(size)
        return [d for d in data if d is not None]


@dataclass(frozen=True, eq=False)
class Pool:
    """All pressed packings, their ids, and the key of what they came from."""

    packings: Any
    ids: list[str]
    key: str


@dataclass(frozen=True, eq=False)
class Chosen:
    """Packings to relax: rows of the pool, press energies (eV per molecule), how often each was found, and crystals."""

    index: np.ndarray
    energy: np.ndarray
    copies: np.ndarray
    crystals: list[dict[str, Any]]


def _counts(values: dict[str, int]) -> str:
    shown = {name: n for name, n in values.items() if n and name != "candidates"}
    return ", ".join(f"{shown[name]} {name}" for name in sorted(shown, key=lambda name: -shown[name]))
