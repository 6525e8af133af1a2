"""What a user gets from `screen`: the folder, carrying on, and refusals."""

import json
from dataclasses import replace

import ase.db
import numpy as np
import pandas as pd
import pytest
import toy_stages as toy
from ase.calculators.calculator import Calculator, all_changes
from refusals import refuses

from molflow_sim import Landscape, MolecularCrystal, Molecule, screen
from molflow_sim.bespoke import Bespoke
from molflow_sim.bespoke.distillation import Agreement, Report
from molflow_sim.cli.main import run as molflow
from molflow_sim.energies import energy_model
from molflow_sim.energies.models import Best, Value
from molflow_sim.errors import CrystalError, InputError, NoCandidatesError, SpaceGroupError, StoreError
from molflow_sim.runs import scheduler
from molflow_sim.runs.store import Store
from molflow_sim.screening import ScreenSettings, Stages

# The toy stages rank by density, which random packings differ in and those of the flow do not.
SMALL = ScreenSettings(
    candidates=60, batch_size=20, compare_top=30, relax_top=12, relax_batch=5, minimum_density=0.001, generator="random"
)


@pytest.fixture(scope="module")
def urea():
    return Molecule.from_smiles("NC(N)=O", name="urea")


@pytest.fixture(scope="module")
def finished(urea, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "urea"
    return screen(urea, output=folder, settings=SMALL, stages=toy.TOY, progress=False)


def run(urea, folder, **changes):
    settings = replace(SMALL, **{k: v for k, v in changes.items() if k in ScreenSettings.__dataclass_fields__})
    rest = {k: v for k, v in changes.items() if k not in ScreenSettings.__dataclass_fields__}
    return screen(urea, output=folder, settings=settings, **{"stages": toy.TOY, "progress": False, **rest})


def test_the_folder_holds_what_the_manual_promises(finished):
    for name in ("report.html", "landscape.svg", "ranking.csv", "dropped.csv", "landscape.db", "run.json"):
        assert (finished.folder / name).stat().st_size > 0
    assert not list(finished.folder.rglob("*.part*"))
    described = json.loads((finished.folder / "run.json").read_text())
    assert described["status"] == "done"
    assert described["settings"]["seed"] == 0 and described["versions"]["rdkit"]
    assert set(described["timings_s"]) >= {"press", "relax"}


def test_structures_table_and_database_tell_the_same_story(finished):
    table = pd.read_csv(finished.folder / "ranking.csv")
    assert list(table["rank"]) == list(range(1, len(finished) + 1))
    energies = table["relative_energy_kj_per_mol"]
    assert energies.iloc[0] == 0 and energies.is_monotonic_increasing
    with ase.db.connect(finished.folder / "landscape.db") as database:
        rows = list(database.select(sort="rank"))
    assert np.allclose([r.density for r in rows], table["density_g_per_cm3"])
    first = MolecularCrystal.from_cif(finished.folder / "structures" / "rank_001.cif")
    assert first.density == pytest.approx(finished[0].density, abs=1e-4)
    assert len(list((finished.folder / "structures").glob("rank_*.cif"))) == len(finished)
    assert len(rows) == len(finished)


def test_entries_become_ase_and_pymatgen_objects(finished):
    atoms, structure = finished[0].to_ase(), finished[0].to_pymatgen()
    assert len(atoms) == len(structure) == 8 * finished[0].z and atoms.info["rank"] == 1


def test_a_finished_landscape_loads_again_exactly(finished):
    again = Landscape.load(finished.folder)
    pd.testing.assert_frame_equal(again.to_dataframe(), finished.to_dataframe())
    assert np.allclose(again[2].to_ase().positions, finished[2].to_ase().positions, atol=1e-9)
    assert again.tally == finished.tally and again.molecule.smiles == finished.molecule.smiles


def test_every_candidate_is_accounted_for(finished):
    t = finished.tally
    assert t["press"]["candidates"] == 60 == t["press"]["ok"] + t["press"]["not converged"]
    assert t["relax"]["relaxed"] == 12 == len(finished) + len(finished.dropped)
    assert all(d.reason.startswith("same structure as") for d in finished.dropped)
    assert sum(e.copies for e in finished) == 12


def test_the_same_command_again_computes_nothing(urea, finished):
    def refuse(*_):
        raise AssertionError("computed again")

    idle = replace(toy.TOY, generate=refuse, press=refuse, evaluate=refuse, relax=refuse, deduplicate_crystals=refuse)
    idle = replace(idle, refine=refuse, energies=refuse)
    again = run(urea, finished.folder, stages=idle)
    pd.testing.assert_frame_equal(again.to_dataframe(), finished.to_dataframe())


def test_the_same_seed_gives_the_same_ranking_and_another_seed_another(urea, finished, tmp_path):
    same, other = run(urea, tmp_path / "a"), run(urea, tmp_path / "b", seed=7)
    pd.testing.assert_frame_equal(same.to_dataframe(), finished.to_dataframe())
    assert set(other.to_dataframe()["id"]).isdisjoint(same.to_dataframe()["id"])


def test_arguments_that_are_given_count_even_where_they_equal_the_defaults(urea, tmp_path):
    settings = replace(SMALL, seed=7, charges="gfn2", space_groups="P-1", z_prime=2, generator="flow")
    given = {"seed": 0, "charges": "mmff94", "space_groups": "common", "z_prime": 1, "generator": "random"}
    found = screen(urea, 60, **given, settings=settings, output=tmp_path, stages=toy.TOY, progress=False)
    assert {name: found.run["settings"][name] for name in given} == given


def test_more_candidates_add_to_what_is_there(urea, tmp_path):
    run(urea, tmp_path / "run", candidates=40)
    made = []

    def generate(*arguments):
        made.append(arguments[2])
        return toy.TOY.generate(*arguments)

    grown = run(urea, tmp_path / "run", candidates=60, stages=replace(toy.TOY, generate=generate))
    assert made == [20]
    assert grown.tally["press"]["candidates"] == 60


def test_a_bespoke_potential_is_made_once_presses_and_is_reported(urea, tmp_path):
    asked, pressed_on = [], set()

    def distil(molecule, parameters, seed, say):
        asked.append(seed)
        side = Agreement(rho=0.9, rms=2.0, bias=0.0, rho_low=0.8, rms_low=1.5)
        told = Report("best", 90, 30, side, replace(side, rho=0.97), kept=True, seconds=1.0)
        own = replace(parameters, exp6_a=2.0 * parameters.exp6_a, charge_model="bespoke")
        return Bespoke(own, told).to_bytes()

    def press(packings, parameters):
        pressed_on.add(parameters.charge_model)
        return toy.press(packings, parameters)

    for _ in range(2):
        stages = replace(toy.TOY, distil=distil, press=press)
        found = run(urea, tmp_path / "run", potential="bespoke", stages=stages)
    assert asked == [0] and pressed_on == {"bespoke"}
    assert found.run["potential"]["used"] == "bespoke" and "0.970" in str(found.run["potential"])
    assert "30 packings held out" in (found.folder / "report.html").read_text()
    refuses(StoreError, "potential", run, urea, tmp_path / "run")


@pytest.mark.parametrize("change", [{"seed": 1}, {"space_groups": "P21/c"}, {"z_prime": 2}])
def test_another_runs_folder_is_refused_and_left_alone(urea, finished, change):
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*") if p.is_file() and p.name != "lock"}
    refuses(StoreError, next(iter(change)), run, urea, finished.folder, **change)
    assert before == {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*") if p.is_file() and p.name != "lock"}


def test_another_molecules_folder_is_replaced_only_when_said(urea, tmp_path):
    run(urea, tmp_path / "run")
    water = Molecule.from_smiles("O")
    refuses(StoreError, "molecule", run, water, tmp_path / "run")
    assert run(water, tmp_path / "run", overwrite=True).molecule.formula == "H2O"


def test_a_damaged_batch_is_computed_again(urea, finished, tmp_path):
    run(urea, tmp_path / "run")
    batches = sorted((tmp_path / "run" / "store").glob("*/*.*"))
    for path in batches:
        path.write_bytes(path.read_bytes()[:-7])
    again = run(urea, tmp_path / "run")
    pd.testing.assert_frame_equal(again.to_dataframe(), finished.to_dataframe())


def test_a_crash_after_any_write_changes_nothing(urea, finished, tmp_path, monkeypatch):
    """Stops the run after its 1st, 2nd, 3rd... stored batch in turn, resuming each time."""
    warm = {"temperature": 300.0, "temperature_top": 3}
    whole = run(urea, tmp_path / "whole", **warm)
    assert [e.id for e in sorted(whole, key=lambda e: e.static_rank)] == [e.id for e in finished]
    assert [np.isfinite(e.free_energy_relative) for e in whole] == [True] * 3 + [False] * (len(whole) - 3)
    write = Store.write
    stops = 0

    class Crash(Exception):
        pass

    def write_then_crash(self, *arguments):
        write(self, *arguments)
        raise Crash

    monkeypatch.setattr(Store, "write", write_then_crash)
    while True:
        try:
            result = run(urea, tmp_path / "run", **warm)
            break
        except Crash:
            stops += 1
    # charges, press, distinct, evaluate, energies of packings, relax, unique, energies (one a structure), refine,
    # unique, vibrations: each once
    assert stops == 1 + 3 + 1 + 1 + 2 + 3 + 1 + 6 + 1 + 1 + 3
    pd.testing.assert_frame_equal(result.to_dataframe(), whole.to_dataframe())


def test_when_nothing_survives_the_press_or_the_relaxation_the_reasons_are_counted(urea, tmp_path):
    stages = replace(toy.TOY, press=toy.everything_fails)
    counted = r"none of 60 packings survived.*39 implausible density, 21 not finite.*kept in"
    refuses(NoCandidatesError, counted, run, urea, tmp_path / "run", stages=stages)
    assert (tmp_path / "run" / "store" / "press").is_dir(), "what was computed stays"
    with pytest.raises(NoCandidatesError, match=r"none of 12 structures is a valid.*12 bonds broke"):
        run(urea, tmp_path / "other", stages=replace(toy.TOY, validity=toy.never_valid))


def test_one_structure_that_cannot_be_relaxed_does_not_spoil_its_batch(urea, tmp_path):
    def relax(crystals, parameters):
        if len(crystals) > 1 or crystals[0].density > 1.0 * densest:
            raise RuntimeError("the optimiser diverged")
        return toy.relax(crystals, parameters)

    densest = 1e9
    stages = replace(toy.TOY, relax=relax, deduplicate_crystals=toy.keep_all)
    densest = max(c.density for c in run(urea, tmp_path / "all", stages=stages)) - 1e-9
    result = run(urea, tmp_path / "some", stages=stages)
    failed = [d for d in result.dropped if "optimiser diverged" in d.reason]
    assert len(failed) == 1 and len(result) == 11


def test_a_relaxation_with_residual_stress_is_ranked_but_not_called_converged(urea, tmp_path):
    def relax(crystals, parameters, spec=""):
        return [replace(r, residual_stress_gpa=0.6) for r in toy.relax(crystals, parameters)]

    result = run(urea, tmp_path / "run", stages=replace(toy.TOY, relax=relax, refine=relax))
    assert len(result) and not any(e.converged for e in result)


def test_the_reference_is_found_and_placed(urea, finished, tmp_path):
    cif = tmp_path / "experiment.cif"
    cif.write_text(finished[2].to_cif())
    result = run(urea, tmp_path / "run", reference=cif, stages=replace(toy.TOY, similarity=_same_density))
    assert result.reference.rank == 3 and result.reference.rmsd15 < 1e-3
    assert result.reference.relative_energy == result[2].relative_energy
    assert Landscape.load(tmp_path / "run").reference == result.reference


def _same_density(a, b):
    return toy.Match(abs(a.density - b.density), 15 if abs(a.density - b.density) < 1e-4 else 3)


def test_a_form_whose_cell_the_model_changes_is_found_as_that_model_relaxes_it(urea, finished, tmp_path):
    form = finished[2].crystal
    measured = replace(form, cell=1.01 * form.cell)
    (tmp_path / "experiment.cif").write_text(measured.to_cif())

    def similar(a, b):
        return toy.Match(0.0 if abs(a.density - b.density) < 1e-5 else 0.9, 15)

    def refine(crystals, parameters, spec):
        there = [form if abs(c.density - measured.density) < 1e-5 else c for c in crystals]
        return toy.relax(there, parameters)

    stages = replace(toy.TOY, similarity=similar)
    result = run(urea, tmp_path / "a", reference=tmp_path / "experiment.cif", stages=stages)
    assert result.reference.rank is None
    result = run(urea, tmp_path / "b", reference=tmp_path / "experiment.cif", stages=replace(stages, refine=refine))
    assert result[result.reference.rank - 1].id == finished[2].id and result.reference.rmsd15 == 0.9


def test_a_reference_that_cannot_be_relaxed_has_a_note_and_the_screening_ends(urea, finished, tmp_path):
    cif = tmp_path / "experiment.cif"
    cif.write_text(finished[2].to_cif())
    stages = replace(toy.TOY, similarity=_same_density)
    torn = [toy.Relaxed(None, float("nan"), reason="torn apart")]
    result = run(urea, tmp_path / "a", reference=cif, stages=replace(stages, refine=lambda c, _, spec: torn * len(c)))
    match = result.reference
    assert result[match.rank - 1].density == pytest.approx(finished[2].density, rel=1e-4)
    assert match.note == "not relaxed on best: CrystalError: torn apart"

    def relax(crystals, parameters):
        if len(crystals) == 1 and crystals[0].density == pytest.approx(finished[2].density, rel=1e-4):
            raise RuntimeError("out of memory")
        return toy.relax(crystals, parameters)

    result = run(urea, tmp_path / "b", reference=cif, stages=replace(stages, relax=relax))
    assert "not relaxed: RuntimeError: out of memory" in result.reference.note


def test_a_reference_of_another_molecule_is_refused_before_any_work(urea, finished, tmp_path):
    cif = tmp_path / "experiment.cif"
    cif.write_text(finished[0].to_cif())
    with pytest.raises(CrystalError, match=r"CH4N2O.*not of the screened molecule"):
        run(Molecule.from_smiles("NC(N)=S"), tmp_path / "run", reference=cif)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"candidates": 0}, InputError), ({"candidates": 2.5}, InputError), ({"seed": -1}, InputError),
        ({"charges": "am1"}, InputError), ({"potential": "dft"}, InputError),
        ({"space_groups": "P99"}, SpaceGroupError),
        ({"space_groups": ()}, InputError), ({"energy": "dft"}, InputError),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused_before_any_work(urea, tmp_path, change, error):
    with pytest.raises(error):
        screen(urea, output=tmp_path / "run", stages=toy.TOY, progress=False, **change)
    assert not (tmp_path / "run").exists()


