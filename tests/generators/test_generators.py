"""Generators: one protocol, and what a screening makes of the one it is told to use."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
from flow_stand_in import stand_in  # noqa: F401

from molflow_sim import Molecule
from molflow_sim.errors import CrystalError, InputError, SpaceGroupError, WeightsError
from molflow_sim.generators import crystals as generators
from molflow_sim.generators.crystals import GENERATORS, FlowGenerator, MixedGenerator, RandomGenerator, make_generator
from molflow_sim.packing import RigidPackings, body_conformers, random_packings
from molflow_sim.screening import ScreenSettings
from molflow_sim.screening import stages as steps
from molflow_sim.screening.stages import Shared, Stages

ARRAYS = ("cell", "centroid", "rotation", "conformer")


@pytest.fixture(scope="module")
def formamide():
    return Molecule.from_smiles("NC=O")


def same(a: RigidPackings, b: RigidPackings) -> bool:
    return len(a) == len(b) and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS)


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "weights").write_text("abc")
    return folder


def test_random_is_random_packing_under_another_name(formamide):
    made = make_generator("random").propose(formamide, 20, seed=3, first_index=40, space_groups=["P-1"])
    assert same(made, random_packings(formamide, 20, seed=3, first_index=40, space_groups=["P-1"]))
    assert made.index.tolist() == list(range(40, 60))


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_every_generator_gives_n_numbered_unpressed_packings_of_the_body_conformers(formamide, stand_in, name):  # noqa: F811
    made = make_generator(name).propose(formamide, 11, seed=1, first_index=5, space_groups=["P-1", "P21/c"], z_prime=2)
    assert made.index.tolist() == list(range(5, 16)) and made.centroid.shape == (11, 2, 3)
    assert set(made.reasons) == {"not pressed"} and set(made.space_groups) <= {"P -1", "P 1 21/c 1"}
    assert np.array_equal(made.conformers, body_conformers(formamide))


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_the_same_seed_gives_the_same_packings_also_in_another_process(formamide, stand_in, name):  # noqa: F811
    generator = make_generator(name)
    first = generator.propose(formamide, 8, seed=2)
    assert same(first, pickle.loads(pickle.dumps(generator)).propose(formamide, 8, seed=2))  # noqa: S301
    assert not same(first, generator.propose(formamide, 8, seed=4))


@pytest.mark.parametrize("share", [0.1, 0.25, 1 / 3, 0.5, 0.9])
def test_a_mixture_holds_its_share_and_tells_from_the_number_where_a_candidate_comes_from(share):
    mixed = MixedGenerator(RandomGenerator(), RandomGenerator(), share)
    chosen = mixed.from_first(np.arange(1000))
    assert abs(int(chosen.sum()) - 1000 * share) < 1.0
    assert np.array_equal(mixed.from_first(np.arange(300, 400)), chosen[300:400]), "does not depend on the batch"


def test_the_parts_of_a_mixture_are_what_its_generators_propose(formamide, stand_in):  # noqa: F811
    mixed = make_generator("mixed", flow_share=0.5)
    made = mixed.propose(formamide, 10, seed=6)
    seeds = np.random.SeedSequence(6).generate_state(2, np.uint32).tolist()
    assert same(made.select(mixed.from_first(made.index)), FlowGenerator().propose(formamide, 5, seed=seeds[0]))
    assert same(made.select(~mixed.from_first(made.index)), RandomGenerator().propose(formamide, 5, seed=seeds[1]))


def test_the_settings_take_as_many_draws_as_the_generator_does_by_itself():
    assert ScreenSettings().flow_draws == FlowGenerator().draws
    assert ScreenSettings(generator="flow", flow_draws=5).make_generator() == FlowGenerator(draws=5)
    with pytest.raises(InputError, match="draw"):
        FlowGenerator(draws=0)


def test_generators_with_other_conformers_cannot_be_mixed(formamide):
    class Other(RandomGenerator):
        def propose(self, molecule, n, **options):
            made = super().propose(molecule, n, **options)
            made.conformers[:] += 0.1
            return made

    with pytest.raises(CrystalError, match="conformers"):
        MixedGenerator(RandomGenerator(), Other()).propose(formamide, 4, seed=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "magic"}, "random, flow, mixed"),
        ({"name": "random", "weights": "folder"}, "no weights"),
        ({"name": "mixed", "flow_share": 1.0}, "between 0 and 1"),
    ],
)
def test_what_no_generator_can_be_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        make_generator(**options)


def test_a_chiral_molecule_cannot_be_put_in_a_group_with_mirrors():
    alanine = Molecule.from_smiles("C[C@H](O)C#N")
    with pytest.raises(SpaceGroupError, match="Sohncke"):
        make_generator("random").propose(alanine, 3, seed=0, space_groups=["P-1"])


def test_without_a_crystal_flow_the_error_says_what_to_do(monkeypatch):
    generators._flow.cache_clear()
    monkeypatch.setitem(sys.modules, "molflow_sim.models.crystal_flow", None)
    with pytest.raises(WeightsError, match="choose the generator 'random'"):
        make_generator("flow").identity()


def test_missing_weights_are_named(stand_in, tmp_path):  # noqa: F811
    with pytest.raises(WeightsError, match="absent"):
        make_generator("flow", weights=tmp_path / "absent").identity()


# -- in a screening ---------------------------------------------------------------------------------------------------


def test_the_identity_of_a_run_holds_the_generator_and_the_hash_of_its_weights_not_their_place(
    stand_in,  # noqa: F811
    weights,
    tmp_path,
):
    runs = [
        ScreenSettings(generator="random").identity(),
        ScreenSettings(generator="flow").identity(),
        ScreenSettings(generator="flow", weights=str(weights)).identity(),
        ScreenSettings(generator="mixed", flow_share=0.3).identity(),
        ScreenSettings(generator="mixed", flow_share=0.6).identity(),
    ]
    assert all(a != b for k, a in enumerate(runs) for b in runs[:k])
    elsewhere = tmp_path / "copy"
    elsewhere.mkdir()
    (elsewhere / "weights").write_text("abc")
    assert ScreenSettings(generator="flow", weights=str(elsewhere)).identity() == runs[2]
    assert runs[2]["packings"]["weights"] == "abc"


@pytest.mark.parametrize("options", [{"generator": "magic"}, {"weights": "somewhere"}, {"flow_share": 0.0}])
def test_settings_refuse_a_generator_that_cannot_be(options):
    options = {"generator": "mixed" if "flow_share" in options else "random", **options}
    with pytest.raises(InputError):
        ScreenSettings(**options)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_batches_come_from_the_generator_that_the_settings_name(formamide, stand_in, name):  # noqa: F811
    settings = ScreenSettings(candidates=12, batch_size=6, space_groups="P-1", generator=name, seed=9)
    shared = Shared(Stages(press=lambda packings, _: packings), formamide, None, settings)
    made = steps.read_packings(shared, steps.press_batch(shared, 1))
    expected = make_generator(name).propose(formamide, 6, seed=9, first_index=6, space_groups=["P-1"])
    assert same(made, expected)
