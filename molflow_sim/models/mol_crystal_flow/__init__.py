"""The published P 1 flow of rigid molecules in a cell: data, network, training and sampling.

Source: MolCrystalFlow (arXiv:2602.16020). Training needs no chemistry library; RDKit is used only for the features
of molecules not seen before.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "model": ["MolCrystalFlow"],
        "batch": ["P1Batch"],
        "data": ["P1Crystal", "P1Data"],
        "settings": ["P1Settings"],
        "train": ["MolCrystalFlowConfig", "P1Batches", "train_mol_crystal_flow"],
    },
)
