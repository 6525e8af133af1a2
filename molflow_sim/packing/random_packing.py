"""Random packings: space group and site by frequency, cell volume from the molecule's, everything else uniform.

They are one endless list for each seed: packing i has its own stretch of a counter-based stream of random numbers
(Philox: J. Salmon et al., SC '11), so that it is the same in whatever pieces the list is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from molflow_sim.errors import InputError, SpaceGroupError
from molflow_sim.flow.priors import ANGLE_TRIES, rotations, sensible_angles
from molflow_sim.packing.packings import RigidPackings
from molflow_sim.symmetry.placements import COMMON_SPACE_GROUPS, MIRROR_GROUPS, Placement, general_placement
from molflow_sim.symmetry.spacegroup import SpaceGroup, cell_matrix

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

PACKING_COEFFICIENT = (0.50, 0.62)
"""Range of (molecular volume)/(cell volume per molecule) that a packing starts from."""
LENGTH_SPREAD = 0.4
"""Standard deviation of the logarithms of the cell lengths."""
DIGITS = 10
"""Decimals of what a press starts from. The rest differs between processors, and a hundred steps would amplify it."""
SPECIAL_SHARE = 0.5
"""Share of a group's candidates that go to special positions where the molecule has the symmetry."""


def placements_for(
    molecule: Molecule, space_groups: str | Sequence[str] = "common", z_prime: int = 1
) -> tuple[list[Placement], np.ndarray]:
    """Placements a molecule can take, with their shares of the candidates.

    Parameters
    ----------
    molecule : Molecule
        Chiral molecules get Sohncke groups only.
    space_groups : "common" or sequence of str
        Named groups share the candidates equally.
    z_prime : int
        Molecules in the asymmetric unit; special positions are used when it is 1.

    Raises
    ------
    SpaceGroupError
        If a named group is unknown or cannot host the molecule.
    """
    from molflow_sim.symmetry.sites import special_placements

    if isinstance(space_groups, str) and space_groups != "common":
        space_groups = [space_groups]
    if space_groups == "common":
        table = COMMON_SPACE_GROUPS
        if molecule.is_enantiopure:
            table = {k: v for k, v in table.items() if SpaceGroup.from_name(k[0]).is_sohncke}
    else:
        table = {(SpaceGroup.from_name(name).name,): 1.0 for name in space_groups}
        for (name,) in table:
            if molecule.is_enantiopure and not SpaceGroup.from_name(name).is_sohncke:
                raise SpaceGroupError(
                    f"{name} holds improper operations, but {molecule.smiles} is enantiopure; name a Sohncke group "
                    "(P 1, P 1 21 1, P 21 21 21 ...) or leave the space group open"
                )
    point_groups = [molecule.point_group_operations(k)[0] for k in range(len(molecule.conformers))]
    population = molecule.shares
    placements: list[Placement] = []
    weights: list[float] = []
    for settings, share in table.items():
        for name in settings:
            part = share / len(settings)
            special = special_placements(SpaceGroup.from_name(name), point_groups) if z_prime == 1 else []
            scarce = name in MIRROR_GROUPS and space_groups == "common"
            general = part * (0.1 if scarce else 1.0)
            # Sites that only strained conformers can take get fewer candidates.
            reach = [float(population[fits(place)].sum()) for place in special]
            general *= 1.0 - SPECIAL_SHARE * max(reach, default=0.0)
            for place, r in zip(special, reach):
                placements.append(place)
                weights.append(part * SPECIAL_SHARE * r / len(special))
            placements.append(general_placement(name))
            weights.append(general)
    w = np.array(weights)
    return placements, w / w.sum()


