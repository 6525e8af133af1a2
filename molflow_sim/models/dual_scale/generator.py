"""The dual-scale flow as a generator: amorphous clusters with all their atoms."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from molflow_sim.errors import ClusterError, InputError, MolflowError, RequestError
from molflow_sim.generators.protocol import ClusterRequest, Drawn, served
from molflow_sim.generators.trained import TrainedGenerator
from molflow_sim.models.dual_scale.blocks import block_rows, joined
from molflow_sim.models.dual_scale.graphs import ClusterGraph
from molflow_sim.models.dual_scale.model import DualScale
from molflow_sim.systems.cluster import MolecularCluster

DRAWS = 4
"""How often a candidate is drawn at most; a block of many a few times more, or hardly ever would all of them do."""
_JOINING = 2**31
"""Stands where draws have their number, in the seed of places of blocks."""


@dataclass(frozen=True)
class DualScaleGenerator(TrainedGenerator):
    """A trained `DualScale` (a `molflow_sim.generators.protocol.Generator`).

    Heavy atoms come from the flow, hydrogens are placed at ideal lengths and angles, and the cluster is relaxed. What
    then has another stereochemistry than was asked for, clashes or speared rings is drawn again, a few times at most.

    Attributes
    ----------
    weights : str or None
        See `TrainedGenerator`.
    relax : int
        Steps of minimisation at most, of each molecule with MMFF94 and of the whole with the potential; 0 for none.
    check : bool
        Refuse candidates with a wrong hand, clashes or speared rings.
    block : int or None
        Molecules generated at once; larger clusters are joined from blocks (`molflow_sim.models.dual_scale.blocks`), in
        a sphere of the density that is asked for. None: as many as the weights were trained on; 0: all at once.

    Warns
    -----
    UserWarning
        In `sample`, if a molecule was not trained on, or more are generated at once; the message says what was.
    """

    kind: ClassVar[str] = "clusters/dual-scale"
    model: ClassVar[str] = DualScale.kind
    uses_conformers: ClassVar[bool] = False
    relax: int = 200
    check: bool = True
    block: int | None = None

    def __post_init__(self) -> None:
        for name in ("relax", "block"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")

    def sample(self, request: ClusterRequest, n: int, *, seed: int, first_index: int = 0) -> Drawn:
        """See `Generator.sample`.

        Raises
        ------
        RequestError
            A periodic box.
        """
        asked = served(request, ClusterRequest, self.kind, n)
        if asked.periodic:
            raise RequestError(
                f"the generator {self.kind} makes clusters in open space; take them into a box with molflow simulate"
            )
        flow: DualScale = self.load()
        _warn_of_others(flow, [m.smiles for m in asked.molecules])
        counts: Any = asked.copies  # the request made one number for each molecule of it
        order = np.repeat(np.arange(len(asked.molecules)), counts)
        most = flow.card.get("range", {}).get("molecules", 0) if self.block is None else self.block
        rows = block_rows(order, most or len(order))
        graphs = {key: flow.graph([m.rdmol for m in asked.molecules], key) for key in {tuple(order[r]) for r in rows}}
        numbers = first_index + np.arange(n)
        made = [self._one(flow, graphs, asked, order, rows, seed, int(k)) for k in numbers]
        return Drawn(numbers, [cluster for cluster, _ in made], [reason for _, reason in made])

    def _one(
        self,
        flow: DualScale,
        graphs: Mapping[tuple[int, ...], ClusterGraph],
        asked: ClusterRequest,
        order: np.ndarray,
        rows: list[np.ndarray],
        seed: int,
        index: int,
    ) -> tuple[MolecularCluster | None, str]:
        """A cluster from its blocks, or why there is none."""
        draws = range(DRAWS + (len(rows) - 1).bit_length()) if self.check else range(1)
        blocks = []
        for b, own in enumerate(rows):
            draw = partial(self._block, flow, graphs[tuple(order[own])], asked.molecules, order[own], seed, index)
            block, reason = self._first(draw, [b + len(rows) * k for k in draws])
            if block is None:
                return None, reason
            blocks.append(block)
        if len(blocks) == 1:
            return blocks[0], ""

        def join(draw: int) -> MolecularCluster:
            rng = np.random.default_rng([seed, index, _JOINING + draw])
            return joined(asked.molecules, order, rows, blocks, asked.density, rng, self.relax)

        return self._first(join, draws)

    def _first(
        self, draw: Callable[[int], MolecularCluster], numbers: Sequence[int]
    ) -> tuple[MolecularCluster | None, str]:
        """The first of some draws without a fault, or the last one's fault."""
        from molflow_sim.models.dual_scale.completion import failure

        reason = ""
        for k in numbers:
            try:
                cluster = draw(k)
            except MolflowError as error:
                reason = error.reason
                continue
            reason = failure(cluster) if self.check else ""
            if not reason:
                return cluster, ""
        return None, reason

    def _block(
        self, flow: DualScale, graph: ClusterGraph, molecules: Any, order: np.ndarray, seed: int, index: int, draw: int
    ) -> MolecularCluster:
        from molflow_sim.models.dual_scale.completion import completed, relaxed, wrong_stereo

        cluster = completed(molecules, order, flow.sample(graph, seed, index, draw=draw).atoms)
        if self.check and (reason := wrong_stereo(cluster)):
            raise ClusterError(reason)  # what is another molecule already would be relaxed for nothing
        return relaxed(cluster, self.relax) if self.relax else cluster


def _warn_of_others(flow: DualScale, smiles: list[str]) -> None:
    """Molecules that the weights were not trained on are named, and those of which they know another stereoisomer."""
    from rdkit import Chem

    from molflow_sim.chemistry.checks import canonical_smiles, parse_smiles

    systems = flow.card.get("data", {}).get("systems", [])
    trained = [parse_smiles(s.rpartition(" ")[2]) for s in systems]
    known = {canonical_smiles(m) for m in trained}
    flat = {Chem.MolToSmiles(m, isomericSmiles=False) for m in trained}
    if not known:
        return
    others = [s for s in smiles if s not in known]
    isomers = [s for s in others if Chem.MolToSmiles(parse_smiles(s), isomericSmiles=False) in flat]
    if isomers:
        warnings.warn(
            f"{', '.join(isomers)} is another stereoisomer than trained on ({', '.join(systems)}); stereocentres on "
            "the wrong side are put right, and more clusters may be drawn in vain",
            stacklevel=3,
        )
    if strangers := [s for s in others if s not in isomers]:
        warnings.warn(
            f"{', '.join(strangers)} was not trained on ({', '.join(systems)} was); train on frames of it with "
            "molflow train dual-scale, or expect poor clusters",
            stacklevel=3,
        )
