"""The steps of a search: press -> compare -> relax -> rank -> report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from molflow_sim.energies.models import BESTS, energy_model
from molflow_sim.errors import NoCandidatesError
from molflow_sim.generators.protocol import generator_identity
from molflow_sim.runs.identity import digest
from molflow_sim.runs.store import pack_arrays, unpack_arrays
from molflow_sim.screening import stages as steps
from molflow_sim.screening.landscape import Landscape
from molflow_sim.screening.ranking import build_landscape, distinct, in_turn, rerank
from molflow_sim.screening.run import CODE, Chosen, Pool, Run, code_of, counted, pieces
from molflow_sim.screening.serialise import crystal_from_json, crystal_to_json, from_bytes, molecule_identity, to_bytes
from molflow_sim.screening.settings import ENERGY_DIGITS
from molflow_sim.screening.stages import Shared

_FREE_BATCH = 128
_EVALUATE_BATCH = 50
_ENERGY_BATCH = 16
_CODE = {
    **CODE,
    "bespoke": ("stages:distil", "stages:with_bespoke"),
    "press": ("stages:press_batch", "stages:parametrize", "stages:generate", "stages:press", "stages:load_packings"),
    "compare": ("search:Search._distinct_packings", "stages:deduplicate_packings"),
    "free": ("search:Search._lowest_freed", "stages:free_batch", "stages:parametrize", "stages:free"),
    "evaluate": ("stages:evaluate_batch", "stages:parametrize", "stages:evaluate"),
    "relax": ("stages:relax_batch", "stages:parametrize", "stages:relax", "stages:validity"),
    "unique": ("run:Run._representatives", "stages:deduplicate_crystals"),
    "reference": ("reference:locate", "stages:similarity", "stages:refine"),
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
            code |= {name: digest(code[name], code["bespoke"]) for name in ("press", "free", "evaluate", "relax")}
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
            data = self.store.once(
                "reference.json", key, lambda: to_bytes(locate(experiment, keep, self.shared, self.bars, self.spec))
            )
            found = from_bytes(data)
        packings = generator_identity(self.settings.make_generator())
        told = provenance(self.store, self.settings.to_dict(), self.molecule)
        run = {**told, "potential": potential, "packings": packings, "code": self.code, "energy": self._energy_words()}
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
        flexible = s.free_top > 0 and self.molecule.n_rotatable > 0
        most = max(s.free_top, s.compare_top) if flexible else s.compare_top
        key = digest(pool.key, self.code["compare"], most, s.minimum_density, s.maximum_density)
        data = self.store.once("compare/distinct.npz", key, lambda: self._distinct_packings(pool, most))
        table = unpack_arrays(data)
        tally["compare"] = {"distinct": int(table["n_distinct"])}
        if len(table["index"]) == 0:
            raise NoCandidatesError(
                f"none of {len(pool.ids)} packings survived the press ({counted(tally['press'])}); try more "
                f"candidates, other space groups or another conformer. What was computed is kept in {self.store.folder}"
            )

        def stored(index: np.ndarray) -> list[dict[str, Any]]:
            return [crystal_to_json(pool.packings.crystal(int(i))) for i in index]

        if flexible:
            key = digest(key, self.code["free"])
            table, rows = self._freed(key, table, stored, tally)
        else:
            rows = stored(table["index"])
        tally["compare"]["evaluated"] = len(rows)
        code = self.code["evaluate"]
        tasks = pieces("evaluate", rows, _EVALUATE_BATCH, lambda part: digest(key, code, part.start, part.stop))
        parts = [from_bytes(d) for d in self._batches("Comparing (Ewald energies)", steps.evaluate_batch, tasks)]
        energies = np.array([np.nan if e is None else e for part in parts for e in part])
        tally["compare"]["failed"] = int(np.sum(np.isnan(energies)))
        order = np.argsort(np.round(energies, ENERGY_DIGITS), kind="stable")[: int(np.sum(np.isfinite(energies)))]
        if len(order) == 0:
            raise NoCandidatesError(f"the potential gave no finite energy for any of {len(rows)} packings")
        if self.spec in BESTS:
            order = self._liked_by_either(order, [rows[i] for i in order], key)
        order = order[: s.relax_top]
        tally["compare"]["chosen to relax"] = len(order)
        start = (self.code["free"],) if flexible else ()
        crystals = [rows[i] for i in order]
        return Chosen(table["index"][order], table["energy"][order], table["copies"][order], crystals, start)

    def _freed(
        self, key: str, table: dict[str, np.ndarray], stored: Callable[..., Any], tally: dict[str, dict[str, int]]
    ) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
        """Packings relaxed loosely with all atoms free: the lowest of those that are different then."""
        # Packings whose batch is done already are not written out again.
        tasks = pieces(
            "free", table["index"], _FREE_BATCH, lambda part: digest(key, part.start), lambda i: partial(stored, i)
        )
        freed = [row for d in self._batches("Freeing torsions", steps.free_batch, tasks) for row in from_bytes(d)]
        good = [k for k, row in enumerate(freed) if row["crystal"] is not None]
        if not good:
            raise NoCandidatesError(f"none of {len(freed)} packings could be relaxed: {freed[0]['reason']}")
        data = self.store.once(
            "compare/freed.npz", digest(key, self.settings.compare_top), lambda: self._lowest_freed(freed, good, table)
        )
        found = unpack_arrays(data)
        tally["compare"] |= {"relaxed loosely": len(good), "then distinct": int(found["n_distinct"])}
        chosen = {"index": table["index"][found["row"]], "energy": table["energy"][found["row"]]}
        return {**chosen, "copies": found["copies"]}, [freed[k]["crystal"] for k in found["row"]]

    def _lowest_freed(self, freed: list[dict[str, Any]], good: list[int], table: dict[str, np.ndarray]) -> bytes:
        energies = np.array([freed[k]["energy"] for k in good])
        crystals = [crystal_from_json(freed[k]["crystal"], [self.molecule]) for k in good]
        kept, group = np.unique(self.stages.deduplicate_packings(crystals, energies), return_inverse=True)
        copies = np.bincount(group, weights=table["copies"][good]).astype(int)
        order = np.argsort(np.round(energies[kept], ENERGY_DIGITS), kind="stable")[: self.settings.compare_top]
        row = np.array(good)[kept[order]]
        return pack_arrays({"row": row, "copies": copies[order], "n_distinct": np.array(len(kept))})

    def _liked_by_either(self, order: np.ndarray, rows: list[dict[str, Any]], key: str) -> np.ndarray:
        """Packings in turn from the order of the potential and from that of the energy that ranks."""
        keys = [(key, self.code["evaluate"], int(i)) for i in order]
        values = self._energies("Energies of packings", rows, keys, "judge", _ENERGY_BATCH)
        ranking = np.array([np.inf if v["energy"] is None else v["energy"] for v in values])
        other = order[np.argsort(np.round(ranking, ENERGY_DIGITS), kind="stable")]
        return np.array(in_turn(order, other))

    def _distinct_packings(self, pool: Pool, most: int) -> bytes:
        p, s = pool.packings, self.settings
        inside = (p.density >= s.minimum_density) & (p.density <= s.maximum_density)
        usable = np.flatnonzero((p.status == 0) & np.isfinite(p.energy) & inside)
        kept = np.empty(0, dtype=int)
        copies = np.empty(0, dtype=int)
        if len(usable):
            crystals = [p.crystal(int(i)) for i in usable]
            representative = self.stages.deduplicate_packings(crystals, p.energy[usable])
            kept, copies = np.unique(representative, return_counts=True)
        index = usable[kept]
        order = np.argsort(np.round(p.energy[index], ENERGY_DIGITS), kind="stable")[:most]
        return pack_arrays(
            {
                "index": index[order],
                "energy": p.energy[index[order]],
                "copies": copies[order],
                "n_distinct": np.array(len(index)),
            }
        )
