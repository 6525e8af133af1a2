"""Processes of their own, one without chemistry libraries and one that is killed on its way; numbers of threads."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

BLOCKED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in "{}".split():
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
"""
CHEMISTRY = "rdkit ase gemmi pymatgen openmm typer spglib vesin oxtalign torch_sim torchpme mdtraj zuko"


def without_chemistry(script: str, *arguments: object, also: str = "") -> str:
    """What a script prints where torch, NumPy and SciPy are all there is, as on machines that train."""
    command = [
        sys.executable,
        "-c",
        BLOCKED.format(f"{CHEMISTRY} {also}") + textwrap.dedent(script),
        *map(str, arguments),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def on_threads(n: int, script: str) -> str:
    """What a script prints where OpenMP and BLAS are told to use `n` threads."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    told = {**os.environ, "OMP_NUM_THREADS": str(n), "OPENBLAS_NUM_THREADS": str(n)}
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, env=told)
    assert run.returncode == 0, run.stderr
    return run.stdout


def killed(command: list[object], reached: Callable[[], bool], after: float = 0.0, **options: Any) -> bool:
    """Start a command and kill it `after` seconds from when it has `reached` a point; whether that came in time."""
    process = subprocess.Popen([str(word) for word in command], **options)
    deadline = time.monotonic() + 120
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(after)
    process.kill()
    return process.wait() != 0


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch uses `n` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
