"""From relaxed structures to a ranking: merge duplicates, re-rank with a second model, build the landscape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.energies.models import Value
from molflow_sim.screening.failures import together
from molflow_sim.screening.landscape import (
    Dropped,
    Landscape,
    LandscapeEntry,
    ReferenceMatch,
    relative_energies,
    short_symbol,
)
from molflow_sim.screening.serialise import crystal_from_json, to_bytes
from molflow_sim.screening.settings import ENERGY_DIGITS
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.screening.stages import Shared

_KEPT = (
    "id", "crystal", "press_energy", "copies", "converged", "max_force", "residual_stress_gpa", "n_steps", "note",
    "source",
)  # fmt: skip
"""What a ranked structure has from its row as it is."""


@dataclass(frozen=True, eq=False)
class RelaxedRow:
    """A structure after the flexible relaxation, valid or not. Energies in eV per molecule."""

    id: str
    crystal: Any
    energy: float
    press_energy: float
    copies: int
    valid: bool
    converged: bool = False
    max_force: float = float("nan")
    residual_stress_gpa: float = float("nan")
    n_steps: int = 0
    reason: str = ""
    second_energy: float = float("nan")
    second_model: str = ""
    parts: dict[str, float] = field(default_factory=dict)
    refined_energy: float = float("nan")
    note: str = ""
    source: str = ""

    @classmethod
    def from_stored(cls, id: str, row: dict[str, Any], press_energy: float, copies: int, molecule: Any) -> RelaxedRow:
        """A stored row of `relax_batch` with what is known of its candidate."""
        if row["crystal"] is None:
            return cls(id, None, float("nan"), press_energy, copies, False, reason=row["reason"])
        new = cls(id, None, row["energy"], press_energy, copies, row["valid"])
        return replace(new.relaxed(row, molecule), reason="; ".join(row["invalid_because"]) or row["reason"])

    def relaxed(self, stored: dict[str, Any], molecule: Any) -> RelaxedRow:
        """This row with the structure of a stored one, and how its relaxation went."""
        return replace(
            self,
            crystal=crystal_from_json(stored["crystal"], [molecule]),
            **{name: stored[name] for name in ("converged", "max_force", "residual_stress_gpa")},
            n_steps=self.n_steps + stored["n_steps"],
            note="" if stored["converged"] else (stored["reason"] or "relaxation not converged"),
        )


def distinct(
    rows: Sequence[RelaxedRow], representative: np.ndarray, tally: dict[str, dict[str, int]]
) -> tuple[list[RelaxedRow], list[Dropped]]:
    """The distinct valid structures by energy, and the others with the reason.

    Parameters
    ----------
    rows : sequence of RelaxedRow
    representative : ndarray of int
        For each valid row, in order, the position of the valid row that stands for it.
    tally : dict
        Receives the counts of this step.
    """
    dropped = [dropped_row(row, "relax", row.reason or "invalid") for row in rows if not row.valid]
    valid = [row for row in rows if row.valid]
    kept, repeats = merged(valid, representative, "compare")
    tally["rank"] = {"distinct": len(kept), "duplicates merged": len(repeats)}
    return sorted(kept, key=lambda row: (round(row.energy, ENERGY_DIGITS), row.id)), dropped + repeats


def merged(
    rows: Sequence[RelaxedRow], representative: np.ndarray, stage: str
) -> tuple[list[RelaxedRow], list[Dropped]]:
    """The rows that stand for others, with the copies of all, and the others with the name of theirs."""
    copies: dict[int, int] = {}
    repeats = []
    for i, (row, k) in enumerate(zip(rows, representative.tolist())):
        copies[k] = copies.get(k, 0) + row.copies
        if i != k:
            repeats.append(dropped_row(row, stage, f"same structure as {rows[k].source or rows[k].id}"))
    return [replace(rows[k], copies=n) for k, n in copies.items()], repeats


def energy_batch(shared: Shared, item: tuple[str, Sequence[dict[str, Any]]]) -> bytes:
    """Energies of some structures with the model that ranks, or the reasons why there are none."""
    spec, stored = item
    crystals = [crystal_from_json(data, [shared.molecule]) for data in stored]
    values = together(
        lambda some: shared.stages.energies(spec, some, shared.ranking), crystals,
        lambda reason: Value(float("nan"), reason=reason),
    )  # fmt: skip
    return to_bytes([stored_value(value) for value in values])


def stored_value(value: Value) -> dict[str, Any]:
    """A value as the store keeps it: null where it is not finite."""
    finite = bool(np.isfinite(value.energy))
    reason = value.reason or ("" if finite else "the energy is not finite")
    return {"energy": value.energy if finite else None, "parts": value.parts if finite else {}, "reason": reason}


def rerank(rows: Sequence[RelaxedRow], second: Sequence[dict[str, Any]], model: str) -> list[RelaxedRow]:
    """Order the first ``len(second)`` rows by their second energies; failures follow them, then the rest as it was."""
    best = []
    for row, result in zip(rows, second):
        energy = float("nan") if result["energy"] is None else float(result["energy"])
        note = "; ".join(x for x in (row.note, result["reason"]) if x)
        best.append(replace(row, second_energy=energy, second_model=model, parts=result["parts"], note=note))
    done = [r for r in best if np.isfinite(r.second_energy)]
    done.sort(key=lambda r: (round(r.second_energy, ENERGY_DIGITS), r.id))
    failed = [r for r in best if not np.isfinite(r.second_energy)]
    return [*done, *failed, *rows[len(best) :]]


def in_turn(*orders: Sequence[int] | np.ndarray) -> list[int]:
    """What several orders of the same numbers put first, one of each in turn, everything once."""
    return list(dict.fromkeys(np.stack([np.asarray(order) for order in orders], axis=1).ravel().tolist()))


def by_potential(rows: Sequence[RelaxedRow]) -> list[int]:
    """Positions of the rows in the order of the force field's energy."""
    return sorted(range(len(rows)), key=lambda k: (round(rows[k].energy, ENERGY_DIGITS), rows[k].id))


