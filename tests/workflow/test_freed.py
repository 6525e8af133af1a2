"""Packings of flexible molecules are relaxed loosely before any is chosen: a conformer a little off comes home."""

from dataclasses import replace

import numpy as np
import pytest
import toy_stages as toy
from crystal_examples import crystal
from refusals import refuses

from molflow_sim import CrystalPotential, Molecule, parametrize, screen
from molflow_sim.chemistry.rotors import rotors
from molflow_sim.errors import NoCandidatesError
from molflow_sim.evaluate import packing_similarity
from molflow_sim.packing import press, random_packings
from molflow_sim.relax.flexible import relax_flexible
from molflow_sim.runs.store import Store
from molflow_sim.screening import ScreenSettings
from molflow_sim.screening import stages as steps
from molflow_sim.units import KJ_PER_MOL

SETTINGS = ScreenSettings(
    candidates=40, batch_size=20, free_top=20, compare_top=10, relax_top=5, minimum_density=0.001, generator="random"
)


def swell(crystals, parameters):
    """The looser the lower: the other way round than the press."""
    return [toy.Relaxed(c.with_geometry(1.1 * c.cell, 1.1 * c.unit_cell()[1]), float(c.density)) for c in crystals]


def refuse(*_):
    raise AssertionError("computed")


@pytest.fixture(scope="module")
def glycol():
    return Molecule.from_smiles("OCCO", n_conformers=1)


def run(molecule, folder, free, **changes):
    stages = replace(toy.TOY, free=free, deduplicate_crystals=toy.keep_all)
    return screen(molecule, output=folder, settings=replace(SETTINGS, **changes), stages=stages, progress=False)


def test_what_is_compared_is_lowest_when_free_and_goes_on_as_it_is_then(glycol, tmp_path):
    pressed = run(glycol, tmp_path, refuse, free_top=0, compare_top=20, relax_top=20)
    freed = run(glycol, tmp_path, swell)
    loosest = sorted(entry.density for entry in pressed)[:10]
    assert freed.tally["compare"]["relaxed loosely"] == 20 == freed.tally["compare"]["then distinct"]
    assert freed.tally["compare"]["evaluated"] == 10
    # Of these ten, all 1.1 times as wide, the energies after choose five.
    assert all(np.isclose(1.1**3 * entry.density, loosest, rtol=1e-6).any() for entry in freed) and len(freed) == 5


def test_the_same_command_again_frees_nothing_and_more_packings_are_freed_where_asked(glycol, tmp_path):
    first = run(glycol, tmp_path, swell)
    again = run(glycol, tmp_path, refuse)
    assert again.to_dataframe().equals(first.to_dataframe())
    assert run(glycol, tmp_path, swell, free_top=30).tally["compare"]["relaxed loosely"] == 30


@pytest.mark.parametrize(("first", "second"), [(8, 16), (16, 8)])
def test_more_or_fewer_compared_in_the_same_folder_are_those_of_a_new_one(glycol, tmp_path, first, second):
    run(glycol, tmp_path / "same", swell, compare_top=first)
    again, new = (run(glycol, tmp_path / name, swell, compare_top=second, relax_top=16) for name in ("same", "new"))
    assert again.tally["compare"] == new.tally["compare"] and again.tally["compare"]["evaluated"] == second
    assert again.to_dataframe().equals(new.to_dataframe())


def test_a_kill_after_any_freed_batch_changes_nothing(glycol, tmp_path, monkeypatch):
    monkeypatch.setattr("molflow_sim.screening.search._FREE_BATCH", 8)
    whole = run(glycol, tmp_path / "a", swell)
    write = Store.write

    def dies(self, key, *rest, **options):
        write(self, key, *rest, **options)
        if key.startswith("free/"):
            raise KeyboardInterrupt

    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", dies)
            with pytest.raises(KeyboardInterrupt):
                run(glycol, tmp_path / "b", swell)
    assert run(glycol, tmp_path / "b", swell).to_dataframe().equals(whole.to_dataframe())


def test_a_rigid_molecule_is_not_freed(tmp_path):
    found = run(Molecule.from_smiles("NC(N)=O"), tmp_path, refuse)
    assert found.tally["compare"]["evaluated"] == 10 and "relaxed loosely" not in found.tally["compare"]


def test_a_packing_that_comes_apart_is_left_out_and_none_left_is_an_error(glycol, tmp_path):
    def some(crystals, parameters):
        rows = swell(crystals, parameters)
        return [replace(r, energy=np.nan, reason="came apart") if k % 4 == 0 else r for k, r in enumerate(rows)]

    def none(crystals, parameters):
        return [replace(r, energy=np.nan, reason="came apart") for r in swell(crystals, parameters)]

    assert run(glycol, tmp_path / "a", some).tally["compare"]["relaxed loosely"] == 15
    refuses(NoCandidatesError, "came apart", run, glycol, tmp_path / "b", none)


def test_what_a_packing_becomes_does_not_depend_on_its_company(glycol):
    parameters = parametrize(glycol)
    pressed = press(random_packings(glycol, 12, seed=1), parameters)
    crystals = [pressed.crystal(int(k)) for k in np.flatnonzero(pressed.ok)]

    def numbers(found):
        return [(r.energy, r.n_steps, r.crystal.cell.tobytes(), r.crystal.unit_cell()[1].tobytes()) for r in found]

    together = numbers(steps.free(crystals, parameters))
    assert [n for c in crystals[::-1] for n in numbers(steps.free([c], parameters))] == together[::-1]
    assert all(
        a.crystal.space_group.name == b.space_group.name for a, b in zip(steps.free(crystals, parameters), crystals)
    )


def test_a_conformer_twenty_degrees_off_comes_home_with_its_space_group():
    start = crystal("glycolic")
    molecule = start.molecules[0]
    parameters = parametrize(molecule)
    home = relax_flexible([start], CrystalPotential([parameters]))[0]
    (torsion,), (moving,) = rotors(molecule.rdmol).torsions, rotors(molecule.rdmol).moving
    (unit,) = home.crystal.asymmetric_unit
    shape = turned(unit.conformer, torsion[1:3], moving, 20.0, molecule.masses)
    off = replace(home.crystal, asymmetric_unit=(replace(unit, conformer=shape),))
    (freed,) = steps.free([off], parameters)
    above = (steps.evaluate([off, freed.crystal], parameters) - home.energy) / KJ_PER_MOL
    assert above[0] > 10.0 and above[1] < 0.5
    assert freed.crystal.space_group.name == start.space_group.name
    assert packing_similarity(home.crystal, freed.crystal).same(0.2)


def turned(x, axis, moving, degrees, masses):
    """Conformer with one side of a bond turned, on its centre of mass again."""
    from scipy.spatial.transform import Rotation

    origin, end = x[axis[0]], x[axis[1]]
    turn = Rotation.from_rotvec(np.radians(degrees) * (end - origin) / np.linalg.norm(end - origin))
    out = np.where(moving[:, None], turn.apply(x - origin) + origin, x)
    return out - masses @ out / masses.sum()