class SaysNoToTheDensest(Calculator):
    """Fails for one structure and prefers loose packings otherwise."""

    implemented_properties = ("energy",)
    limit = np.inf

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        density = len(atoms) / atoms.get_volume()
        if density > self.limit:
            raise RuntimeError("no convergence")
        self.results = {"energy": density * len(atoms)}


def test_a_second_model_reranks_the_best_and_failures_stay_with_their_reason(urea, tmp_path, monkeypatch):
    stages = replace(toy.TOY, energies=Stages().energies)
    plain = run(urea, tmp_path / "plain", energy="potential")
    atoms = plain[0].to_ase()
    monkeypatch.setattr(SaysNoToTheDensest, "limit", len(atoms) / atoms.get_volume() * (1 - 1e-9))
    with pytest.warns(UserWarning, match="gave no energy for 1 of 4 structures.*no convergence"):
        result = run(urea, tmp_path / "run", energy=f"ase:{__name__}:SaysNoToTheDensest", energy_top=4, stages=stages)
    before = [e.id for e in plain]
    assert [e.id for e in result] == [before[3], before[2], before[1], before[0], *before[4:]]
    assert "no convergence" in result[3].note and result[3].energy_model == "potential"
    assert [e.energy_model for e in result.entries[:3]] == ["SaysNoToTheDensest"] * 3
    assert (tmp_path / "run" / "report.html").exists()
    monkeypatch.setattr(SaysNoToTheDensest, "limit", np.inf)
    repaired = run(urea, tmp_path / "run", energy=f"ase:{__name__}:SaysNoToTheDensest", energy_top=4, stages=stages)
    assert [e.id for e in repaired.entries[:4]] == before[3::-1], "what failed is tried again"


