"""The crystal flow as a generator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from molflow_sim.errors import InputError
from molflow_sim.generators.protocol import CrystalRequest, served
from molflow_sim.models.crystal_flow.model import FLOW_DRAWS, CrystalFlow
from molflow_sim.runs.identity import source_digest
from molflow_sim.training.model import shared_model

if TYPE_CHECKING:
    from molflow_sim.packing import RigidPackings


@dataclass(frozen=True)
class FlowGenerator:
    """A trained crystal flow (a `molflow_sim.generators.protocol.Generator`).

    Attributes
    ----------
    weights : str or None
        Folder with the weights; those of the package if None.
    draws : int
        Packings drawn for each one proposed, which are the lower ones in energy; see `CrystalFlow.propose`.
    """

    kind: ClassVar[str] = "crystals/flow"
    weights: str | None = None
    draws: int = FLOW_DRAWS

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InputError(f"the flow must draw at least one packing for each proposed, got {self.draws}")

    def sample(self, request: CrystalRequest, n: int, *, seed: int, first_index: int = 0) -> RigidPackings:
        """See `Generator.sample`."""
        asked = served(request, CrystalRequest, self.kind)
        return self.load().propose(
            asked.molecule, n, seed=seed, first_index=first_index, space_groups=asked.space_groups,
            z_prime=asked.z_prime, draws=self.draws,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`.

        Raises
        ------
        WeightsError
            As `load`.
        """
        return {"generator": "flow", "weights": self.load().card["sha256"], "draws": self.draws, "code": _code()}

    def load(self) -> CrystalFlow:
        """The flow, loaded once in each process.

        Raises
        ------
        WeightsError
            Weights that are missing, damaged, changed or of another kind.
        """
        flow: CrystalFlow = shared_model(CrystalFlow.kind, self.weights)
        return flow


@lru_cache(maxsize=1)
def _code() -> str:
    return source_digest("models/crystal_flow", "flow")
