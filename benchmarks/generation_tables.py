"""The three tables of the generation benchmark, from its runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.generation import CLASSES, MATCH_SAMPLES, SITES, SOLVE_SAMPLES, Run

Count = tuple[float, int]
"""Hits (expected ones are no whole numbers) and candidates."""


@dataclass
class Table:
    """A title, rows of named values, and what a reader should know."""

    title: str
    rows: list[dict[str, Any]]
    note: str = ""


def raw_table(runs: Sequence[Run], sides: Sequence[str]) -> Table:
    """Crystals as generated."""
    rows = []
    for head, group in _groups(runs, sides):
        n = sum(r.raw["n"] for r in group)
        errors = [np.mean(np.abs(r.raw["volume_error"])) for r in group if r.raw["volume_error"]]
        # Shares of all targets: one that the side failed on counts as not matched.
        matched = {
            f"match {s:g}": _share([bool(_below(r.raw["matched"][str(s)], MATCH_SAMPLES)) for r in group])
            for s in SITES
        }
        rows.append(
            {
                **head,
                "clash-free %": _percent(sum(r.raw["clash_free"] for r in group), n),
                "no short contact %": _percent(sum(r.raw["no_short_contact"] for r in group), n),
                "volume RMAD %": round(100.0 * float(np.mean(errors)), 1) if errors else None,
                **matched,
                "solved": _share([bool(_below(r.raw["solved"], SOLVE_SAMPLES)) for r in group]),
                "ms a structure": _milliseconds(group),
                "failed": sum(bool(r.result.error) for r in group),
            }
        )
    return Table(
        "1. As generated",
        rows,
        "clash-free: no overlap of 0.7 Å between van der Waals spheres of heavy atoms (OXtal); no short contact: the\n"
        "project's own test, hydrogens included; volume RMAD: mean over targets;\n"
        f"match: % of targets that one of {MATCH_SAMPLES} samples matches at the site tolerance (pymatgen\n"
        "StructureMatcher, ltol 0.3, 10°, all atoms); solved: % of targets that one of "
        f"{SOLVE_SAMPLES} samples shares\n8 of 15 molecules with (oxtalign, RMSD < 2 Å) without a clash.",
    )


def press_table(runs: Sequence[Run], sides: Sequence[str], milestones: Sequence[int]) -> Table:
    """What the press and the relaxation find."""
    rows = []
    for head, group in _groups(runs, sides):
        found = [r.result for r in group]
        most = max(r.candidates for r in group)
        ranks = [f.relaxed_rank for f in found if f.relaxed_rank]
        gaps = [f.relaxed_gap for f in found if f.relaxed_gap is not None]
        rows.append(
            {
                **head,
                **{f"found in {m}": _share([f.found_relaxed(m) for f in found]) for m in milestones if m <= most},
                "as pressed": _share([f.first is not None for f in found]),
                "median rank": float(np.median(ranks)) if ranks else None,
                "rank 1": sum(k == 1 for k in ranks),
                "median dE": round(float(np.median(gaps)), 1) if gaps else None,
                "misses": _faults(group),
                "s a target": round(float(np.mean([r.seconds for r in group])), 1),
            }
        )
    return Table(
        "2. After press and relaxation",
        rows,
        "found: % of targets, 15 of 15 molecules within found_rmsd, once relaxed; as pressed: before that, among all;\n"
        "rank and dE (kJ/mol) among the relaxed, of the targets found; misses: what they are due to (see recovery.py).",
    )


def enrichment_table(runs: Sequence[Run], sides: Sequence[str]) -> Table:
    """Hits per 1,000 pressed candidates, over random packing's on the same targets."""
    hits = {(r.target, r.source, r.side): (r.result.hits, r.candidates) for r in runs}
    rows = []
    for head, group in _groups(runs, sides):
        both = [(hits[r.target, r.source, r.side], hits[base]) for r in group
                if (base := (r.target, r.source, "random")) in hits]  # fmt: skip
        usual = [(hits[r.target, r.source, r.side], hits[base]) for r in group
                 if (base := (r.target, "minima", "random")) in hits]  # fmt: skip
        only = sum(h > 0 and h0 == 0 for (h, _), (h0, _) in both)
        lost = sum(h == 0 and h0 > 0 for (h, _), (h0, _) in both)
        n = sum(r.raw["n"] for r in group)
        rows.append(
            {
                **head,
                **_over(both),
                "over minima": _over(usual)["typical"],
                "hit, random not": only,
                "random, not hit": lost,
                "close %": _percent(sum(len(r.raw["close"]) for r in group), n, 3),
            }
        )
    return Table(
        "3. Enrichment",
        rows,
        "hits: candidates that press into the experimental minimum; enrichment: over random packing's hits, pooled\n"
        "over the targets done by both; typical: geometric mean of the targets' own ratios (half a hit for none);\n"
        "over minima: the same over random packing of the ten lowest vacuum minima;\n"
        "close: samples as generated within 20°, 0.6 Å and 6 % of the experimental structure, whatever their setting.",
    )


