"""Hundreds of broken CIFs and SMILES: each is read or refused by name, within bounded time and memory."""

import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import mutated_cifs, mutated_smiles, read_cif, read_smiles, run_bounded

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
from special_positions import UREA, general, special

SMILES = [
    "CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Nc1ccc(O)cc1", "c1ccc2ccccc2c1", "NC(N)=O", "C[C@H](N)C(=O)O",
    "O=C1NC(=O)c2ccccc12", "FC(F)(F)c1ccc(Cl)cc1", "CS(=O)(=O)c1ccsc1", "C/C=C/C#N", "O=[N+]([O-])c1ccncc1",
]  # fmt: skip


def bad(outcomes: list[str], items: list[str]) -> list[tuple[str, str]]:
    words = ("CRASH", "DIED", "HANG", "MISSING")
    return [(o[:200], i[:300]) for o, i in zip(outcomes, items) if o.startswith(words)]


@pytest.mark.timeout(600)
def test_every_mutated_cif_is_read_or_refused_by_name():
    texts = [
        UREA,
        special("inversion").to_cif(),
        special("twofold in C2/c").to_cif(),
        special("-3").to_cif(),
        general("NC=O", "P 1 21/c 1", (9, 8, 10, 90, 100, 90), (0.2, 0.2, 0.2)).to_cif(),
        general("CC(=O)O", "P 21 21 21", (10, 11, 12, 90, 90, 90), (0.12, 0.14, 0.11)).to_cif(),
    ]
    items = mutated_cifs(texts, 400, seed=7)
    assert len(items) >= 300
    outcomes = run_bounded(read_cif, items, seconds=20)
    assert bad(outcomes, items) == []
    names = Counter(o.split(":")[0] for o in outcomes)
    assert names["read"] < 0.6 * len(items)  # the mutations do break things
    assert {"CrystalError", "DisorderedCrystalError", "MissingHydrogensError", "OverlappingAtomsError"} <= set(names)
    assert {"UnsupportedElementError", "SpaceGroupError"} <= set(names)
    assert all(": " in o for o in outcomes if o != "read")


@pytest.mark.timeout(600)
def test_every_bad_smiles_is_read_or_refused_by_name():
    items = mutated_smiles(SMILES, 200, seed=11)
    assert len(items) >= 300
    outcomes = run_bounded(read_smiles, items, seconds=30)
    assert bad(outcomes, items) == []
    names = Counter(o.split(":")[0] for o in outcomes)
    assert names["read"] < 0.6 * len(items)
    assert {"MoleculeError", "UnsupportedElementError", "MoleculeTooLargeError"} <= set(names)


def test_the_runner_itself_sees_crashes_and_hangs():
    outcomes = run_bounded(_misbehave, ["fine", "crash", "hang", "die", "memory", "fine"], seconds=5, workers=2)
    assert outcomes[0] == outcomes[5] == "read" and outcomes[1].startswith("CRASH ZeroDivisionError")
    assert outcomes[2] == "HANG" and outcomes[3] == "DIED"
    assert outcomes[4].startswith("CRASH")


def _misbehave(item: str) -> str:
    if item == "crash":
        raise ZeroDivisionError
    if item == "hang":
        time.sleep(1000)
    if item == "die":
        os._exit(3)
    if item == "memory":
        np.ones(1 << 34)
    return "read"
