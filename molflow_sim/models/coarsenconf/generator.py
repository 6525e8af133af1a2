"""CoarsenConf as a generator: RDKit's conformers, distorted into low-energy ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from molflow_sim.errors import InputError, RequestError
from molflow_sim.generators.conformers import EtkdgConformers, MmffConformers, drawn
from molflow_sim.generators.protocol import ConformerRequest, Drawn, served
from molflow_sim.generators.torsions import TorsionConformers
from molflow_sim.generators.trained import TrainedGenerator
from molflow_sim.models.coarsenconf.completion import keeps_shape, parents_of, with_hydrogens
from molflow_sim.models.coarsenconf.graphs import ConformerGraph, conformer_graph
from molflow_sim.models.coarsenconf.model import CoarsenConf
from molflow_sim.models.coarsenconf.torsions import with_torsions_of

STARTS: dict[str, Any] = {"etkdg": EtkdgConformers(), "mmff": MmffConformers(), "torsions": TorsionConformers()}
LATENTS = ("sample", "mean")
GEOMETRIES = ("network", "start")
DRAWS = 3
"""Latents that are drawn for a start at most."""


@dataclass(frozen=True)
class CoarsenConfGenerator(TrainedGenerator):
    """A trained `CoarsenConf` (a `molflow_sim.generators.protocol.Generator`).

    What comes out with another stereochemistry (R/S, E/Z) than was asked for, bent bonds or rings, or a clash, is drawn
    again, `DRAWS` times at most, and then left as RDKit made it; a warning counts those.

    Attributes
    ----------
    weights : str or None
        See `TrainedGenerator`.
    start : str
        What is distorted: RDKit's conformers, ``etkdg``, or minimised by MMFF94, ``mmff``, or ``torsions``, which
        exchange torsions (`TorsionConformers`).
    latent : str
        ``sample``, or ``mean``: nothing is drawn, all diversity comes from the starts.
    geometry : str
        ``network``, or ``start``: only the network's torsions, on the bonds, angles and rings of the start.

    Warns
    -----
    UserWarning
        In `sample`, if the molecule has more heavy atoms or beads than those trained on.
    """

    kind: ClassVar[str] = "conformers/coarsenconf"
    model: ClassVar[str] = CoarsenConf.kind
    start: str = "etkdg"
    latent: str = "sample"
    geometry: str = "network"

    def __post_init__(self) -> None:
        for name, choices in (("start", tuple(STARTS)), ("latent", LATENTS), ("geometry", GEOMETRIES)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`; that of the starts belongs to it."""
        return {**super().identity(), "starts": STARTS[self.start].identity()}

    def sample(self, request: ConformerRequest, n: int, *, seed: int, first_index: int = 0) -> Drawn:
        """See `Generator.sample`.

        Raises
        ------
        RequestError
            A molecule of fewer than three heavy atoms.
        """
        molecule = served(request, ConformerRequest, self.kind, n).molecule
        network: CoarsenConf = self.load()
        graph = conformer_graph(molecule.rdmol)
        if graph.n < 3:
            raise RequestError(f"{molecule.smiles} has no torsion and no angle of heavy atoms; choose etkdg or mmff")
        network.warn_beyond_range(
            max_heavy_atoms=(graph.n, "heavy atoms"), max_beads=(graph.n_beads, "beads between torsions")
        )
        starts = STARTS[self.start].sample(request, n, seed=seed, first_index=first_index)
        found = [None if m is None else m.conformers[0] for m in starts.systems()]
        there = [k for k, x in enumerate(found) if x is not None]
        if there:
            before = np.array([found[k] for k in there])
            numbers = first_index + np.array(there)
            for k, x in zip(there, self._distorted(network, graph, molecule, before, numbers, seed)):
                found[k] = x
        return drawn(molecule, first_index, found, next(filter(None, starts.reasons), ""))

    def _distorted(
        self,
        network: CoarsenConf,
        graph: ConformerGraph,
        molecule: Any,
        starts: np.ndarray,
        index: np.ndarray,
        seed: int,
    ) -> np.ndarray:
        """Conformers (S, N, 3) from starts (S, N, 3) of these numbers."""
        from molflow_sim.chemistry.conformers import keeps_stereo

        heavy, parents = parents_of(molecule.numbers, molecule.bonds)
        out, left = starts.copy(), np.arange(len(starts))
        for draw in range(DRAWS if self.latent == "sample" else 1):
            before = starts[left][:, heavy]
            moved = network.distorted(
                graph, before, self.start != "etkdg", self._noise(network, graph, index[left], seed, draw)
            )
            if self.geometry == "start":
                moved = np.array([with_torsions_of(graph, x, y) for x, y in zip(before, moved)])
            whole = np.array([with_hydrogens(graph, heavy, parents, x, y) for x, y in zip(starts[left], moved)])
            good = keeps_shape(graph, before, moved)
            good[good] = keeps_stereo(molecule.rdmol, whole[good])
            out[left[good]] = np.round(whole[good], 5)
            left = left[~good]
            if not len(left):
                return out
        warnings.warn(
            f"{len(left)} of {len(starts)} conformers of {molecule.smiles} stay as RDKit made them: distorted, they "
            "had another stereochemistry, bent bonds or clashes",
            stacklevel=3,
        )
        return out

    def _noise(
        self, network: CoarsenConf, graph: ConformerGraph, index: np.ndarray, seed: int, draw: int
    ) -> np.ndarray | None:
        if self.latent == "mean":
            return None
        shape = graph.n_beads, 3, network.settings.channels
        return np.array([np.random.default_rng([seed, int(k), draw]).normal(size=shape) for k in index])
