"""`python -m benchmarks NAME ...` runs a benchmark, without a name it lists them."""

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


def names() -> dict[str, str]:
    """First lines of what can be run, by name."""
    found = {}
    for path in sorted(HERE.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").splitlines()[0]
    return found


def _run() -> None:
    known, asked = names(), sys.argv[1:2]
    if not asked or asked[0] not in known:
        print("\n".join(f"{name:20} {line}" for name, line in known.items()))
        sys.exit(0 if asked in ([], ["--help"], ["-h"]) else f"unknown benchmark {asked[0]!r}")
    sys.argv = sys.argv[1:]
    runpy.run_module(f"benchmarks.{asked[0]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run()
