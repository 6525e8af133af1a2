"""The study of the search for conformers finds again what the search has found."""

import json

import pytest

from molflow_sim.dataset import ConformerSettings, build_conformer_dataset
from studies.conformer_search import main


def test_conformers_of_the_search_itself_are_found_again(tmp_path):
    pytest.importorskip("tblite", reason="tblite is not installed")
    settings = ConformerSettings(embeddings=24, kicks=12, evaluations=60)
    build_conformer_dataset(["CCCO"], tmp_path / "set", settings=settings, progress=False)
    main([str(tmp_path / "set"), "-o", str(tmp_path / "out.json"), "--molecules", "1", "--searches", "24,12,60"])
    total = json.loads((tmp_path / "out.json").read_text())["total"]["24,12,60"]
    found, known = total["found"]["12"]
    assert found == known >= 2  # different in their heavy atoms
    assert total["missed_the_lowest_by_0.5"] == 0