def random_packings(
    molecule: Molecule,
    n: int,
    *,
    space_groups: str | Sequence[str] = "common",
    z_prime: int = 1,
    seed: int = 0,
    first_index: int = 0,
    packing_coefficient: tuple[float, float] = PACKING_COEFFICIENT,
) -> RigidPackings:
    """Random rigid packings `first_index` to `first_index` + n - 1 of a seed; molecules may overlap until the press.

    Parameters
    ----------
    molecule : Molecule
        All its conformers are used, in their shares.
    n : int
        How many.
    space_groups : "common" or sequence of str
        "common" draws from about thirty groups by their frequency among organic crystals.
    z_prime : int
        Molecules in the asymmetric unit, 1 to 4. With 1, molecules with symmetry also go to special positions.
    seed : int
    first_index : int
        Number of the first packing, kept in `RigidPackings.index`.
    packing_coefficient : (float, float)
        Range of (molecular volume)/(cell volume per molecule). The default leaves room to part molecules before the
        press closes the cell; crystals have 0.65 to 0.78.

    Raises
    ------
    SpaceGroupError
        Unknown space group, or one that cannot host an enantiopure molecule.
    InputError
        If `n`, `z_prime` or `packing_coefficient` is out of range.
    """
    if n < 1:
        raise InputError(f"at least one candidate is needed, got {n}")
    if not 0.0 < packing_coefficient[0] <= packing_coefficient[1] < 1.0:
        raise InputError(f"packing coefficients lie between 0 and 1, smaller first; got {packing_coefficient}")
    if not 1 <= z_prime <= 4:
        raise InputError(f"z_prime must be 1 to 4, got {z_prime}")
    placements, weights = placements_for(molecule, space_groups, z_prime)
    conformers = body_conformers(molecule)
    population = molecule.shares
    u = uniform_rows(seed, first_index, n, 11 + 6 * z_prime + 3 * ANGLE_TRIES)
    placement = _chosen(u[:, 0], weights)
    pick, kind, spin = u[:, 1], u[:, 2], 2.0 * np.pi * u[:, 3]
    conformer = _chosen(kind, population)
    coefficient = packing_coefficient[0] + u[:, 4] * (packing_coefficient[1] - packing_coefficient[0])
    along = u[:, None, 5:8]
    lengths = np.exp(LENGTH_SPREAD * ndtri(u[:, 8:11]))
    centroid, turns, angles = np.split(u[:, 11:], [3 * z_prime, 6 * z_prime], axis=1)
    centroid = centroid.reshape(n, z_prime, 3).copy()
    rotation = rotations(turns.reshape(n, z_prime, 3))
    parameters = np.concatenate([lengths, sensible_angles(angles.reshape(n, ANGLE_TRIES, 3))], 1)
    cell = np.empty((n, 3, 3))
    for k in np.unique(placement):
        rows = np.flatnonzero(placement == k)
        place = placements[k]
        group = SpaceGroup.from_name(place.space_group)
        p = parameters[rows]
        if group.crystal_system == "monoclinic":
            # The other settings are listed separately, so one sign of the skew covers all cells.
            p[:, 3:] = 90.0 + np.abs(p[:, 3:] - 90.0)
        shape = cell_matrix(group.constrain(p))
        volume = place.n_images * z_prime * molecule.volume / coefficient[rows]
        cell[rows] = shape * np.cbrt(volume / np.linalg.det(shape))[:, None, None]
        if not place.is_general:
            shift = (along[rows] @ cell[rows]) @ place.translation_projector.T
            centroid[rows] = place.site_centroid + shift @ np.linalg.inv(cell[rows])
            conformer[rows] = _chosen(kind[rows], np.where(fits(place), population, 0.0))
            start = place.orientations[conformer[rows], (pick[rows] * place.orientations.shape[1]).astype(int)]
            rotation[rows, 0] = _turns_of_site(place.rotation_projector, rotation[rows, 0], spin[rows]) @ start
    cell, centroid, rotation = (np.round(x, DIGITS) for x in (cell, centroid, rotation))
    return RigidPackings.proposed(
        molecule, conformers, placements, placement, conformer, cell, centroid, rotation, first_index + np.arange(n)
    )


def fits(place: Placement) -> np.ndarray:
    """Boolean (K,): which conformers have the symmetry of the site."""
    return np.isfinite(place.orientations[:, 0, 0, 0])


def uniform_rows(seed: int, first: int, n: int, width: int) -> np.ndarray:
    """Rows `first` to `first` + n - 1 of a seed's endless table of numbers (n, width) uniform in (0, 1)."""
    blocks = -(-width // 4)  # Philox makes four numbers a count
    stream = np.random.Philox(np.random.SeedSequence(seed)).advance(first * blocks)
    return np.maximum(np.random.Generator(stream).random((n, 4 * blocks))[:, :width], 1e-300)


def _chosen(u: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Indices (n,) that uniform numbers u (n,) choose by weight."""
    edges = np.cumsum(weights)
    return np.searchsorted(edges[:-1] / edges[-1], u, side="right")


def _turns_of_site(projector: np.ndarray, free: np.ndarray, spin: np.ndarray) -> np.ndarray:
    """Rotations (n, 3, 3) a site allows: any (`free`), about its axis by `spin` (rad), or none."""
    dimension = round(float(np.trace(projector)))
    if dimension == 3:
        return free
    if dimension == 0:
        return np.broadcast_to(np.eye(3), free.shape)
    axis = np.linalg.svd(projector)[0][:, 0]
    cross = np.cross(np.eye(3), axis).T
    s, c = np.sin(spin)[:, None, None], np.cos(spin)[:, None, None]
    return np.eye(3) + s * cross + (1.0 - c) * (cross @ cross)


def body_conformers(molecule: Molecule) -> np.ndarray:
    """Conformers (K, N, 3) in Å as generators use them: centred, and symmetrised where nearly symmetric."""
    return np.round([molecule.symmetrised(k) for k in range(len(molecule.conformers))], DIGITS - 1)
