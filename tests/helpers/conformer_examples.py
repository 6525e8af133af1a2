"""Small sets of conformers, and batches of starts with what they are to become."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from rdkit import Chem

from molflow_sim.chemistry.embedding import embedded
from molflow_sim.io.ensembles import ConformerEnsemble, pack_ensembles
from molflow_sim.models.coarsenconf.batch import Item, collate
from molflow_sim.models.coarsenconf.data import ConformerPairs, prepared

MOLECULES = ("CC(=O)Oc1ccccc1C(=O)O", "OCCc1ccc(F)cc1", "C[C@H](N)C(=O)NCCO")


def ensemble(smiles: str, count: int = 3, split: str = "train") -> ConformerEnsemble:
    """Embeddings of another seed in the place of true conformers."""
    rdmol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    positions = np.array(embedded(rdmol, count, seed=7))
    numbers = np.array([a.GetAtomicNum() for a in rdmol.GetAtoms()])
    return ConformerEnsemble(
        smiles, smiles, numbers, positions, np.full(count, np.nan), np.full(count, 1 / count), "dft", split
    )


@lru_cache(maxsize=8)
def pairs_of(smiles: str, split: str = "train") -> ConformerPairs:
    return prepared(ensemble(smiles, split=split))


def write_ensembles(folder):
    """A data set of three molecules, one of them for validation."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [ensemble(s, split="validation" if k == 2 else "train") for k, s in enumerate(MOLECULES)]
    (folder / "conformers_000.npz").write_bytes(pack_ensembles(made))
    return folder


def pair_batch(settings, smiles=MOLECULES[:2], turn=None, shift=0.0, order=None, seed=0):
    """One start of each molecule; turned, moved, or with the atoms of each molecule in another order."""
    rng = np.random.default_rng(seed)
    turn = np.eye(3) if turn is None else turn
    items, noise = [], []
    for s in smiles:
        record = pairs_of(s)
        graph = record.graph if order is None else reordered(record.graph, order(record.graph.n))
        rows = np.arange(graph.n) if order is None else order(graph.n)
        start = record.starts[0].astype(float)[rows] @ turn.T + shift
        end = record.true[0].astype(float)[rows] @ turn.T + shift
        items.append(Item(graph, start, False, end[None]))
        noise.append(np.einsum("xy,nyf->nxf", turn, rng.normal(size=(graph.n_beads, 3, settings.channels))))
    return collate(items, settings, np.concatenate(noise), dtype=torch.float64)


def reordered(graph, rows):
    """The graph of a molecule whose atom k is atom rows[k] of the given one; beads keep their numbers."""
    place = np.argsort(rows)
    return replace(
        graph,
        nodes=graph.nodes[rows],
        bonds=np.sort(place[graph.bonds], 1),
        owner=graph.owner[rows],
        symmetries=np.arange(graph.n)[None],
    )
