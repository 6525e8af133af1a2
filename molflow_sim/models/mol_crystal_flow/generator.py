"""MolCrystalFlow as a generator: crystals in P 1 with a given number of molecules in the cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from molflow_sim.errors import InputError, RequestError
from molflow_sim.generators.protocol import CrystalRequest, served
from molflow_sim.generators.trained import TrainedGenerator
from molflow_sim.models.mol_crystal_flow.model import MolCrystalFlow

if TYPE_CHECKING:
    from molflow_sim.packing import RigidPackings


@dataclass(frozen=True)
class MolCrystalFlowGenerator(TrainedGenerator):
    """A trained `MolCrystalFlow` (a `molflow_sim.generators.protocol.Generator`).

    Every molecule of the cell is free: packings have space group P 1 and `z` molecules in the asymmetric unit, whatever
    symmetry they come near to.

    Attributes
    ----------
    weights : str or None
        See `TrainedGenerator`.
    z : int
        Molecules in the (primitive) cell; a request for more than one molecule in the asymmetric unit gives it instead.
    hands : {"any", "same", "both"}
        Whether copies may be mirror images of one another, see `molecules.fill`.
    steps : int
        Euler steps.

    Raises
    ------
    InputError
        A number out of range, or unknown hands.

    Warns
    -----
    UserWarning
        In `sample`, if the molecule or `z` is larger than those trained on; the message gives the range.
    """

    kind: ClassVar[str] = "crystals/mol-crystal-flow"
    model: ClassVar[str] = MolCrystalFlow.kind
    z: int = 4
    hands: str = "any"
    steps: int = 50

    def __post_init__(self) -> None:
        if self.z < 1 or self.steps < 1:
            raise InputError(f"z and steps must be at least 1, got {self.z} and {self.steps}")
        if self.hands not in ("any", "same", "both"):
            raise InputError(f"hands must be 'any', 'same' or 'both', not {self.hands!r}")

    def sample(self, request: CrystalRequest, n: int, *, seed: int, first_index: int = 0) -> RigidPackings:
        """See `Generator.sample`.

        Raises
        ------
        RequestError
            Space groups other than P 1.
        """
        asked = served(request, CrystalRequest, self.kind, n)
        if asked.space_groups not in ("common", ("P 1",)):
            raise RequestError(
                f"the generator {self.kind} makes crystals in P 1 only, not in {', '.join(asked.space_groups)}; "
                "leave the space groups open, or choose the method flow"
            )
        z = self.z if asked.z_prime == 1 else asked.z_prime
        flow: MolCrystalFlow = self.load()
        samples = flow.sample(asked.molecule, z, n, seed, first_index=first_index, hands=self.hands, steps=self.steps)
        return samples.packings()
