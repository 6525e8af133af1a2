"""Generators: one protocol, and what a screening makes of the one it is told to use."""

import gemmi
import numpy as np
import pytest
from flow_stand_in import FlowGenerator as StandIn
from flow_stand_in import weights_of
from refusals import refuses

from molflow_sim import Molecule, generate
from molflow_sim.errors import CrystalError, InputError, RequestError, SpaceGroupError, WeightsError
from molflow_sim.forcefield import parametrize
from molflow_sim.generators.crystals import MixedGenerator, RandomGenerator
from molflow_sim.generators.protocol import CrystalRequest, Drawn, make_generator
from molflow_sim.generators.writers import cif_text, structure_writer
from molflow_sim.models.crystal_flow.generator import FlowGenerator
from molflow_sim.packing import RigidPackings, body_conformers, press, random_packings
from molflow_sim.packing.candidates import packings_of
from molflow_sim.screening import ScreenSettings
from molflow_sim.screening import stages as steps
from molflow_sim.screening.stages import Shared, Stages

ARRAYS = ("cell", "centroid", "rotation", "conformer")
METHODS = ("random", "flow", "mixed")


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


def test_a_request_names_its_space_groups_in_full_and_once(formamide):
    assert CrystalRequest(formamide).space_groups == "common"
    for groups in ("P-1,P21/c,P-1", ["P-1", "P 1 21/c 1"], ("P -1", "P21/c")):
        assert CrystalRequest(formamide, groups).space_groups == ("P -1", "P 1 21/c 1")


@pytest.mark.parametrize(
    "wrong", [{"space_groups": "P99"}, {"space_groups": ()}, {"z_prime": 0}, {"z_prime": 1.5}, {"space_groups": 14}]
)
def test_a_request_is_checked_at_its_own_door(formamide, wrong):
    with pytest.raises(InputError):
        CrystalRequest(formamide, **wrong)


@pytest.mark.parametrize("method", METHODS)
def test_a_request_that_a_generator_cannot_serve_is_named(formamide, method):
    with pytest.raises(RequestError, match=r"cannot serve a request for str"):
        make_generator("crystals", method).sample("NC=O", 2, seed=0)
    with pytest.raises(InputError, match="z_prime must be 1 to 4"):
        RandomGenerator().sample(CrystalRequest(formamide, z_prime=5), 2, seed=0)


def test_random_is_random_packing_under_another_name(formamide):
    made = RandomGenerator().sample(CrystalRequest(formamide, "P-1"), 20, seed=3, first_index=40)
    assert same(made, random_packings(formamide, 20, seed=3, first_index=40, space_groups=["P-1"]))


@pytest.mark.parametrize("method", METHODS)
def test_every_generator_gives_unpressed_packings_of_the_body_conformers(formamide, stand_in, method):
    made = make_generator("crystals", method).sample(CrystalRequest(formamide, "P-1,P21/c", 2), 11, seed=1)
    assert made.centroid.shape == (11, 2, 3) and set(made.space_groups) <= {"P -1", "P 1 21/c 1"}
    assert np.isnan(made.energy).all() and np.array_equal(made.conformers, body_conformers(formamide))


@pytest.mark.parametrize("share", [0.1, 0.25, 1 / 3, 0.5, 0.9])
def test_a_mixture_holds_its_share_and_tells_from_the_number_where_a_candidate_comes_from(share):
    mixed = MixedGenerator(share)
    chosen = mixed.from_first(np.arange(1000))
    assert abs(int(chosen.sum()) - 1000 * share) < 1.0
    assert np.array_equal(mixed.from_first(np.arange(300, 400)), chosen[300:400]), "does not depend on the batch"


@pytest.mark.parametrize("note", ["2,2' bipyridine", 'say "it\'s" now', "_x", "", "a b", "sha256:1f", -0.5])
def test_notes_of_any_text_come_back_from_a_cif(formamide, note):
    crystal = generate("crystals", formamide, 1, method="random")[0].with_info(note=note)
    block = gemmi.cif.read_string(cif_text(crystal, "x")).sole_block()
    assert gemmi.cif.as_string(block.find_value("_molflow_note")).strip() == str(note)
    assert block.find_value("_molflow_candidate") == "0" and block.find_value("_cell_length_a")


