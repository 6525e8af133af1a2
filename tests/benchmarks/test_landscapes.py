"""What the tables of the landscapes benchmark say follows from energies and references."""

import numpy as np
import pytest

from benchmarks.landscapes import lattice_table, relaxed_table, scores


def test_an_energy_with_another_zero_is_right() -> None:
    truth = np.random.default_rng(0).normal(size=30)
    assert scores(truth, truth - 4000.0) == pytest.approx((1.0, 1.0, 0.0))


def test_the_opposite_order_finds_none_of_the_lowest() -> None:
    truth = np.arange(30.0)
    rho, top, mae = scores(truth, -truth)
    assert (rho, top) == (-1.0, 0.0) and mae == pytest.approx(15.0)


def test_lattice_energies_of_which_best_is_refused_count_in_the_column_of_all_only() -> None:
    base = dict.fromkeys(("fit", "fit-hf", "so3lr", "best", "between"), -50.0) | {"potential": None, "reference": -50.0}
    rows = [base | {"reason": ""}, base | {"best": 350.0, "reason": "fit and so3lr differ"}]
    (best,) = (row for row in lattice_table({"as given": rows}) if row["energy"] == "best")
    assert (best["MAE, all 2"], best["MAE, 1 not refused"]) == ("200.0", "0.0")


def test_a_structure_that_moved_to_another_packing_is_left_out_of_the_second_half() -> None:
    energies = ("potential", "so3lr", "plain", "former", "fit-hf", "best")
    single = [{"id": str(k), "reference": float(k), **dict.fromkeys(energies, float(k))} for k in range(20)]
    relaxed = [{"id": r["id"], **{on: r | {"rmsd": 0.1} for on in ("potential", "best")}} for r in single]
    relaxed[0]["best"] |= {"rmsd": None, "best": 99.0}
    table = relaxed_table({"toy": single}, {"toy": relaxed})
    rows = {r["structures"]: r for r in table if (r["geometry"], r["energy"]) == ("relaxed on best", "best")}
    assert rows["all: 20"]["mean"] != rows["packing kept: 19"]["mean"] == "1.00 / 1.00 / 0.0"
