"""AIMNet2 energies and gradients of one molecule alone.

D. M. Anstine, R. Zubatyuk, O. Isayev, Chem. Sci. 16, 10228 (2025): a network trained on ωB97M-D3. The wheel auto3d
2.3.1 (MIT) holds it as a TorchScript file, of which the SHA-256 is pinned. It was trained on molecules: in crystals it
fails, so that here it serves inside molecules only. (The wheel's mean of four such networks takes four times as long.)
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molflow_sim.errors import NonFiniteError
from molflow_sim.threads import one_torch_thread
from molflow_sim.wheels import file_of, read_pinned, refuse_unknown

WHEEL, PACKAGE, FILE = "auto3d==2.3.1", "Auto3D", "models/aimnet2_wb97m-d3_0.jpt"
SHA256 = "a6d366b05c5997668f24a834584b4033d0cab67d13d2f8caf143b965018d3735"
"""Of the file in auto3d 2.3.1; another file is another energy and is refused."""
ELEMENTS = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 53)
"""Atomic numbers the network was trained on; for others it gives numbers without meaning."""


class AIMNet2:
    """The energy surface of a neutral closed-shell molecule.

    The file rounds positions to single precision; all else is double here, since energies of atoms of a thousand eV
    would otherwise be 0.01 kJ/mol off, and differ from the integral of the gradients. One thread, and TorchScript as
    written, not as optimised on the way, so that the same positions always have the same energy.

    Parameters
    ----------
    numbers : (N,) array of int
        Atomic numbers.

    Raises
    ------
    UnsupportedElementError
        An element that the network does not know.
    MissingDependencyError
        The wheel is not installed.
    WeightsError
        Its file is not the one pinned.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        check_elements(numbers)
        self._model = _load(weights_file())
        self._numbers = torch.as_tensor(np.asarray(numbers, dtype=np.int64))[None]

    def __call__(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy in eV and its gradient (N, 3) in eV/Å at positions (N, 3) in Å.

        Raises
        ------
        NonFiniteError
            The network gives no number.
        """
        x = self._centred(positions).requires_grad_()
        with torch.enable_grad():
            energy = self._energy(x)
            with one_torch_thread():
                slope = torch.autograd.grad(energy, x)[0]
        gradient = slope[0].double().numpy()
        if not np.isfinite(gradient).all():
            raise NonFiniteError("AIMNet2 gave a gradient that is not finite")
        return float(energy.detach()), gradient

    def energy(self, positions: np.ndarray) -> float:
        """Energy alone, in eV, in a third of the time; raises as `__call__`."""
        with torch.no_grad():
            return float(self._energy(self._centred(positions)))

    @staticmethod
    def _centred(positions: np.ndarray) -> torch.Tensor:
        """Positions (1, N, 3) about the origin: far from it single precision is coarse."""
        return torch.tensor(positions - np.mean(positions, axis=0), dtype=torch.float32)[None]

    def _energy(self, x: torch.Tensor) -> torch.Tensor:
        with one_torch_thread(), torch.jit.optimized_execution(False):
            found = self._model({"coord": x, "numbers": self._numbers, "charge": torch.zeros(1)})["energy"].sum()
        if not torch.isfinite(found):
            raise NonFiniteError("AIMNet2 gave an energy that is not finite")
        return found


def check_elements(numbers: np.ndarray) -> None:
    """Refuse elements that AIMNet2 does not know (UnsupportedElementError)."""
    refuse_unknown("AIMNet2", numbers, ELEMENTS)


def weights_file() -> Path:
    """Where the wheel keeps the network (MissingDependencyError without it)."""
    return file_of(PACKAGE, FILE, WHEEL)


@lru_cache(maxsize=1)
def _load(path: Path) -> Any:
    return torch.jit.load(io.BytesIO(read_pinned(path, SHA256, WHEEL)), map_location="cpu").eval().to(torch.float64)
