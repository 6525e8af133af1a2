"""The scientific steps of a screening as plain functions: arrays or crystals in, arrays or crystals out.

`Stages` bundles them, so that the pipeline knows none of their modules and a test can put cheap ones in their place.
Every batch function here returns the bytes that the store keeps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.forcefield.parameters import MoleculeParameters, parametrize
from molflow_sim.forcefield.sites import charge_sites as sites
from molflow_sim.generators.protocol import CrystalRequest
from molflow_sim.packing.packings import RigidPackings
from molflow_sim.packing.press import press
from molflow_sim.screening.failures import together
from molflow_sim.screening.serialise import crystal_from_json, crystal_to_json, from_bytes, to_bytes
from molflow_sim.screening.settings import ScreenSettings

if TYPE_CHECKING:
    from molflow_sim.energies.models import Value
    from molflow_sim.evaluate.vibrations import Vibrations
    from molflow_sim.generators.protocol import Generator
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule


# -- the steps, each from the module that owns it ---------------------------------------------------------------------

load_packings = RigidPackings.load


def distil(molecule: Molecule, parameters: MoleculeParameters, seed: int, say: Callable[[str], None]) -> bytes:
    """The molecule's own potential, as `with_bespoke` reads it."""
    from molflow_sim.bespoke import DistilSettings
    from molflow_sim.bespoke import distil as implementation

    return implementation(molecule, DistilSettings(seed=seed), start=parameters, progress=say).to_bytes()


def with_bespoke(molecule: Molecule, data: bytes) -> tuple[MoleculeParameters, dict[str, Any]]:
    """Stored parameters of the molecule's own, and what the report says about them."""
    from molflow_sim.bespoke import Bespoke

    own = Bespoke.from_bytes(data, molecule)
    told = own.report
    sides = {"FIT": told.fit, "bespoke": told.bespoke}
    figures = {
        f"{name}: ρ, rms in kJ/mol": f"{a.rho:.3f}, {a.rms:.2f}; lowest third {a.rho_low:.3f}, {a.rms_low:.2f}"
        for name, a in sides.items()
    }
    judged = f"{told.n_held_out} packings held out of the fit, against {told.teacher}"
    return own.parameters, {"used": "bespoke" if told.kept else "FIT", "judged by": judged, **figures}


def generate(generator: Generator, request: CrystalRequest, n: int, seed: int, first_index: int = 0) -> Any:
    """Candidates of a generator as `RigidPackings`, see `Generator.sample`."""
    from molflow_sim.packing.candidates import packings_of

    drawn = generator.sample(request, n, seed=seed, first_index=first_index)
    return packings_of(drawn, request.molecule)


def deduplicate_packings(crystals: Sequence[MolecularCrystal], energies: np.ndarray) -> np.ndarray:
    """For each packing the index of the one that stands for it."""
    from molflow_sim.evaluate.deduplicate import deduplicate_packings as implementation

    return np.asarray(implementation(crystals, energies))


def deduplicate_crystals(crystals: Sequence[MolecularCrystal], energies: np.ndarray) -> np.ndarray:
    """For each crystal the index of the one that stands for it."""
    from molflow_sim.evaluate.deduplicate import deduplicate_crystals as implementation

    # The mirror image of an enantiopure crystal is another substance.
    mirror = not any(m.is_enantiopure for c in crystals[:1] for m in c.molecules)
    return np.asarray(implementation(crystals, energies, allow_inversion=mirror))


def evaluate(crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters) -> np.ndarray:
    """Energies per molecule in eV with the full potential (Ewald sums), shape (n,)."""
    import torch
    import torch_sim

    from molflow_sim.forcefield import CrystalPotential

    potential = CrystalPotential([parameters], compute_stress=False)
    state = torch_sim.initialize_state([c.to_ase() for c in crystals], potential.device, potential.dtype)
    with torch.no_grad():
        energy = potential(state)["energy"]
    return energy.double().cpu().numpy() / np.array([c.z for c in crystals])