def test_a_folder_written_again_keeps_what_is_not_ours(formamide, tmp_path):
    crystals = generate("crystals", formamide, 2, method="random")
    for place in ("crystal_mine.cif", "crystal_1.cif", "a/b/crystal_00000.cif"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("mine")
    for made in (crystals, crystals[:1]):
        with structure_writer(tmp_path, overwrite=True) as writer:
            writer.write(made, "formamide")
            writer.write(made)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.cif"))
    ours = ["crystal_00000.cif", "formamide/crystal_00000.cif"]
    assert found == sorted([*ours, "crystal_mine.cif", "crystal_1.cif", "a/b/crystal_00000.cif"])


def test_the_parts_of_a_mixture_are_what_its_generators_draw(formamide, stand_in):
    mixed, request = MixedGenerator(0.5), CrystalRequest(formamide)
    made = mixed.sample(request, 10, seed=6)
    seeds = np.random.SeedSequence(6).generate_state(2, np.uint32).tolist()
    assert same(made.select(mixed.from_first(made.index)), StandIn().sample(request, 5, seed=seeds[0]))
    assert same(made.select(~mixed.from_first(made.index)), RandomGenerator().sample(request, 5, seed=seeds[1]))


def test_generators_with_other_conformers_cannot_be_mixed(formamide, monkeypatch):
    class Other(RandomGenerator):
        def sample(self, request, n, **options):
            made = super().sample(request, n, **options)
            made.conformers[:] += 0.1
            return made

    monkeypatch.setattr(MixedGenerator, "first", Other())
    refuses(CrystalError, "conformers", MixedGenerator().sample, CrystalRequest(formamide), 4, seed=0)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("magic", {}, "unknown generator 'magic'; choose from random, flow, mixed"),
        ("random", {"weights": "folder"}, "crystals/random: unknown weights; known are none"),
        ("mixed", {"share": 1.0}, "between 0 and 1"),
        ("flow", {"draws": 0}, "draws"),
        ("flow", {"draws": "many"}, "draws must be int"),
    ],
)
def test_what_no_generator_can_be_is_refused(method, options, words):
    refuses(InputError, words, make_generator, "crystals", method, **options)
    refuses(InputError, "unknown kind of structure 'glass'", make_generator, "glass", method)


@pytest.mark.parametrize("molecules", [["NC=O", "C"], ["NC=O"], []])
def test_crystals_of_several_molecules_are_refused(molecules):
    refuses(InputError, "crystals are of one molecule", generate, "crystals", molecules, 2, method="random")


def test_groups_with_mirrors_for_a_chiral_molecule_and_missing_or_other_weights_are_refused(tmp_path):
    alanine = Molecule.from_smiles("C[C@H](O)C#N")
    refuses(SpaceGroupError, "Sohncke", RandomGenerator().sample, CrystalRequest(alanine, "P-1"), 3, seed=0)
    refuses(WeightsError, "absent holds no weights of crystal-flow", FlowGenerator(str(tmp_path / "absent")).identity)
    weights_of(tmp_path, "cgnet")
    refuses(WeightsError, "holds weights of cgnet, not of crystal-flow", FlowGenerator(str(tmp_path)).identity)


def one_failed(packings: RigidPackings) -> Drawn:
    """Candidates as another package may give them: crystals, and one that failed."""
    reasons = ["", "no cell", *[""] * (len(packings) - 2)]
    return Drawn(packings.index, [None if r else packings.crystal(k) for k, r in enumerate(reasons)], reasons)


def test_candidates_of_any_class_are_pressed_and_the_failed_stay_rows_with_a_reason(formamide):
    drawn = random_packings(formamide, 6, seed=0, first_index=30, space_groups=["P-1"])
    made = packings_of(one_failed(drawn), formamide)
    given = np.arange(6) != 1
    assert made.index.tolist() == list(range(30, 36)) and made.reasons[1] == "not generated"
    assert np.array_equal(made.conformers, drawn.conformers) and made.systems()[1] is None
    one, other = press(made, parametrize(formamide)), press(drawn.select(given), parametrize(formamide))
    assert one.reasons[1] == "not generated" and np.isnan(one.energy[1])
    np.testing.assert_allclose(one.energy[given], other.energy, atol=1e-6)


def test_crystals_of_other_conformers_or_molecules_are_refused(formamide):
    bent = random_packings(formamide, 3, seed=0, space_groups=["P-1"])
    bent.conformers[:, 0] += 0.5
    refuses(CrystalError, "not the molecule's own", packings_of, one_failed(bent), formamide)
    refuses(CrystalError, "another molecule", packings_of, one_failed(bent), Molecule.from_smiles("O"))


def test_the_identity_of_a_run_holds_the_generator_and_the_hash_of_its_weights_not_their_place(
    stand_in,
    weights,
    tmp_path,
):
    runs = [
        ScreenSettings(generator="random").identity(),
        ScreenSettings(generator="flow").identity(),
        ScreenSettings(generator="flow", weights=str(weights)).identity(),
        ScreenSettings(generator="mixed", generator_options={"share": 0.3}).identity(),
        ScreenSettings(generator="mixed", generator_options={"share": 0.6}).identity(),
    ]
    assert all(a != b for k, a in enumerate(runs) for b in runs[:k])
    elsewhere = tmp_path / "copy"
    elsewhere.mkdir()
    (elsewhere / "weights").write_text("abc")
    assert ScreenSettings(generator="flow", weights=str(elsewhere)).identity() == runs[2]
    assert runs[2]["packings"]["weights"] == "abc"


@pytest.mark.parametrize(
    "options", [{"generator": "magic"}, {"weights": "somewhere"}, {"generator_options": {"share": 0.0}}]
)
def test_settings_refuse_a_generator_that_cannot_be(options):
    options = {"generator": "mixed" if "generator_options" in options else "random", **options}
    with pytest.raises(InputError):
        ScreenSettings(**options)


@pytest.mark.parametrize("method", METHODS)
def test_batches_come_from_the_generator_that_the_settings_name(formamide, stand_in, method):
    settings = ScreenSettings(candidates=12, batch_size=6, space_groups="P-1", generator=method, seed=9)
    shared = Shared(Stages(press=lambda packings, _: packings), formamide, None, settings)
    made = steps.read_packings(shared, steps.press_batch(shared, 1))
    request = CrystalRequest(formamide, "P-1")
    assert same(made, make_generator("crystals", method).sample(request, 6, seed=9, first_index=6))
