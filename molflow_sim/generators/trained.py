"""What generators with a trained network share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from molflow_sim.errors import WeightsError
from molflow_sim.training.model import packaged, shared_model


@dataclass(frozen=True)
class TrainedGenerator:
    """Weights and identity of a generator whose network is a `molflow_sim.training.model.Model`.

    Attributes
    ----------
    weights : str or None
        Folder with the weights, or the name of others of the package; its default ones if None.
    """

    kind: ClassVar[str]
    model: ClassVar[str]
    """Kind of the network."""
    weights: str | None = None

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`; raises as `load`."""
        return {"generator": self.kind.rpartition("/")[2], **asdict(self), "weights": self.load().card["sha256"]}

    def load(self) -> Any:
        """The network, loaded once in each process.

        Raises
        ------
        WeightsError
            Weights that are missing, damaged, changed or of another kind.
        """
        if self.weights is None and not packaged(self.model).is_dir():
            raise WeightsError(
                f"no weights of {self.model} come with the package; train some (molflow train {self.model}) and name "
                "their folder (--weights)"
            )
        return shared_model(self.model, self.weights)
