"""Training pairs whose ends are where the press takes their starts: the coupling by basins of attraction."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.errors import MolflowError, TrainingError
from molflow_sim.models.crystal_flow.pairs import DENSE, EXCESS_UNIT, LARGEST_EXCESS, PairSet
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.dataset import CrystalDataset
    from molflow_sim.packing import RigidPackings

CONFORMERS = 10
"""Of a molecule at most, minima of its vacuum energy."""


def make_basin_pairs(
    dataset: CrystalDataset,
    starts: int = 4,
    *,
    seed: int = 0,
    scale: float = 8.0,
    packing_coefficient: tuple[float, float] = DENSE,
) -> PairSet:
    """Pair dense random packings of a data set's molecules with the minima that the press finds from them.

    No crystal of the data set is used but its molecule, and as many starts are drawn for a molecule as `make_pairs`
    would draw. Paths are the press's own, so ends need no nearest description; the lower the minimum, the oftener a
    pair is drawn.

    Parameters
    ----------
    dataset, starts, seed, scale, packing_coefficient
        As in `molflow_sim.models.crystal_flow.make_pairs`. Molecules that the potential does not know are left out,
        with a warning.

    Raises
    ------
    TrainingError
        If no molecule is left.
    """
    counts = Counter(dataset[i].smiles for i in range(len(dataset)))
    parts = []
    for k, (smiles, crystals) in enumerate(sorted(counts.items())):
        try:
            parts.append(_of_molecule(smiles, starts * crystals, (seed, k), scale, packing_coefficient))
        except MolflowError as error:
            warnings.warn(f"{smiles} is left out: {error.reason}", stacklevel=2)
    if not parts:
        raise TrainingError("no molecule of the data set could be packed and pressed")
    return PairSet.join(parts, [1.0] * len(parts))


def _of_molecule(
    smiles: str, n: int, seed: Sequence[int], scale: float, packing_coefficient: tuple[float, float]
) -> PairSet:
    from molflow_sim import Molecule
    from molflow_sim.forcefield import parametrize
    from molflow_sim.packing import press, random_packings
    from molflow_sim.packing.press import PressSettings

    molecule = Molecule.from_smiles(smiles, n_conformers=CONFORMERS)
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    start = random_packings(molecule, n, seed=number, packing_coefficient=packing_coefficient)
    # Reduced cells would break the path from start to end.
    end = press(start, parametrize(molecule), PressSettings(reduce_cells=False))
    good = np.flatnonzero(end.ok)
    if len(good) == 0:
        raise TrainingError(f"none of {n} packings could be pressed")
    return _pairs(start.select(good), end.select(good), scale)


def _pairs(start: RigidPackings, end: RigidPackings, scale: float) -> PairSet:
    from molflow_sim.symmetry.placements import stacked_operations

    places = start.placements
    frac_rot, frac_tran, cart_rot = stacked_operations(places)
    n = len(start)
    above = end.energy - end.energy.min()
    weight = np.exp(-above / (scale * KJ_PER_MOL))
    return PairSet(
        numbers=np.broadcast_to(np.asarray(start.molecule.numbers, np.int16), (n, start.molecule.n_atoms)).copy(),
        conformer=start.conformers[start.conformer],
        symmetry=np.asarray(start.placement, np.int32),
        excess=np.clip(above / EXCESS_UNIT, 0.0, LARGEST_EXCESS),
        weight=weight / weight.sum(),
        frac_rot=frac_rot,
        frac_tran=frac_tran,
        cart_rot=cart_rot,
        n_images=np.array([p.n_images for p in places]),
        site_translation=np.stack([p.translation_projector for p in places]),
        site_rotation=np.stack([p.rotation_projector for p in places]),
        record=np.arange(n),
        start_cell=start.cell,
        start_centroid=start.centroid[:, 0],
        start_rotation=start.rotation[:, 0],
        end_cell=end.cell,
        end_centroid=end.centroid[:, 0],
        end_rotation=end.rotation[:, 0],
    )
