"""Runs the blocks of docs/tutorial.md, in order, in an empty folder: what the tutorial says is what happens.

python examples/run_tutorial.py [FOLDER]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"


def main(folder: Path) -> None:
    """Run every block; the first that fails ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    # `molflow` and `python` of this environment, whatever the shell would find.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL):
        print(f"\n--- {language}\n{block}", flush=True)
        command = ["bash", "-ec", block] if language == "bash" else [sys.executable, "-c", block]
        start = time.monotonic()
        subprocess.run(command, cwd=folder, env=environment, check=True)
        print(f"({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="tutorial-")))