def free(crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters) -> list[Any]:
    """Loose relaxation with flexible molecules and free cells (list of `RelaxResult`, energies in eV per molecule).

    For an order of thousands: energies are some .4 kJ/mol from those of the minimum, at a quarter of the cost.
    """
    from molflow_sim.forcefield import CrystalPotential
    from molflow_sim.relax.flexible import relax_flexible

    potential = CrystalPotential([parameters], cutoff=10.0)
    return list(relax_flexible(crystals, potential, fmax=0.05, max_stress_gpa=0.3, max_steps=60, batch_size=128))


def relax(crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters) -> list[Any]:
    """Relaxation with flexible molecules and free cells (list of `RelaxResult`, energies in eV per molecule)."""
    from molflow_sim.forcefield import CrystalPotential
    from molflow_sim.relax.flexible import relax_flexible

    return list(relax_flexible(crystals, CrystalPotential([parameters])))


def refine(crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters, spec: str) -> list[Any]:
    """Relaxation on the potential of what ``best`` is (list of `RelaxResult`, energies in eV per molecule)."""
    from molflow_sim.energies import best_potential
    from molflow_sim.relax.flexible import relax_flexible

    return list(relax_flexible(crystals, best_potential([parameters], spec), max_steps=300))


def energies(spec: str, crystals: Sequence[MolecularCrystal], parameters: MoleculeParameters) -> list[Value]:
    """Energies of the model of a name with those of its members, eV per molecule."""
    from molflow_sim.energies import energy_model

    return energy_model(spec).evaluate(crystals, parameters)


def vibrations(crystal: MolecularCrystal, parameters: MoleculeParameters, spec: str) -> Vibrations:
    """Harmonic modes on the potential that the crystal was relaxed on: that of what ``best`` is, or the force field."""
    from molflow_sim.energies import best_potential
    from molflow_sim.evaluate.vibrations import crystal_vibrations
    from molflow_sim.forcefield import CrystalPotential

    plain = CrystalPotential([parameters], compute_stress=False)
    potential = plain if spec == "potential" else best_potential([parameters], spec)
    return crystal_vibrations(crystal, potential)


def validity(crystal: MolecularCrystal, settings: ScreenSettings) -> Any:
    """Validity columns of a relaxed crystal (`Validity`)."""
    from molflow_sim.evaluate.validity import ValidityThresholds, check_validity

    limits = ValidityThresholds(min_density=settings.minimum_density, max_density=settings.maximum_density)
    return check_validity(crystal, thresholds=limits)


def similarity(a: MolecularCrystal, b: MolecularCrystal) -> Any:
    """RMSD15 (`PackingMatch`)."""
    from molflow_sim.evaluate import packing_similarity

    return packing_similarity(a, b, n=15)


@dataclass(frozen=True)
class Stages:
    """The steps a screening is made of."""

    parametrize: Callable[..., Any] = parametrize
    sites: Callable[..., Any] = sites
    distil: Callable[..., bytes] = distil
    generate: Callable[..., Any] = generate
    press: Callable[..., Any] = press
    load_packings: Callable[..., Any] = load_packings
    deduplicate_packings: Callable[..., Any] = deduplicate_packings
    deduplicate_crystals: Callable[..., Any] = deduplicate_crystals
    free: Callable[..., Any] = free
    evaluate: Callable[..., Any] = evaluate
    relax: Callable[..., Any] = relax
    refine: Callable[..., Any] = refine
    energies: Callable[..., Any] = energies
    vibrations: Callable[..., Any] = vibrations
    validity: Callable[..., Any] = validity
    similarity: Callable[..., Any] = similarity


# -- batches: what a worker runs and the store keeps ------------------------------------------------------------------


@dataclass(frozen=True)
class Shared:
    """What all batches of a run need; sent once to each worker."""

    stages: Stages
    molecule: Any
    parameters: Any
    settings: ScreenSettings
    fit: Any = None

    @property
    def ranking(self) -> Any:
        """Parameters of the force field as a member of what ranks, also where another potential searches."""
        return self.parameters if self.fit is None else self.fit


def press_batch(shared: Shared, index: int) -> bytes:
    """Generate and press batch `index`; the bytes of a `RigidPackings` file."""
    settings = shared.settings
    request = CrystalRequest(shared.molecule, settings.space_groups, settings.z_prime)
    packings = shared.stages.generate(
        settings.make_generator(), request, settings.size_of_batch(index), settings.seed, index * settings.batch_size
    )
    packings = shared.stages.press(packings, shared.parameters)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packings.npz"
        packings.save(path)
        return path.read_bytes()