def compare(mine: Sequence[Count], base: Sequence[Count]) -> dict[str, float | None]:
    """Rates per 1,000 and ratios of two sides that have done the same targets.

    The pooled ratio is that of the mean rates. The typical one is the geometric mean over targets; less than half a
    hit counts as half, and a target that has no hits on either side counts as 1, whatever the numbers of candidates.
    """
    if not mine:
        return {"hits per 1000": None, "enrichment": None, "typical": None}
    rates, plain = (1000.0 * float(np.mean([h / n for h, n in side])) for side in (mine, base))
    logs = [
        0.0 if h < 0.5 and h0 < 0.5 else float(np.log(max(h, 0.5) / n) - np.log(max(h0, 0.5) / n0))
        for (h, n), (h0, n0) in zip(mine, base)
    ]
    return {
        "hits per 1000": round(rates, 2),
        "enrichment": round(rates / plain, 2) if plain else None,
        "typical": round(float(np.exp(np.mean(logs))), 2),
    }


def print_tables(tables: Sequence[Table]) -> None:
    """Print each as columns."""
    for table in tables:
        print(f"\n{table.title}")
        if not table.rows:
            print("  nothing done yet")
            continue
        names = list(dict.fromkeys(name for row in table.rows for name in row))
        cells = [names, *([_text(row.get(name)) for name in names] for row in table.rows)]
        widths = [max(len(row[k]) for row in cells) for k in range(len(names))]
        for row in cells:
            print(
                "  "
                + "  ".join(text.rjust(w) if k > 2 else text.ljust(w) for k, (text, w) in enumerate(zip(row, widths)))
            )
        if table.note:
            print(table.note)


def _groups(runs: Sequence[Run], sides: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[Run]]]:
    """(class, conformers, side, number of targets) with the runs of targets that all sides have done."""
    for klass in CLASSES:
        for source in dict.fromkeys(r.source for r in runs):
            here = [r for r in runs if r.klass == klass and r.source == source]
            done = [{r.target for r in here if r.side == side} for side in sides]
            common = set.intersection(*done) if done else set()
            for side in sides:
                group = [r for r in here if r.side == side and r.target in common]
                if group:
                    yield {"class": klass, "conformers": source, "side": side, "targets": len(group)}, group


def _below(numbers: Sequence[int], limit: int) -> list[int]:
    return [k for k in numbers if k < limit]


def _share(flags: Sequence[bool]) -> float:
    return round(100.0 * sum(flags) / len(flags), 1)


def _percent(part: int, whole: int, digits: int = 1) -> float | None:
    return round(100.0 * part / whole, digits) if whole else None


def _milliseconds(group: Sequence[Run]) -> float | None:
    times = [1000.0 * r.seconds_per_structure for r in group if r.raw["n"]]
    return round(float(np.mean(times)), 1) if times else None


def _over(pairs: Sequence[tuple[Count, Count]]) -> dict[str, float | None]:
    return compare([mine for mine, _ in pairs], [base for _, base in pairs])


def _faults(group: Sequence[Run]) -> str:
    faults = [r.result.fault for r in group if r.result.fault]
    return ", ".join(f"{faults.count(name)} {name}" for name in sorted(set(faults))) or "none"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
