"""The training that made the weights in molflow_sim/pretrained, from the data sets named on the command line.

    molflow dataset crystals molecules.smi -o packs --max-atoms 40 --exclude holdout.smi
    molflow dataset crystals -o crystals --cifs cif/ --exclude holdout.smi
    python benchmarks/train_crystal_flow.py packs crystals -o flow/ --config benchmarks/crystal_flow.yaml

Molecules and crystals that were used are listed in molflow_sim/pretrained/crystal_flow_data.txt. Pairs of the test side
of the split are looked at for the curves (metrics.csv), and for nothing else. One thread; a killed run goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from molflow_sim.crystal_flow import CrystalFlowConfig, PairSet, train_on_pairs
from molflow_sim.crystal_flow.train import pairs_of
from molflow_sim.dataset import CrystalDataset


def main() -> None:
    """Make the pairs where they are missing, and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders of molflow dataset crystals")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("crystal_flow.yaml"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = CrystalFlowConfig.from_yaml(args.config)
    paths = {split: args.output / f"pairs_{split}.npz" for split in ("train", "test")}
    for split, path in paths.items():
        if not path.exists():
            data = CrystalDataset(args.data, split=split)
            pairs_of(data, config).save(path, {"crystals": len(data), "molecules": len(data.keys)})
    train_on_pairs(
        PairSet.load(paths["train"]),
        config,
        args.output,
        validation=PairSet.load(paths["test"]),
        card=PairSet.card(paths["train"]),
    )


if __name__ == "__main__":
    main()