def read_packings(shared: Shared, data: bytes) -> Any:
    """The packings of a stored batch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packings.npz"
        path.write_bytes(data)
        return shared.stages.load_packings(path, shared.molecule)


def evaluate_batch(shared: Shared, item: Sequence[dict[str, Any]]) -> bytes:
    """Energies (eV per molecule) of stored crystals; null with a reason where one fails."""
    crystals = [crystal_from_json(data, [shared.molecule]) for data in item]
    energies = together(lambda c: shared.stages.evaluate(c, shared.parameters), crystals, lambda reason: float("nan"))
    return to_bytes([float(e) if np.isfinite(e) else None for e in energies])


def free_batch(shared: Shared, item: Sequence[dict[str, Any]]) -> bytes:
    """Relax stored crystals loosely; for each the crystal and its energy, or null and the reason."""
    return to_bytes(_relaxed_rows(shared, item, shared.stages.free, _freed_row))


def relax_batch(shared: Shared, item: Sequence[dict[str, Any]]) -> bytes:
    """Relax stored crystals together; one row each, with a reason instead of a crystal where it failed."""
    return to_bytes(_relaxed_rows(shared, item, shared.stages.relax, _relaxed_row))


def refine_batch(shared: Shared, item: tuple[str, Sequence[dict[str, Any]]]) -> bytes:
    """Relax stored crystals on what ``best`` is for them; energies are those of it there, with its members'."""
    spec, stored = item
    relaxer = partial(shared.stages.refine, spec=spec)
    rows = _relaxed_rows(replace(shared, parameters=shared.ranking), stored, relaxer, _relaxed_row)
    for row in rows:
        if row["crystal"] is not None:
            crystal = crystal_from_json(row["crystal"], [shared.molecule])
            value = shared.stages.energies(spec, [crystal], shared.ranking)[0]
            row |= {"energy": value.energy, "parts": value.parts}
            if not np.isfinite(value.energy):
                row |= {"crystal": None, "energy": None, "reason": value.reason}
    return to_bytes(rows)


def _relaxed_rows(
    shared: Shared,
    item: Sequence[dict[str, Any]],
    relaxer: Callable[..., Any],
    row: Callable[[Shared, Any], dict[str, Any]],
) -> list[dict[str, Any]]:
    crystals = [crystal_from_json(data, [shared.molecule]) for data in item]

    def step(some: Sequence[Any]) -> list[dict[str, Any]]:
        return [row(shared, r) for r in relaxer(some, shared.parameters)]

    return together(step, crystals, lambda why: {"crystal": None, "energy": None, "reason": why}, "relaxation failed: ")


def _freed_row(shared: Shared, result: Any) -> dict[str, Any]:
    if result.crystal is None or not np.isfinite(result.energy):
        return {"crystal": None, "energy": None, "reason": result.reason or "relaxation gave no finite energy"}
    return {"crystal": crystal_to_json(result.crystal), "energy": float(result.energy)}


def _relaxed_row(shared: Shared, result: Any) -> dict[str, Any]:
    freed = _freed_row(shared, result)
    if freed["crystal"] is None:
        return freed
    stress = float(result.residual_stress_gpa)
    valid = shared.stages.validity(result.crystal, shared.settings)
    return {
        **freed,
        "converged": bool(result.converged and stress <= shared.settings.maximum_stress),
        "max_force": float(result.max_force),
        "residual_stress_gpa": stress,
        "n_steps": int(result.n_steps),
        "reason": str(result.reason or ""),
        "valid": bool(valid.valid),
        "invalid_because": list(valid.reasons),
    }


def stored_charges(parameters: Any) -> bytes:
    """Charges as the store keeps them, since some models take minutes to compute."""
    return to_bytes({"charges": np.asarray(parameters.charges).tolist(), "model": parameters.charge_model})


def with_charges(parameters: Any, data: bytes) -> Any:
    """Parameters with stored charges."""
    stored = from_bytes(data)
    return replace(parameters, charges=np.array(stored["charges"]), charge_model=stored["model"])
