"""The steps of a search: press -> compare -> relax -> rank -> report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from molflow_sim.energies.models import BEST, energy_model
from molflow_sim.errors import NoCandidatesError
from molflow_sim.generators.protocol import generator_identity
from molflow_sim.runs.identity import digest
from molflow_sim.runs.store import pack_arrays, unpack_arrays
from molflow_sim.screening import stages as steps
from molflow_sim.screening.landscape import Landscape
from molflow_sim.screening.ranking import build_landscape, distinct, in_turn, rerank
from molflow_sim.screening.run import Chosen, Pool, Run, code_of, counted
from molflow_sim.screening.serialise import crystal_to_json, from_bytes, molecule_identity, to_bytes
from molflow_sim.screening.settings import ENERGY_DIGITS
from molflow_sim.screening.stages import Shared

_EVALUATE_BATCH = 50
_ENERGY_BATCH = 16
# The code that the stored results of a step depend on, beside the results of the steps before it.
_CODE = {
    "charges": ("stages:parametrize", "stages:stored_charges", "stages:with_charges"),
    "bespoke": ("stages:distil", "stages:with_bespoke"),
    "press": ("stages:press_batch", "stages:parametrize", "stages:generate", "stages:press", "stages:load_packings"),
    "compare": ("search:Search._distinct_packings", "stages:deduplicate_packings"),
    "evaluate": ("stages:evaluate_batch", "stages:parametrize", "stages:evaluate"),
    "relax": ("stages:relax_batch", "stages:parametrize", "stages:relax", "stages:validity"),
    "unique": ("run:Run._representatives", "stages:deduplicate_crystals"),
    "energy": ("ranking:energy_batch", "stages:energies"),
    "refine": ("stages:refine_batch", "stages:parametrize", "stages:refine", "stages:energies", "stages:validity"),
    "reference": ("reference:locate", "stages:similarity", "stages:refine"),
    "vibrations": ("vibrations:vibrations_batch", "stages:parametrize", "stages:vibrations"),
    "pxrd": ("powder:match_batch",),
}


@dataclass
class Search(Run):
    """One call of `screen`."""

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
                f"none of {len(pool.ids)} packings survived the press ({counted(tally['press'])}); try more "
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
