"""Settings of a search for conformers, checked once, at the door."""

from __future__ import annotations

from dataclasses import dataclass

from molflow_sim.errors import InputError
from molflow_sim.generators.protocol import whole_number

USUAL_ATOMS = 24


@dataclass(frozen=True)
class ConformerSettings:
    """How the conformers of each molecule are searched and which are kept.

    Attributes
    ----------
    window : float
        kJ/mol; conformers higher than this above the molecule's lowest are left out.
    keep : int
        Conformers kept at most for each molecule, the lowest.
    embeddings : int
        Embeddings at most; rigid molecules get fewer.
    kicks : int
        Conformers with one bond turned that are minimised by MMFF94 at most.
    evaluations : int
        GFN2-xTB gradients for a molecule of up to `USUAL_ATOMS` atoms, about; see `gradients`.
    force : float
        eV/Å; a conformer is minimised once no atom feels more.
    max_atoms : int
        Larger molecules are dropped with a reason.
    seconds : float
        A molecule that takes longer is dropped with a reason.
    seed : int
        Every molecule draws from (seed, its SMILES), so order and company do not matter.
    """

    window: float = 25.0
    keep: int = 30
    embeddings: int = 100
    kicks: int = 60
    evaluations: int = 400
    force: float = 0.03
    max_atoms: int = 60
    seconds: float = 600.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("keep", 1), ("embeddings", 2), ("kicks", 0), ("evaluations", 1), ("max_atoms", 2)):
            whole_number(name, getattr(self, name), least)
        for name, most in (("window", 1e3), ("force", 1.0), ("seconds", 1e7)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
                raise InputError(f"{name} must be positive and at most {most:g}, not {value!r}")
            object.__setattr__(self, name, float(value))

    def gradients(self, n_atoms: int) -> int:
        """GFN2-xTB gradients for a molecule: larger ones get fewer, since one costs as the square of their atoms."""
        return max(round(self.evaluations * min(1.0, USUAL_ATOMS / n_atoms) ** 2), 12)
