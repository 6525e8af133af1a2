"""The generation benchmark's own measures: how close a generated crystal is, who is held out, what the tables say."""

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.closeness import close, poses
from benchmarks.generation import Raw, Run, class_of, held_out
from benchmarks.generation_tables import compare, enrichment_table, press_table, raw_table
from benchmarks.search import Search, nearest_minimum, pressed_experiment
from molflow_sim import MolecularCrystal, Molecule, parametrize
from molflow_sim.dataset import CrystalDataset, build_crystal_dataset
from molflow_sim.evaluate.fingerprint import fingerprint
from molflow_sim.packing import press, random_packings
from molflow_sim.symmetry import SpaceGroup
from molflow_sim.symmetry.spacegroup import cell_matrix, cell_parameters
from molflow_sim.systems.crystal import RigidMolecule
from molflow_sim.units import KJ_PER_MOL

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "cod_organic"


def crystals(smiles: str, groups: list[str], n: int = 6) -> list[MolecularCrystal]:
    packings = random_packings(Molecule.from_smiles(smiles), n, space_groups=groups, seed=4)
    return [packings.crystal(i) for i in range(n)]


def perturbed(crystal: MolecularCrystal, angle: float, shift: float, strain: float, seed: int = 0) -> MolecularCrystal:
    """Turned by `angle` degrees about a random axis, moved by `shift` Å, all axes longer by `strain`."""
    rng = np.random.default_rng(seed)
    (unit,) = crystal.asymmetric_unit
    axis, move = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    cell = crystal.cell * (1.0 + strain)
    turned = Rotation.from_rotvec(np.radians(angle) * axis).as_matrix() @ unit.orientation
    moved = unit.centroid + shift * move @ np.linalg.inv(cell)
    return replace(crystal, cell=cell, asymmetric_unit=(replace(unit, orientation=turned, centroid=moved),))


@pytest.mark.parametrize("group", ["P-1", "P21/c", "C2/c", "P212121", "Pbca", "R-3", "Fdd2"])
def test_a_crystal_is_close_to_itself_and_to_a_small_perturbation_but_not_to_a_large_one(group):
    for k, crystal in enumerate(crystals("NC(=O)CO", [group], 3)):
        goal = poses(crystal)
        assert close(goal, goal) and close(poses(perturbed(crystal, 15.0, 0.3, 0.04, k)), goal)
        assert not close(poses(perturbed(crystal, 30.0, 0.0, 0.0, k)), goal)
        assert not close(poses(perturbed(crystal, 0.0, 0.0, 0.09, k)), goal)


def test_a_molecule_that_left_the_place_its_symmetry_gives_it_is_not_close():
    for crystal in crystals("NC(=O)CO", ["P-1"], 4):
        assert close(poses(perturbed(crystal, 0.0, 0.55, 0.0)), poses(crystal))
        assert not close(poses(perturbed(crystal, 0.0, 0.8, 0.0)), poses(crystal))


def test_another_setting_of_the_group_and_another_origin_change_nothing():
    seen = []
    for crystal in crystals("NC(=O)CO", ["P21/c"], 4):
        # P 21/n has the cell a, b, -a-c; the operations are those of P 21/c in that basis.
        change = np.array([[-1, 0, -1], [0, -1, 0], [1, 0, 0]])
        change = change if np.linalg.det(change) > 0 else -change
        rows = change @ crystal.cell
        cell = cell_matrix(cell_parameters(rows))
        frame = np.linalg.solve(rows, cell).T
        (unit,) = crystal.asymmetric_unit
        centroid = unit.centroid @ np.linalg.inv(change) + [0.5, 0.0, 0.5]
        for name in ("P 1 21/n 1", "P 1 21/c 1", "P 1 21/a 1"):
            other = MolecularCrystal(
                crystal.molecules,
                (RigidMolecule(0, unit.conformer, centroid, frame @ unit.orientation, unit.images),),
                SpaceGroup.from_name(name),
                cell,
            )
            same = bool(np.isclose(_centres(other), _centres(crystal), rtol=1e-6))
            assert close(poses(other), poses(crystal)) == same, "only the right setting describes the same crystal"
            seen.append((name, same))
    assert {name for name, same in seen if same} == {"P 1 21/n 1"}


def _centres(crystal: MolecularCrystal) -> float:
    """Sum of the shortest distances between molecular centres."""
    return float(fingerprint(crystal).centres.sum())


def test_the_mirror_image_of_a_crystal_is_close_to_it_and_another_conformer_is_not():
    (crystal,) = crystals("NC(=O)CO", ["P212121"], 1)
    (unit,) = crystal.asymmetric_unit
    goal = poses(crystal)
    mirrored = replace(goal, cell=-goal.cell, centres=-goal.centres, turns=-goal.turns)
    assert close(mirrored, goal)
    bent = np.asarray(unit.conformer).copy()
    bent[:2] += 1.5
    other = replace(crystal, asymmetric_unit=(replace(unit, conformer=bent - bent.mean(axis=0)),))
    assert not close(poses(other), poses(crystal))


