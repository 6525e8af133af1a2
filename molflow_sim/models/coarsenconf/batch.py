"""Batches of starts with what they are to become, one molecule after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from molflow_sim.models.coarsenconf.data import ConformerPairs
from molflow_sim.models.coarsenconf.graphs import ConformerGraph
from molflow_sim.models.coarsenconf.matching import drawn, partner, superposed
from molflow_sim.models.coarsenconf.settings import CoarsenConfSettings
from molflow_sim.models.coarsenconf.torsions import turned, with_torsions_of
from molflow_sim.training.batches import Movable

LOCAL = 0.1
"""Å: starts whose bonds, angles and rings are this much farther from a true conformer's are made into pairs less."""


@dataclass(frozen=True, eq=False)
class Layout(Movable):
    """Points of S structures, flat (M) or as a padded table (S, m).

    Attributes
    ----------
    group, place : Tensor of long, shape (M,)
        Structure of each point, and its number there.
    table : Tensor of long, shape (S, m)
        Points of each structure; M where there is none.
    """

    group: Tensor
    place: Tensor
    table: Tensor

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Layout:
        """Of structures of these sizes."""
        ends = np.cumsum(sizes)
        group = np.repeat(np.arange(len(sizes)), sizes)
        place = np.arange(ends[-1]) - np.repeat(ends - np.asarray(sizes), sizes)
        table = np.full((len(sizes), max(sizes)), ends[-1])
        table[group, place] = np.arange(ends[-1])
        return cls(*map(torch.as_tensor, (group, place, table)))

    @property
    def there(self) -> Tensor:
        """Which places of the table have a point, (S, m)."""
        return self.table < len(self.group)

    def padded(self, values: Tensor) -> Tensor:
        """(M, ...) as (S, m, ...), zeros where there is no point."""
        return torch.cat([values, values.new_zeros(1, *values.shape[1:])])[self.table]

    def flat(self, table: Tensor) -> Tensor:
        """The inverse of `padded`."""
        return table[self.group, self.place]

    def sum(self, values: Tensor) -> Tensor:
        """Sums (S, ...) over the points (M, ...) of each structure."""
        return values.new_zeros(len(self.table), *values.shape[1:]).index_add(0, self.group, values)

    def mean(self, values: Tensor) -> Tensor:
        """Means (S, ...) over the points (M, ...) of each structure."""
        size = self.there.sum(1).to(values).clamp_min(1.0)
        return self.sum(values) / size.view(-1, *[1] * (values.dim() - 1))


@dataclass(frozen=True, eq=False)
class PairBatch(Movable):
    """S starts of M atoms and N beads.

    Attributes
    ----------
    nodes : Tensor, shape (M, N_NODE_FEATURES + 1)
        Features; the last one says whether the start was minimised.
    atoms, beads : Layout
    members : Layout
        Atoms by the bead they belong to: its groups are the N beads.
    pairs : Tensor of long, shape (2, P)
        Receivers and senders, all pairs of a molecule.
    pair_features : Tensor, shape (P, N_PAIR_FEATURES)
    within : Tensor of bool, shape (P,)
        Pairs that hear of each other whatever their distance.
    bead_pairs : Tensor of long, shape (2, Q)
    rank : Tensor of long, shape (M,)
        Place of an atom's bead in the order of decoding.
    anchor : Tensor of long, shape (M,)
        Atom of an earlier bead that an atom's bead hangs on, or the atom itself.
    torsions : Tensor of long, shape (4, T)
        Atoms of a torsion about each bond between beads.
    turning : Layout
        Those torsions by the molecule they belong to.
    sides : Tensor of bool, shape (T, m)
        Which atoms of its molecule turn with each.
    quadruples : Tensor of long, shape (5, Q)
        Number of a torsion, and the atoms of all torsions about its bond.
    start : Tensor, shape (M, 3)
        Å, each about its mean.
    ends : Tensor, shape (M, K, 3)
        Å, true conformers on the start: that of the pair first, then those of the other pairs of its group.
    group : Tensor of long, shape (S,)
        Pairs of one molecule that are assigned together.
    noise : Tensor, shape (N, 3, F)
        Standard normal numbers that draw the latents.
    kl_weight, distance_weight : Tensor, shape ()
        Of the loss at this step.
    """

    nodes: Tensor
    atoms: Layout
    beads: Layout
    members: Layout
    pairs: Tensor
    pair_features: Tensor
    within: Tensor
    bead_pairs: Tensor
    rank: Tensor
    anchor: Tensor
    torsions: Tensor
    turning: Layout
    sides: Tensor
    quadruples: Tensor
    start: Tensor
    ends: Tensor
    group: Tensor
    noise: Tensor
    kl_weight: Tensor
    distance_weight: Tensor

    @cached_property
    def near(self) -> Tensor:
        """Which pairs (P,) are one or two bonds apart."""
        return self.pair_features[:, :2].sum(1) > 0


@dataclass(frozen=True, eq=False)
class Item:
    """One start for a batch: (n, 3) about its mean, whether minimised, ends (K, n, 3), and its group."""

    graph: ConformerGraph
    start: np.ndarray
    minimised: bool
    ends: np.ndarray
    group: int = 0


