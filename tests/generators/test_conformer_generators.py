"""Conformers: numbered draws, minima, and one molecule with energies and shares."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from refusals import refuses

from benchmarks.conformer_metrics import heavy_atom_rmsds
from molflow_sim import Molecule, generate
from molflow_sim.chemistry.conformers import keeps_stereo
from molflow_sim.chemistry.embedding import _from, effort, embedded
from molflow_sim.chemistry.soundness import sound
from molflow_sim.errors import ConformerError, InputError, NoCandidatesError, StoreError, UnsupportedElementError
from molflow_sim.generators.batches import conformers_of_list
from molflow_sim.generators.conformers import EtkdgConformers, MmffConformers, drawn
from molflow_sim.generators.ensembles import EnsembleSettings, ensemble
from molflow_sim.generators.mixed_conformers import MixedConformers
from molflow_sim.generators.protocol import ConformerRequest, make_generator
from molflow_sim.generators.selection import covering
from molflow_sim.generators.torsions import TorsionConformers
from molflow_sim.relax.intramolecular import Intramolecular, intramolecular
from molflow_sim.testing import validate_generator
from molflow_sim.training.model import save_model, shared_model
from molflow_sim.units import KJ_PER_MOL

CHIRAL = "C[C@H](O)C/C=C/[C@@H](F)CO"
MOLECULE = Molecule.from_smiles(CHIRAL, search=False)


def test_a_molecule_without_a_search_has_one_conformer_in_the_order_of_its_smiles():
    assert MOLECULE.conformers.shape == (1, MOLECULE.n_atoms, 3) and np.isnan(MOLECULE.energies).all()
    order = [a.GetAtomicNum() for a in Chem.AddHs(Chem.MolFromSmiles(CHIRAL)).GetAtoms()]
    assert MOLECULE.numbers.tolist() == order
    assert keeps_stereo(MOLECULE.rdmol, MOLECULE.conformers).all()


def test_open_stereochemistry_is_chosen_with_a_warning():
    with pytest.warns(UserWarning, match="not fully specified"):
        assert Molecule.from_smiles("CC(O)F", search=False).smiles in ("C[C@H](O)F", "C[C@@H](O)F")


@pytest.mark.parametrize(
    "generator",
    [EtkdgConformers(), EtkdgConformers(False), MmffConformers(), TorsionConformers(bases=4), MixedConformers(0.5)],
)
def test_generators_keep_the_protocol(generator):
    validate_generator(generator, ConformerRequest(MOLECULE))


def test_an_embedding_depends_on_its_number_alone_where_others_fail(monkeypatch):
    monkeypatch.setattr("molflow_sim.chemistry.embedding.ATTEMPTS", 1)
    cage = Chem.AddHs(Chem.MolFromSmiles("C1C2CC3CC1CC(C2)C3"))
    whole = embedded(cage, 6, seed=5)
    again = embedded(cage, 3, seed=5, first_index=3)
    for a, b in zip(whole[3:], again):
        assert (a is None and b is None) or np.array_equal(a, b)


def test_embeddings_are_done_one_by_one_once_one_fails(monkeypatch):
    asked = []

    def half(mol, count, parameters):
        asked.append(count)
        mol.RemoveAllConformers()
        for k in range(count):
            if (parameters.randomSeed + k) % 2:
                mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()), assignId=True)

    monkeypatch.setattr("molflow_sim.chemistry.embedding.rdDistGeom.EmbedMultipleConfs", half)
    found = _from(Chem.AddHs(Chem.MolFromSmiles("CC")), 20, 1, True, False)
    assert [x is not None for x in found] == [True, False] * 10
    assert asked == [8] + [1] * 20


def test_embeddings_of_large_molecules_are_fewer():
    assert effort(MOLECULE.rdmol) == 1.0
    long = SimpleNamespace(rdmol=Chem.AddHs(Chem.MolFromSmiles("C" * 60)))  # embedding it would take seconds
    assert effort(long.rdmol) == pytest.approx((120 / 182) ** 3)
    for generator in (EtkdgConformers(), MmffConformers(), make_generator("conformers", "coarsenconf")):
        assert [EnsembleSettings().draws(mol, 50, generator) for mol in (MOLECULE, long)] == [100, 50]
        assert EnsembleSettings(pool=70).draws(long, 50, generator) == 70
    few = [MixedConformers().most(mol, 10) for mol in (MOLECULE, long)]
    assert few[1] == round(few[0] * effort(long.rdmol))


@pytest.mark.parametrize(
    "smiles",
    [
        "C12C3C4C1C5C2C3C45",  # cubane
        "C12C3C1C23",  # tetrahedrane: RDKit fails its own check of the centres' volumes
        "c1cc2ccc1CCc1ccc(cc1)CC2",  # [2.2]paracyclophane: benzene rings that are bent
        "C1COCCOCCOCCOCCOCCO1",  # 18-crown-6
    ],
)
def test_cages_and_macrocycles_have_conformers(smiles):
    found = generate("conformers", smiles, n=2, seed=0, pool=4)
    assert len(found.conformers) and sound(found.rdmol, found.conformers).all()


def test_conformers_of_another_list_leave_the_files_of_others_alone(tmp_path):
    (tmp_path / "mine.sdf").write_text("mine")
    methanol, ethanol = [("list", "CO", "methanol", "a[1]")], [("list", "CCO", "ethanol", "ethanol")]
    options = {"method": "etkdg", "energy": "none", "progress": False}
    refuses(StoreError, "not empty", conformers_of_list, methanol, tmp_path, 1, **options)
    assert conformers_of_list(methanol, tmp_path, 1, overwrite=True, **options)[0]["conformers"] == 1
    conformers_of_list(ethanol, tmp_path, 2, overwrite=True, **options)
    assert sorted(p.name for p in tmp_path.glob("*.sdf")) == ["ethanol.sdf", "mine.sdf"]
    assert (tmp_path / "mine.sdf").read_text() == "mine"


def test_what_no_way_of_embedding_can_build_is_refused_by_name():
    refuses(ConformerError, "no three-dimensional structure", generate, "conformers", "C1CC23CCC2C1C3", n=2)


def test_mixed_conformers_are_draws_of_both_generators():
    made = MixedConformers(0.25).sample(ConformerRequest(MOLECULE), 8, seed=3)
    own = make_generator("conformers", "coarsenconf")
    seeds = np.random.SeedSequence(3).generate_state(2, np.uint32).tolist()
    network = own.sample(ConformerRequest(MOLECULE), 2, seed=seeds[0]).systems()
    assert [np.array_equal(made.systems()[k].conformers, m.conformers) for k, m in zip((3, 7), network)] == [True] * 2
    torsions = TorsionConformers().sample(ConformerRequest(MOLECULE), 6, seed=seeds[1]).systems()
    assert np.array_equal(made.systems()[6].conformers, torsions[5].conformers)
    refuses(InputError, "between 0 and 1", MixedConformers, 1.0)


def test_mixed_conformers_tell_the_weights_of_their_network_and_no_place(tmp_path):
    found = generate("conformers", MOLECULE, n=1, method="mixed", pool=8)
    packaged = make_generator("conformers", "coarsenconf").identity()["weights"]
    assert found.info["weights"] == f"sha256:{packaged}"
    save_model(tmp_path, shared_model("coarsenconf"))
    assert MixedConformers(weights=str(tmp_path)).identity() == MixedConformers().identity()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"window": "wide"}, "window must be float or NoneType"),
        ({"energy": 5}, "energy must be str"),
        ({"focus": float("nan")}, "focus"),
    ],
)
def test_options_of_another_type_are_refused_by_name(option, words):
    refuses(InputError, words, generate, "conformers", MOLECULE, n=1, method="etkdg", **option)


@pytest.mark.parametrize("method", ["etkdg", "mmff"])
def test_conformers_come_as_one_molecule_lowest_first_with_shares(method):
    found = generate("conformers", CHIRAL, n=8, method=method, seed=1, energy="none")
    assert isinstance(found, Molecule) and found.smiles == MOLECULE.smiles
    assert keeps_stereo(found.rdmol, found.conformers).all()
    assert np.all(np.diff(found.energies) >= 0.0) and found.shares.sum() == pytest.approx(1.0)
    assert found.info["generator"] == method and found.info["seed"] == 1 and found.info["version"]


def test_boron_is_refused_by_mmff_alone():
    with pytest.warns(UserWarning, match="left as drawn"):
        found = generate("conformers", "OB(O)c1ccccc1", n=2, method="etkdg")
    assert len(found.conformers) == 2 and np.isnan(found.energies).all() and found.shares.sum() == 1.0
    refuses(UnsupportedElementError, "boron", generate, "conformers", "OB(O)c1ccccc1", n=2, method="mmff")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dielectric": 0.5}, "dielectric"),
        ({"press": True}, "pressed"),
        ({"n": 0}, "at least 1"),
        ({"x": 1}, "unknown"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, words):
    refuses(InputError, words, generate, "conformers", "CCO", **{"n": 2, "method": "mmff", **options})


def test_what_leaves_is_distinct_sound_and_of_the_stereoisomer_asked_for():
    found = generate("conformers", CHIRAL, n=12, seed=2, pool=60, bases=6)
    rmsd = heavy_atom_rmsds(found.rdmol, found.conformers, found.rdmol, found.conformers)
    assert len(found.conformers) == 12 and sound(found.rdmol, found.conformers).all()
    assert keeps_stereo(found.rdmol, found.conformers).all()
    assert rmsd[~np.eye(12, dtype=bool)].min() > 0.05
    again = generate("conformers", CHIRAL, n=12, seed=2, pool=60, bases=6)
    assert np.array_equal(again.conformers, found.conformers)


def test_a_rigid_molecule_has_one_conformer():
    assert len(generate("conformers", "c1ccccc1", n=20).conformers) == 1


@pytest.mark.parametrize("energy", ["mmff94", "mmff94:4"])
def test_minima_lie_in_the_window(energy):
    found = generate("conformers", "OCCCO", n=8, energy=energy, window=6.0, bases=10, pool=60)
    assert 1 < len(found.conformers) <= 8 and np.ptp(found.energies) <= 6.0 * KJ_PER_MOL
    assert found.info["energy_model"] == energy and "above the lowest" in found.info["lost"]


@pytest.mark.parametrize(
    ("smiles", "left", "note"),
    [("CCO", "mean(so3lr,aimnet2)", ""), ("C[Si](C)(C)CCl", "aimnet2", "SO3LR does not know Si")],
)
def test_best_is_the_mean_of_the_networks_that_know_the_molecule(smiles, left, note):
    found = generate("conformers", smiles, n=3, energy="best", bases=4, pool=8)
    assert found.info["energy_model"] == left and note in found.info.get("energy_note", "")


def test_conformers_of_atoms_that_no_network_knows_are_ranked_by_the_force_field(monkeypatch):
    monkeypatch.setattr("molflow_sim.forcefield.aimnet2.PACKAGE", "no_such_package")
    found = generate("conformers", "C[Si](C)(C)CCl", n=3, energy="best", bases=4, pool=8)
    assert found.info["energy_model"] == "mmff94" and "pip install auto3d" in found.info["energy_note"]


@dataclass(frozen=True)
class Scripted:
    """A generator whose draws are written down."""

    kind = "conformers/scripted"
    draws: tuple = ()

    def sample(self, request, n, *, seed, first_index=0):
        rows = self.draws[first_index : first_index + n]
        return drawn(request.molecule, first_index, list(rows), "ScriptedError: nothing")


def test_draws_that_are_torn_mirrored_or_not_finite_are_lost_with_their_reasons():
    good = MOLECULE.conformers[0]
    torn, missing = good.copy(), None
    torn[0] += 5.0
    pool = (good, torn, good * [1, 1, -1], missing)
    found = ensemble(MOLECULE, 4, Scripted(pool), seed=0, settings=EnsembleSettings(pool=4))
    assert len(found.conformers) in (1, 2) and keeps_stereo(found.rdmol, found.conformers).all()  # drawn, and a minimum
    for reason in ("1 torn", "1 another stereoisomer", "1 ScriptedError"):
        assert reason in found.info["lost"]
    refuses(NoCandidatesError, "2 ScriptedError", ensemble, MOLECULE, 2, Scripted((None, None)), seed=0)


def test_an_energy_that_is_not_finite_is_a_loss(monkeypatch):
    lost = Intramolecular("so3lr", True, lambda x: (x, np.where(np.arange(len(x)) == 0, np.nan, 1.0)))
    monkeypatch.setattr("molflow_sim.generators.ensembles.intramolecular", lambda spec, _: lost if spec == "so3lr" else
                        intramolecular(spec, MOLECULE))  # fmt: skip
    found = ensemble(MOLECULE, 3, TorsionConformers(bases=6), seed=0, settings=EnsembleSettings("so3lr", pool=20))
    assert "1 no finite energy" in found.info["lost"] and np.isfinite(found.energies).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 30), st.integers(1, 12))
def test_the_first_that_covers_is_the_most_central_and_each_is_chosen_once(seed, size, n):
    x = np.random.default_rng(seed).normal(size=(size, 2))
    distances = np.linalg.norm(x[:, None] - x, axis=2)
    chosen = covering(distances, n, scale=1.0)
    assert len(set(chosen.tolist())) == min(n, size)
    assert np.exp(-(distances**2)).sum(0)[chosen[0]] == pytest.approx(np.exp(-(distances**2)).sum(0).max(), rel=1e-5)


@pytest.mark.parametrize("spec", ["mmff", "mmff94:0", "mmff94:x", "so3lr:3", ""])
def test_energies_that_there_are_not_are_refused(spec):
    refuses(InputError, "energy|dielectric", generate, "conformers", "CCO", n=1, energy=spec)