def test_linear_and_symmetric_molecules_are_compared_as_what_they_are():
    for smiles in ("C#C", "c1ccccc1", "FC(F)(F)F"):
        for crystal in crystals(smiles, ["P21/c", "P-1"], 3):
            (unit,) = crystal.asymmetric_unit
            assert close(poses(crystal), poses(crystal))
            if smiles == "C#C":
                axis = unit.orientation @ (unit.conformer[0] - unit.conformer[1])
                spin = Rotation.from_rotvec(axis / np.linalg.norm(axis) * 1.1).as_matrix()
                spun = replace(crystal, asymmetric_unit=(replace(unit, orientation=spin @ unit.orientation),))
                assert close(poses(spun), poses(crystal))


@pytest.mark.skipif(not DATA.is_dir(), reason="the experimental crystals are not here")
def test_the_benchmark_takes_no_molecule_that_a_data_set_would_train_on(tmp_path):
    few = tmp_path / "cod" / "cif"
    few.mkdir(parents=True)
    for path in sorted((DATA / "cif").glob("*.cif"))[::24]:
        (few / path.name).write_bytes(path.read_bytes())
    targets, left_out = held_out(few.parent)
    assert targets and len(targets) + len(left_out) == len(list(few.iterdir()))
    assert {class_of(t) for t in targets} <= {"rigid", "flexible"}
    for path in few.iterdir():
        if path.stem not in {t.name for t in targets}:
            path.unlink()
    build_crystal_dataset(cifs=few, output=tmp_path / "set", processes=1, progress=False)
    assert len(CrystalDataset(tmp_path / "set", split="test")) == len(targets)
    assert len(CrystalDataset(tmp_path / "set", split="train")) == 0


def made_run(target: str, side: str, hits: int, **changes):
    raw = replace(Raw(n=100, clash_free=40, volume_error=[0.1, -0.3], close=[3]), **changes.pop("raw", {}))
    minimum = {"rmsd": 0.1, "n_matched": 15, "energy": 0.0, "density": 1.0, "status": "ok"}
    seconds = {"generate": 0.5, "press": 1.0, "compare": 9.0}
    found = Search(target, "C", "rdkit", side, 100, hits=hits, minimum=minimum, seconds=seconds, **changes)
    return Run(target, "rigid", "rdkit", side, 100, 0, "", asdict(raw), asdict(found))


def test_enrichment_is_over_random_packing_on_the_targets_that_both_sides_have_done():
    runs = [made_run("a", "random", 2), made_run("a", "flow", 8), made_run("b", "random", 0), made_run("b", "flow", 4),
            made_run("c", "flow", 100)]  # fmt: skip
    random, flow = enrichment_table(runs, ["random", "flow"]).rows
    assert random["targets"] == flow["targets"] == 2
    assert random["hits per 1000"] == 10.0 and flow["hits per 1000"] == 60.0 and flow["enrichment"] == 6.0
    assert flow["typical"] == round(np.sqrt(4.0 * 8.0), 2) and flow["hit, random not"] == 1
    assert flow["close %"] == 1.0


def test_the_other_tables_count_shares_of_targets():
    raw = {"matched": {"0.5": [], "0.8": [2], "1.0": [2, 12]}, "solved": [31]}
    runs = [made_run("a", "random", 2, raw=raw, relaxed_first=25, relaxed_rank=3, relaxed_gap=1.5, first=25),
            made_run("b", "random", 0)]  # fmt: skip
    (row,) = raw_table(runs, ["random"]).rows
    assert row["clash-free %"] == 40.0 and row["volume RMAD %"] == 20.0 and row["ms a structure"] == 5.0
    assert (row["match 0.5"], row["match 0.8"], row["match 1"]) == (0.0, 50.0, 50.0)
    assert row["solved"] == 0.0, "the 32nd sample is beyond the 30 that count"
    (row,) = press_table(runs, ["random"], (30, 100)).rows
    assert (row["found in 30"], row["found in 100"], row["median rank"], row["median dE"]) == (50.0, 50.0, 3.0, 1.5)
    assert row["misses"] == "1 search" and row["s a target"] == 1.5, "comparing with the experiment is not counted"


def test_ratios_are_pooled_and_typical_and_a_target_without_any_hit_counts_as_one():
    ratios = compare([(8, 100), (4, 50), (0, 10)], [(2, 100), (0, 100), (0.2, 100)])
    assert ratios["hits per 1000"] == round(1000 * (0.08 + 0.08 + 0.0) / 3, 2)
    assert ratios["enrichment"] == round(0.16 / 0.022, 2)
    assert ratios["typical"] == round((4.0 * (4 / 50) / (0.5 / 100) * 1.0) ** (1 / 3), 2)
    assert compare([(3, 100)], [(0, 100)])["enrichment"] is None and compare([], [])["typical"] is None


def test_a_minimum_of_the_press_is_its_own_nearest_minimum():
    molecule = Molecule.from_smiles("NC(=O)CO", n_conformers=1)
    parameters = parametrize(molecule)
    pressed = press(random_packings(molecule, 8, space_groups=["P21/c"], seed=2), parameters)
    pressed = pressed.select(pressed.ok)
    crystal = pressed.crystal(int(np.argmin(pressed.energy)))
    target = SimpleNamespace(crystal=crystal, experimental=molecule, racemic=False, found_rmsd=0.5)
    again = nearest_minimum(target, pressed_experiment(target, molecule, parameters))
    assert again.kept
    assert again.energy == pytest.approx(pressed.energy.min() / KJ_PER_MOL, abs=0.2)