def collate(
    items: Sequence[Item],
    settings: CoarsenConfSettings,
    noise: np.ndarray,
    step: int = 0,
    dtype: torch.dtype = torch.float32,
) -> PairBatch:
    """A batch of starts, of any molecules; `noise` (N, 3, F) is of all their beads, the loss's weights of a step."""
    graphs = [item.graph for item in items]
    sizes, counts = [g.n for g in graphs], [g.n_beads for g in graphs]
    turns = [len(g.torsions) for g in graphs]
    firsts, bead_firsts, turn_firsts = (np.concatenate([[0], np.cumsum(c)[:-1]]) for c in (sizes, counts, turns))
    bead = np.concatenate([g.owner + f for g, f in zip(graphs, bead_firsts)])
    apart = [g.apart[tuple(g.pairs)] for g in graphs]
    nodes = [np.c_[g.nodes, np.full(g.n, float(i.minimised))] for g, i in zip(graphs, items)]
    bead_pairs = [np.stack(np.nonzero(~np.eye(c, dtype=bool))) + f for c, f in zip(counts, bead_firsts)]

    def floats(values: Sequence[np.ndarray], axis: int = 0) -> Tensor:
        return torch.as_tensor(np.concatenate(values, axis), dtype=dtype)

    def whole(values: Sequence[np.ndarray], axis: int = 0) -> Tensor:
        return torch.as_tensor(np.concatenate(values, axis))

    return PairBatch(
        floats(nodes), Layout.of(sizes), Layout.of(counts), by_bead(bead),
        whole([g.pairs + f for g, f in zip(graphs, firsts)], 1), floats([g.pair_features for g in graphs]),
        whole(apart) <= settings.hops, whole(bead_pairs, 1), whole([g.rank for g in graphs]),
        whole([g.anchor + f for g, f in zip(graphs, firsts)]),
        whole([g.torsions.T + f for g, f in zip(graphs, firsts)], 1), Layout.of(turns),
        whole([np.pad(g.sides, ((0, 0), (0, max(sizes) - g.n))) for g in graphs]),
        whole([(g.quadruples + np.array([t, f, f, f, f])).T for g, t, f in zip(graphs, turn_firsts, firsts)], 1),
        floats([i.start for i in items]),
        floats([np.swapaxes(i.ends, 0, 1) for i in items]), torch.tensor([i.group for i in items]), floats([noise]),
        *(torch.tensor(weight.at(step), dtype=dtype) for weight in (settings.kl, settings.distance)),
    )  # fmt: skip


def by_bead(bead: np.ndarray) -> Layout:
    """The layout of atoms (M,) by the bead that each belongs to."""
    order = np.argsort(bead, kind="stable")
    plain = Layout.of(np.bincount(bead).tolist())
    place, table = np.empty_like(bead), np.append(order, len(bead))[plain.table.numpy()]
    place[order] = plain.place.numpy()
    return Layout(torch.as_tensor(bead), torch.as_tensor(place), torch.as_tensor(table))


class PairBatches:
    """Batches drawn from molecules, all of them alike often; a batch depends on seed and step alone.

    Parameters
    ----------
    records : sequence of ConformerPairs
    settings : CoarsenConfSettings
    size : int
        Starts in a batch.
    seed : int
    fixed : int, optional
        Take the weights of the loss at this step (for validation).
    """

    def __init__(
        self,
        records: Sequence[ConformerPairs],
        settings: CoarsenConfSettings,
        size: int,
        seed: int,
        fixed: int | None = None,
    ) -> None:
        self.records, self.settings, self.size, self.seed, self.fixed = list(records), settings, size, seed, fixed

    def batch(self, step: int) -> PairBatch:
        """See `Batches`."""
        s, rng = self.settings, np.random.default_rng([self.seed, step])
        items: list[Item] = []
        for group in range(max(1, self.size // s.group)):
            record = self.records[int(rng.integers(len(self.records)))]
            items += self._items(record, rng, group)
        noise = rng.normal(size=(sum(item.graph.n_beads for item in items), 3, s.channels))
        return collate(items, s, noise, step if self.fixed is None else self.fixed)

    def _items(self, record: ConformerPairs, rng: np.random.Generator, group: int) -> list[Item]:
        s = self.settings
        if s.group == 1 and rng.random() < s.torsion_share:
            return [made_pair(record, s.torsion_noise, rng)]
        if s.group == 1:
            chosen = [partner(record.match.rmsd, s, rng)]
        else:
            # as many starts as true conformers: the optimal plan of eq. 11 is then a permutation
            draws = [rng.permutation(np.resize(rng.permutation(n), s.group)) for n in record.match.rmsd.shape]
            chosen = [(int(k), int(start)) for k, start in zip(*draws)]
        ks = [k for k, _ in chosen]
        return [
            Item(
                record.graph, record.starts[start], bool(record.minimised[start]),
                np.stack([end_of(record, k, start, record.starts[start]) for k in ks[place:] + ks[:place]]), group,
            )
            for place, (_, start) in enumerate(chosen)
        ]  # fmt: skip


def made_pair(record: ConformerPairs, noise: float, rng: np.random.Generator) -> Item:
    """A true conformer, and a start with its torsions and noise of up to `noise` degrees on them."""
    k = int(rng.integers(len(record.true)))
    kinds = np.unique(record.minimised)
    of_a_kind = np.flatnonzero(record.minimised == kinds[rng.integers(len(kinds))])
    start = int(of_a_kind[drawn(record.match.local[k][of_a_kind], LOCAL, rng)])
    end = end_of(record, k, start, record.starts[start])
    x = with_torsions_of(record.graph, record.starts[start], end)
    spread = np.radians(rng.uniform(0.0, noise))
    x = turned(record.graph, x, rng.normal(size=len(record.graph.torsions)) * spread)
    x -= x.mean(0)
    return Item(record.graph, x, bool(record.minimised[start]), end_of(record, k, start, x)[None])


def end_of(record: ConformerPairs, k: int, start: int, x: np.ndarray) -> np.ndarray:
    """True conformer k (n, 3) with the names and hand that suit a start, laid on a conformer x (n, 3) of that start."""
    m = record.match
    return superposed(int(m.hand[k, start]) * record.true[k][record.graph.symmetries[m.renaming[k, start]]], x)