def refined(row: RelaxedRow, stored: dict[str, Any], molecule: Any) -> RelaxedRow:
    """A row with its structure relaxed on the potential that ranks; as it was, with a note, where that failed."""
    if stored["crystal"] is None or not stored["valid"]:
        why = stored["reason"] or "; ".join(stored["invalid_because"])
        return replace(row, note="; ".join(x for x in (row.note, f"not relaxed on {row.second_model}: {why}") if x))
    return replace(row.relaxed(stored, molecule), refined_energy=stored["energy"], parts=stored["parts"])


def _spread(rows: Sequence[RelaxedRow]) -> tuple[list[dict[str, float]], np.ndarray]:
    """For each row its members' energies above those of the first row, and half their range, kJ/mol."""
    first = rows[0].parts
    relative = [
        {name: (e - first[name]) / KJ_PER_MOL for name, e in row.parts.items() if name in first} for row in rows
    ]
    half = [(max(r.values()) - min(r.values())) / 2 if len(r) > 1 else np.nan for r in relative]
    return relative, np.array(half)


def build_landscape(
    molecule: Any,
    rows: Sequence[RelaxedRow],
    dropped: Sequence[Dropped],
    tally: dict[str, dict[str, int]],
    run: dict[str, Any],
    reference: dict[str, Any] | None,
    folder: Path,
) -> Landscape:
    """The landscape of ranked rows.

    Where a second model re-ranked the best, ΔE of the others is not known in it: their ``relative_energy`` is NaN and
    only ``potential_relative`` counts. Structures that were relaxed on that model come first, by its energy there; ΔE
    of those that were not is that of single points, against the single point of the first.
    """
    potential = relative_energies(np.array([row.energy for row in rows]))
    second = np.array([row.second_energy for row in rows])
    reranked = bool(np.any(np.isfinite(second)))
    last = np.array([row.refined_energy for row in rows])
    if reranked and np.isfinite(last[0]):
        relative = np.where(np.isfinite(last), relative_energies(last), (second - second[0]) / KJ_PER_MOL)
    else:
        relative = relative_energies(second) if reranked else potential
    parts, spread = _spread(rows)
    found = dict(reference["rmsd15"]) if reference else {}
    entries = tuple(
        LandscapeEntry(
            rank=i + 1,
            energy=next(float(e) for e in (row.refined_energy, row.second_energy, row.energy) if np.isfinite(e)),
            relative_energy=float(relative[i]),
            potential_energy=row.energy,
            potential_relative=float(potential[i]),
            energy_model=row.second_model if np.isfinite(row.second_energy) else "potential",
            relaxed_on=row.second_model if np.isfinite(row.refined_energy) else "potential",
            uncertainty=float(spread[i]),
            parts=parts[i],
            reference_rmsd=found.get(row.id, float("nan")),
            **{name: getattr(row, name) for name in _KEPT},
        )
        for i, row in enumerate(rows)
    )
    match = None
    if reference:
        match = ReferenceMatch(**reference["match"])
        hit = next((e for e in entries if e.id == reference["hit"]), None)
        if hit is not None and np.isfinite(hit.relative_energy):
            match = replace(match, rank=hit.rank, relative_energy=hit.relative_energy)
        elif hit is not None:
            note = "; ".join(x for x in (match.note, "ΔE is the force field's") if x)
            match = replace(match, rank=hit.rank, relative_energy=hit.potential_relative, note=note)
    return Landscape(molecule, entries, tuple(dropped), tally, run, match, folder)


def dropped_row(row: RelaxedRow, stage: str, reason: str) -> Dropped:
    """A row as one that is not ranked."""
    if row.crystal is None:
        return Dropped(row.id, stage, reason, source=row.source)
    density, symbol = float(row.crystal.density), short_symbol(row.crystal)
    return Dropped(row.id, stage, reason, row.energy, density, symbol, row.source)