def test_where_the_members_of_best_contradict_each_other_the_one_without_so3lr_ranks(urea, tmp_path):
    def energies(spec, crystals, parameters):
        found = toy.energies(spec, crystals, parameters)
        return [Value(float("nan"), reason="466 kJ/mol apart") for _ in found] if spec == Best().spec else found

    def refine(crystals, parameters, spec):
        assert spec == left
        return toy.relax(crystals, parameters)

    left = Best(so3lr=False).spec
    result = run(urea, tmp_path / "run", stages=replace(toy.TOY, energies=energies, refine=refine))
    assert result.run["energy"]["ranked by"] == left and "466 kJ/mol" in result.run["energy"]["note"]
    assert result[0].relaxed_on == result[0].energy_model == energy_model(left).name


def test_the_command_line_runs_the_real_thing(tmp_path, capsys):
    options = ["-n", "24", "--relax-top", "3", "--space-groups", "P-1,P21/c", "--top", "2"]
    assert molflow(["screen", "NC=O", "-o", str(tmp_path / "run"), *options]) == 0
    out = capsys.readouterr().out
    assert "ΔE kJ/mol" in out and "report.html" in out
    result = Landscape.load(tmp_path / "run")
    assert 1 <= len(result) <= 3 and all(e.converged for e in result)
    assert all(1.0 < e.density < 2.0 for e in result), "formamide is near 1.3 g/cm³"
    assert sorted(p.name for p in (tmp_path / "run" / "structures").iterdir()) == [
        f"rank_{k:03d}.{suffix}" for k in range(1, min(2, len(result)) + 1) for suffix in ("cif", "xy")
    ]


def test_a_dask_cluster_gives_the_same_ranking(urea, finished, tmp_path):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", dashboard_address=":0"
    ) as cluster:
        result = run(urea, tmp_path / "run", scheduler=cluster.scheduler_address)
    pd.testing.assert_frame_equal(result.to_dataframe(), finished.to_dataframe())


def test_a_scheduler_that_does_not_answer_is_named(urea, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    monkeypatch.setattr(scheduler.DaskExecutor.__init__, "__kwdefaults__", {"timeout": 1.0})
    refuses(InputError, r"tcp://127\.0\.0\.1:9", run, urea, tmp_path / "run", scheduler="tcp://127.0.0.1:9")
