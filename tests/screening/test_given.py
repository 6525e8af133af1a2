"""Structures of anybody ranked: tables, reasons, merging, carrying on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from refusals import refuses

from molflow_sim import Landscape, MolecularCrystal, Molecule, SpaceGroup, rank
from molflow_sim.cli.main import run as molflow
from molflow_sim.errors import InputError, NoCandidatesError, StoreError
from molflow_sim.evaluate.powder import simulate, write_xy
from molflow_sim.forcefield import CrystalPotential
from molflow_sim.io.powder_read import read_pattern
from molflow_sim.relax import flexible
from molflow_sim.screening import stages
from molflow_sim.systems.crystal import RigidMolecule

DATA = Path(__file__).resolve().parents[1] / "data"
LANDSCAPES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "landscapes"
PARACETAMOL = DATA / "paracetamol.cif"


class Density(Calculator):
    """Energy that grows with the volume; it has no answer for the large cells."""

    implemented_properties = ("energy",)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if atoms.get_volume() > 800.0:
            raise ArithmeticError("too large for me")
        self.results = {"energy": -atoms.get_volume()}


def expanded(crystal: MolecularCrystal, factor: float) -> MolecularCrystal:
    """The molecules as they are, further apart."""
    return replace(crystal, cell=factor * crystal.cell)


@pytest.fixture(scope="module")
def paracetamol():
    return MolecularCrystal.from_cif(PARACETAMOL, normalise_hydrogens=True)


@pytest.fixture(scope="module")
def pool(paracetamol, tmp_path_factory):
    """Files of paracetamol further and further apart, the measured cell twice, and a damaged file."""
    folder = tmp_path_factory.mktemp("pool")
    for name, factor in (("c", 1.0), ("a", 1.01), ("b", 1.03)):
        expanded(paracetamol, factor).write(folder / f"{name}.cif")
    atoms = paracetamol.to_ase()
    atoms[np.random.default_rng(0).permutation(len(atoms))].write(folder / "again.extxyz")
    (folder / "damaged.cif").write_text((folder / "a.cif").read_text()[:1500])
    return folder


@pytest.fixture(scope="module")
def ranked(pool, tmp_path_factory):
    return rank(sorted(pool.iterdir()), "potential", output=tmp_path_factory.mktemp("out") / "ranked", progress=False)


def test_structures_are_ranked_as_they_are_by_the_potential(ranked, paracetamol):
    (landscape,) = ranked
    crystals = [expanded(paracetamol, factor) for factor in (1.0, 1.01, 1.03)]
    parameters = stages.parametrize(paracetamol.molecules[0], "mmff94")
    expected = stages.evaluate(crystals, parameters)
    assert [e.energy for e in landscape] == pytest.approx(sorted(expected), abs=1e-5)
    assert [e.crystal.density for e in landscape] == pytest.approx(
        [crystals[k].density for k in np.argsort(expected)], rel=1e-5
    )
    assert all(e.n_steps == 0 and not e.converged and e.note == "as given" for e in landscape)
    assert all(e.max_force > 0.05 for e in landscape)


def test_a_duplicate_is_merged_and_both_files_are_named(ranked):
    (entry,) = [e for e in ranked[0] if e.copies == 2]
    (merged,) = [d for d in ranked.dropped if d.stage == "compare"]
    names = {Path(entry.source).name, Path(merged.source).name}
    assert names == {"c.cif", "again.extxyz"}
    assert merged.reason == f"same structure as {entry.source}"


def test_the_mirror_image_of_a_crystal_of_one_hand_is_no_other_structure(tmp_path):
    molecule = Molecule.from_smiles("C[C@H](O)C(=O)O", n_conformers=1)
    group = SpaceGroup.from_name("P 21 21 21")
    unit = RigidMolecule(0, molecule.conformers[0], np.full(3, 0.05), np.eye(3), (0, 1, 2, 3))
    crystal = MolecularCrystal((molecule,), (unit,), group, np.diag([9.5, 9.5, 10.0]))
    mirrored = crystal.to_ase()
    mirrored.positions *= -1.0
    (landscape,) = rank([crystal, mirrored], output=tmp_path / "r", progress=False)
    assert len(landscape) == 1 and landscape[0].copies == 2 and landscape.dropped[0].stage == "compare"


def test_the_folder_holds_the_table_of_a_screening_with_the_sources(ranked):
    table = pd.read_csv(ranked.folder / "ranking.csv")
    assert sorted(Path(s).name for s in table["source"]) == ["a.cif", "again.extxyz", "b.cif"]
    dropped = pd.read_csv(ranked.folder / "dropped.csv").set_index("stage")
    assert Path(dropped.loc["read", "source"]).name == "damaged.cif" and dropped.loc["read", "reason"]
    report = (ranked.folder / "report.html").read_text()
    assert "a.cif" in report and "damaged.cif" in report
    assert (ranked.folder / "structures" / "rank_001.cif").exists() and (ranked.folder / "landscape.svg").exists()
    again = Landscape.load(ranked.folder)
    assert [e.source for e in again] == [e.source for e in ranked[0]] and again.dropped == ranked.dropped


def test_the_same_call_computes_nothing_again_and_more_files_may_be_added(ranked, pool, paracetamol, tmp_path):
    files = [pool / "a.cif", pool / "b.cif"]
    first = rank(files, output=tmp_path / "r", progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flexible, "relax_flexible", lambda *a, **k: pytest.fail("evaluated again"))
        again = rank(files, output=tmp_path / "r", progress=False)
    pd.testing.assert_frame_equal(again[0].to_dataframe(), first[0].to_dataframe())
    more = rank([pool / "again.extxyz", *files], output=tmp_path / "r", progress=False)
    assert len(more[0]) == 3
    by_source = {e.source: e.energy for e in more[0]}
    assert all(by_source[e.source] == pytest.approx(e.energy, abs=1e-9) for e in first[0])


def test_another_structure_costs_those_that_have_an_energy_nothing(pool, tmp_path):
    def energies() -> set[str]:
        lines = (tmp_path / "r" / "store" / "manifest.jsonl").read_text().splitlines()
        return {key for line in lines if (key := json.loads(line)["key"]).startswith("energy/")}

    rank([pool / "a.cif", pool / "b.cif"], output=tmp_path / "r", progress=False)
    before = energies()
    rank([pool / "c.cif", pool / "a.cif", pool / "b.cif"], output=tmp_path / "r", progress=False)
    assert len(before) == 2 and before < energies() and len(energies()) == 3


def test_other_settings_or_another_molecule_need_another_folder(ranked, pool):
    here = {"output": ranked.folder, "progress": False}
    refuses(StoreError, "relax", rank, pool / "a.cif", relax=True, **here)
    refuses(StoreError, "one molecule", rank, [pool / "a.cif", DATA / "benzene_D.cif"], **here)


def test_relaxed_structures_fall_into_one_minimum(pool, tmp_path):
    (landscape,) = rank([pool / "a.cif", pool / "c.cif"], relax=True, output=tmp_path / "r", progress=False)
    (entry,) = landscape
    assert entry.converged and entry.copies == 2 and entry.n_steps > 3
    assert landscape.tally["relax"]["relaxed"] == 2


def test_another_energy_ranks_and_what_it_cannot_do_is_dropped_with_the_reason(pool, tmp_path):
    files = [pool / f"{name}.cif" for name in "abc"]
    with pytest.warns(UserWarning, match="gave no energy for 1 of 3"):
        ranking = rank(files, f"ase:{__name__}:Density", output=tmp_path / "r", progress=False)
    (landscape,) = ranking
    assert [Path(e.source).name for e in landscape] == ["a.cif", "c.cif"]
    assert landscape[0].energy_model == "Density" and landscape[1].relative_energy > 0
    (left,) = [d for d in ranking.dropped if d.stage == "energy"]
    assert Path(left.source).name == "b.cif" and "too large for me" in left.reason


def test_each_molecule_has_a_table_of_its_own_and_one_without_parameters_stops_no_other(pool, tmp_path):
    borane = Atoms("BH3", [(0, 0, 0), (1.19, 0, 0), (-0.595, 1.03, 0), (-0.595, -1.03, 0)], cell=[4, 4, 4], pbc=True)
    borane.write(tmp_path / "borane.extxyz")
    files = [pool / "a.cif", tmp_path / "borane.extxyz", pool / "damaged.cif", DATA / "croconic_part1.cif"]
    with pytest.warns(UserWarning, match="H3B .* is not ranked"):
        ranking = rank(files, output=tmp_path / "r", progress=False)
    names = {landscape.folder.name.partition("_")[0] for landscape in ranking}
    assert names == {"C8H9NO2", "C5H2O5"}
    assert all((landscape.folder / "report.html").exists() for landscape in ranking)
    dropped = pd.read_csv(tmp_path / "r" / "dropped.csv")
    assert {Path(s).name for s in dropped["source"]} == {"damaged.cif", "borane.extxyz"}
    assert [d.source for d in ranking.dropped] == list(dropped["source"])


def test_what_cannot_be_ranked_at_all_is_named():
    refuses(InputError, "no structures", rank, [], progress=False)
    refuses(InputError, "unknown energy model 'gfn3'; use best, ", rank, PARACETAMOL, "gfn3", progress=False)
    methyl = Atoms("CH3", [(0, 0, 0), (1.08, 0, 0), (-0.54, 0.935, 0), (-0.54, -0.935, 0)], cell=[6, 6, 6], pbc=True)
    refuses(NoCandidatesError, r"none of 1 structures .* structures\[0\]: .*radical", rank, methyl, progress=False)


def test_the_command_line_ranks_and_says_what_is_missing(pool, tmp_path, capsys):
    out = tmp_path / "ranked"
    assert molflow(["rank", *map(str, sorted(pool.iterdir())), "-o", str(out), "--top", "1"]) == 0
    shown = capsys.readouterr().out
    assert "C8H9NO2: 3 structures" in shown and "2 structures are" in shown
    assert sorted(p.name for p in (out / "structures").iterdir()) == ["rank_001.cif", "rank_001.xy"]
    told = json.loads((out / "run.json").read_text())
    assert told["settings"]["energy"] == "best" and told["energy"]["ranked by"] == "mean(2*fit-hf,so3lr,aimnet2)"
    assert molflow(["rank", str(tmp_path / "none.cif"), "-o", str(tmp_path / "x")]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert molflow(["rank", "--help"]) == 0 and "Examples" in capsys.readouterr().out


@pytest.mark.skipif(not LANDSCAPES.is_dir(), reason="the landscapes with DFT energies are not here")
def test_crystals_with_dft_energies_are_read_merged_with_nothing_and_ranked(tmp_path):
    files = sorted((LANDSCAPES / "aspirin").glob("*.cif"))[:10]
    (landscape,) = rank(files, "potential", output=tmp_path / "r", progress=False)
    assert len(landscape) == 10 and not landscape.dropped
    crystals = [MolecularCrystal.from_cif(Path(e.source)) for e in landscape]
    single = [float(stages.evaluate([c], CrystalPotential.from_crystals([c]).parameters[0])[0]) for c in crystals]
    assert [e.energy for e in landscape] == pytest.approx(single, abs=1e-5)


@pytest.fixture(scope="module")
def compared(pool, paracetamol, tmp_path_factory):
    """The pool against the pattern of the crystal with its cell 2 % longer."""
    folder = tmp_path_factory.mktemp("pxrd")
    write_xy(simulate(expanded(paracetamol, 1.02)), folder / "measured.xy")
    files = [pool / f"{name}.cif" for name in "abc"]
    return rank(files, output=folder / "ranked", pxrd=folder / "measured.xy", progress=False)[0]


def test_a_measured_pattern_is_compared_with_every_structure_its_cell_fitted(compared):
    table = pd.read_csv(compared.folder / "ranking.csv")
    assert table["pxrd_similarity"].between(0.9, 1.0).all()
    by_source = {Path(source).stem: row for source, row in zip(table["source"], table["pxrd_volume_change_percent"])}
    for name, factor in (("c", 1.0), ("a", 1.01), ("b", 1.03)):
        assert by_source[name] == pytest.approx(100 * ((1.02 / factor) ** 3 - 1), abs=0.5)
    assert compared.best_match.pxrd_similarity == table["pxrd_similarity"].max()
    assert table["packing_coefficient"].between(0.6, 0.8).all()
    assert table["hydrogen_bonds"].str.match(r"O-H\.\.\.O 2\.\d\d C\(\d\); N-H\.\.\.O \d\.\d\d C\(\d\)").all()


def test_the_pattern_is_kept_drawn_and_loaded_again(compared, tmp_path):
    loaded = Landscape.load(compared.folder)
    assert loaded.measured.name == "measured.xy" and not loaded.measured.wavelength_assumed
    assert [e.pxrd_strain for e in loaded] == [e.pxrd_strain for e in compared]
    assert loaded.report(tmp_path / "again.html").read_bytes() == (compared.folder / "report.html").read_bytes()
    assert "Most alike is rank" in (compared.folder / "report.html").read_text()
    own = read_pattern(compared.folder / "structures" / "rank_001.xy")
    assert np.allclose(own.intensity, simulate(compared[0].crystal).intensity, atol=1e-3)


def test_a_file_that_is_no_pattern_is_named_before_any_work(pool, tmp_path, capsys):
    bad = tmp_path / "bad.xy"
    bad.write_text("# wavelength 0.7093\n" + "".join(f"{x} {x % 7}\n" for x in range(5, 90)))
    out = ["-o", str(tmp_path / "out"), "--pxrd", str(bad)]
    assert molflow(["rank", str(pool / "a.cif"), *out]) == 2
    assert molflow(["screen", "NC=O", *out]) == 2
    assert capsys.readouterr().err.count("give --wavelength 0.7093") == 2
    bad.write_text("")
    assert molflow(["screen", "NC=O", *out]) == 2 and "is empty" in capsys.readouterr().err
    assert molflow(["screen", "NC=O", "-o", str(tmp_path / "out"), "--wavelength", "154"]) == 2
    assert not (tmp_path / "out").exists()
