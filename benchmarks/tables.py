"""Writes the tables of README and docs from the results that the benchmarks keep.

    python -m benchmarks tables           # writes what has changed
    python -m benchmarks tables --check   # ends with 1 where a page differs from the results

A benchmark that is given ``--keep`` writes benchmarks/results/NAME.json: the lines of its table, the command, versions,
date and machine. A page says where a table goes: ``<!-- results: NAME ... -->`` before it, ``<!-- end -->`` behind; or
``<!-- rows: NAME TABLE -->`` for a table among all its figures.
"""

import argparse
import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from molflow_sim import __version__
from molflow_sim.runs.files import write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PLACE = re.compile(r"(<!-- results: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
ROWS = re.compile(r"(<!-- rows: (\w+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def keep(name: str, lines: Sequence[tuple[str, str]], rows: Any = None, folder: Path = RESULTS) -> Path:
    """Keep what a benchmark found.

    Parameters
    ----------
    name : str
        The benchmark.
    lines : sequence of (str, str)
        What was measured, and the figure with its unit.
    rows : JSON-like, optional
        All figures, for those who look closer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {
        "command": " ".join(["python -m benchmarks", name, *(a for a in sys.argv[1:] if a != "--keep")]),
        "version": __version__,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "lines": [list(line) for line in lines],
        "rows": rows,
    }
    write_json(path, content)
    return path


def table(names: Sequence[str], folder: Path = RESULTS, docs: str = "docs/") -> str:
    """A Markdown table of the kept results of some benchmarks; `docs` is the way from the page to the folder docs."""
    lines = ["| what | figure | command | when |", "|---|---|---|---|"]
    for name in names:
        kept = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for k, (what, figure) in enumerate(kept["lines"]):
            command = "same run" if k else f"`{kept['command']}`"
            lines.append(f"| {what} | {figure} | {command} | {kept['date']} |".replace("](docs/", f"]({docs}"))
    return "\n".join(lines) + "\n"


def rows_table(name: str, title: str, folder: Path = RESULTS) -> str:
    """A Markdown table of one table, a list of rows with the same keys, among the kept figures of a benchmark."""
    rows = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["rows"][title]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[list(row.values()) for row in rows]]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def filled(page: str, folder: Path = RESULTS, docs: str = "docs/") -> str:
    """A page with its tables made anew; `docs` as in `table`."""
    page = ROWS.sub(lambda m: m.group(1) + rows_table(m.group(2), m.group(3), folder) + m.group(4), page)
    return PLACE.sub(lambda m: m.group(1) + table(m.group(2).split(), folder, docs) + m.group(3), page)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, or say which ones differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    stale = 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        before = path.read_text(encoding="utf-8")
        way = path.relative_to(ROOT).parts[:-1]  # links of the results are the README's
        after = filled(before, docs="../" * (len(way) - 1) if way else "docs/")
        if after != before:
            print(f"{path.relative_to(ROOT)}: {'differs from the results' if args.check else 'written'}")
            stale += 1
            if not args.check:
                path.write_text(after, encoding="utf-8")
    return int(args.check and stale > 0)


if __name__ == "__main__":
    raise SystemExit(main())
