"""`molflow generate clusters`: what is written, and what is refused before anything is."""

from functools import partial

import ase.db
import ase.io
import pytest

from molflow_sim import MolecularCluster


@pytest.fixture
def clusters(molflow):
    return partial(molflow, "generate", "clusters")


def test_an_extxyz_file_holds_n_clusters_that_read_back(clusters, tmp_path):
    code, out, _ = clusters("CC(N)=O", "--copies", 4, "-n", 3, "-o", tmp_path / "out.extxyz", "--seed", 5)
    frames = ase.io.read(tmp_path / "out.extxyz", index=":")
    assert code == 0 and "3 clusters (C2H5NO)4" in out and len(frames) == 3
    for k, atoms in enumerate(frames):
        assert atoms.info["candidate"] == k and atoms.info["generator"] == "random" and not atoms.pbc.any()
        assert MolecularCluster.from_atoms(atoms).n_molecules == 4


def test_two_smi_files_make_a_mixture_in_a_database(clusters, tmp_path):
    (tmp_path / "a.smi").write_text("CC(N)=O acetamide\n")
    (tmp_path / "b.smi").write_text("# water\nO\n")
    words = (tmp_path / "a.smi", tmp_path / "b.smi", "--copies", "3,2", "--periodic", "-n", 2)
    code, _, err = clusters(*words, "-o", tmp_path / "mix.db", "--density", 0.3, "-q")
    assert code == 0, err
    with ase.db.connect(tmp_path / "mix.db") as database:
        (row, _) = database.select()
        cluster = MolecularCluster.from_atoms(row.toatoms())
    assert cluster.formula == "(C2H5NO)3(H2O)2" and cluster.density == pytest.approx(0.3)
    assert row.smiles == "CC(N)=O.O" and row.density_g_per_cm3 == pytest.approx(0.3)


def test_packmol_fills_a_folder_with_a_file_for_each_cluster(clusters, tmp_path):
    pytest.importorskip("packmol")
    code, _, err = clusters("O", "--copies", 3, "-n", 2, "--method", "packmol", "-o", tmp_path / "out")
    assert code == 0, err
    files = sorted(f.name for f in (tmp_path / "out").iterdir())
    assert files == ["cluster_00000.extxyz", "cluster_00001.extxyz"]
    assert clusters("O", "-n", 1, "-o", tmp_path / "out")[0] == 2, "a full folder is not touched"


@pytest.mark.parametrize(
    "words, said",
    [
        (("O", "C", "--copies", "1,2,3"), "2 molecules and 3 numbers of copies"),
        (("O", "--copies", "many"), "numbers with commas"),
        (("CC(=O)[O-]",), "charge"),
        (("O", "--method", "flow"), "random, packmol"),
        (("O", "--density", "0"), "density"),
        (("O", "-o", "out.cif"), ".extxyz"),
    ],
)
def test_what_cannot_be_packed_is_refused_and_nothing_is_written(clusters, tmp_path, words, said):
    output = () if "-o" in words else ("-o", tmp_path / "out.extxyz")
    code, _, err = clusters(*words, *output)
    assert code == 2 and said in err and not list(tmp_path.iterdir())


def test_a_list_of_several_molecules_is_no_species(clusters, tmp_path):
    (tmp_path / "a.smi").write_text("O\nC\n")
    code, _, err = clusters(tmp_path / "a.smi", "-o", tmp_path / "out.extxyz")
    assert code == 2 and "one file for each" in err
