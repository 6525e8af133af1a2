"""Body frames of rigid molecules from their geometry, and the axis-flip states χ of their copies.

A principal-axis frame has no signs of its own: eigenvectors may come out either way. Here a *canonical* form c of a
conformer is chosen by the geometry alone, over all candidate frames of O(3), so that mirror images share one form and
differ in their *hand* h = ±1. A copy in a crystal is then ::

    x_k = s L + R diag(χ) c_k ,     R proper,  χ ∈ {−1, +1}³,  χ₁ χ₂ χ₃ = h

(rows of L are the lattice vectors). The four χ of one hand describe the same copy with four different R;
`Poses.standard` picks (1, 1, h).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molflow_sim.errors import NonFiniteError

DEGENERATE = 0.03
"""Principal moments closer than this (relative to the largest) count as equal: their axes are then set by atoms."""
MATCH = 0.1
"""Å; a frame is equivalent to the canonical one if every atom lies this close to one of the same element."""
MAX_FRAMES = 4000
"""Candidate frames examined at most (spherical tops)."""
CHI_STATES = np.array([[i, j, k] for i in (1, -1) for j in (1, -1) for k in (1, -1)], dtype=float)
"""The eight axis-flip states (8, 3)."""
MIRROR = np.diag([1.0, 1.0, -1.0])


@dataclass(frozen=True, eq=False)
class BodyFrame:
    """The canonical form of a conformer and how to come back from it.

    Attributes
    ----------
    canonical : ndarray (N, 3)
        c in Å: the same, to the tolerance, for the conformer in any orientation and for its mirror image.
    rotation : ndarray (3, 3)
        Proper F with ``conformer_k = F diag(1, 1, hand) c_k``.
    hand : int
        +1 or −1; always +1 where the conformer equals its mirror image.
    achiral : bool
        Whether a proper rotation takes the conformer to its mirror image.
    symmetry : ndarray (K, 3, 3)
        Proper rotations of the frame that map c on itself (elements respected), the identity first.
    mirror : ndarray (3, 3)
        For an achiral conformer, an improper operation that maps c on itself; otherwise the identity.
    moments : ndarray (3,)
        Principal moments of the atoms' scatter in Å², largest first.
    """

    canonical: np.ndarray
    rotation: np.ndarray
    hand: int
    achiral: bool
    symmetry: np.ndarray
    mirror: np.ndarray
    moments: np.ndarray


def body_frame(numbers: np.ndarray, positions: np.ndarray) -> BodyFrame:
    """Canonical frame of a conformer.

    Parameters
    ----------
    numbers : ndarray (N,)
        Atomic numbers; they weight the moments.
    positions : ndarray (N, 3)
        Å, centred where the molecule's centroid shall be.

    Raises
    ------
    NonFiniteError
        If a coordinate is not finite.

    Notes
    -----
    Candidates are the principal axes with all eight sign choices; inside a degenerate subspace, directions towards
    atoms take the place of the arbitrary eigenvectors. Of all candidates the one whose list of moments (degrees three
    to five) is the lexicographically largest, to a tolerance, is kept; whatever remains tied is equivalent by symmetry.
    """
    x = np.asarray(positions, dtype=float)
    if not np.isfinite(x).all():
        raise NonFiniteError("a conformer holds NaN or infinite coordinates")
    numbers = np.asarray(numbers)
    weights = numbers / numbers.sum()
    centred = x - weights @ x
    values, vectors = np.linalg.eigh((centred * weights[:, None]).T @ centred)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    frames = _candidates(values, vectors, centred, numbers)
    scale = np.sqrt(values.sum()) or 1.0
    survivors = _select(frames, centred / scale, weights)
    proper = np.linalg.det(frames[survivors]) > 0
    # A mirror image that survived beside a proper frame: the conformer has no hand.
    first = survivors[np.argmax(proper)] if proper.any() else survivors[0]
    frame = frames[first]
    hand = 1 if np.linalg.det(frame) > 0 else -1
    canonical = x @ frame
    operations = np.einsum("ji,sjk->sik", frame, frames[survivors])  # c operation: the same set of points
    operations = np.concatenate([np.eye(3)[None], operations])
    operations = operations[_maps_on_itself(operations, canonical, numbers)]
    dets = np.linalg.det(operations)
    achiral = bool((dets < 0).any()) or bool(values[2] < 1e-8)
    mirror = operations[np.argmin(dets)] if (dets < 0).any() else (MIRROR if achiral else np.eye(3))
    if achiral and hand < 0:  # only where rounding split a tie
        frame, canonical, hand = frame @ mirror, canonical @ mirror, 1
    if hand < 0:
        frame = frame @ MIRROR
    return BodyFrame(canonical, frame, hand, achiral, _distinct(operations[dets > 0]), mirror, values)


def proper_pose(operation: np.ndarray, frame: BodyFrame) -> tuple[np.ndarray, int]:
    """Proper rotation and hand of the copy that an orthogonal matrix makes of a conformer.

    Parameters
    ----------
    operation : ndarray (3, 3)
        Q, proper or not; the copy's atoms are at Q b_k about its centroid.
    frame : BodyFrame
        Of the conformer b.

    Returns
    -------
    rotation : ndarray (3, 3)
        R with ``{Q b_k} = {R diag(1, 1, hand) c_k}``; for an achiral conformer the atoms can be matched to others of
        the same element.
    hand : int
    """
    rotation, hand = operation @ frame.rotation, frame.hand
    if np.linalg.det(operation) < 0:
        rotation, hand = rotation @ MIRROR, -hand
    if hand < 0 and frame.achiral:
        rotation, hand = rotation @ MIRROR @ frame.mirror, 1
    return rotation, hand


# ---------------------------------------------------------------------- candidates


def _candidates(values: np.ndarray, vectors: np.ndarray, x: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Orthonormal frames (S, 3, 3), axes in columns, of both hands."""
    gap = DEGENERATE * max(values[0], 1e-12)
    upper, lower = values[0] - values[1] < gap, values[1] - values[2] < gap
    if upper and lower:
        bases = _from_pairs(x, numbers)
    elif upper or lower:
        bases = _about_axis(vectors[:, 2 if upper else 0], x, 0 if upper else 1)
    else:
        bases = vectors[None]
    frames = bases[:, None] * CHI_STATES[None, :, None, :]
    return frames.reshape(-1, 3, 3)


def _about_axis(axis: np.ndarray, x: np.ndarray, first: int) -> np.ndarray:
    """Frames with one given axis and the others set by the directions of atoms across it; `first` is their column."""
    across = x - np.outer(x @ axis, axis)
    length = np.linalg.norm(across, axis=1)
    chosen = across[length > 0.3 * max(length.max(), 1e-3)]
    if length.max() < 1e-3:  # on a line: any direction
        chosen = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])[None]
    u = chosen / np.linalg.norm(chosen, axis=1)[:, None]
    w = np.cross(np.broadcast_to(axis, u.shape), u)
    full = np.broadcast_to(axis, u.shape)
    columns = (u, w, full) if first == 0 else (full, u, w)
    return np.stack(columns, axis=-1)


def _from_pairs(x: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Frames from pairs of atoms, for spherical tops: the outermost atoms of the rarest element first."""
    radius = np.linalg.norm(x, axis=1)
    if radius.max() < 1e-3:
        return np.eye(3)[None]
    off = np.flatnonzero(radius > 0.3 * radius.max())
    count = {z: int((numbers[off] == z).sum()) for z in np.unique(numbers[off])}
    rarest = min(count, key=lambda z: (count[z] == 1, count[z], -z))
    anchors = off[numbers[off] == rarest]
    frames = []
    for i in anchors:
        for j in anchors if len(anchors) > 1 else off:
            a = x[i] / radius[i]
            b = x[j] - (x[j] @ a) * a
            size = np.linalg.norm(b)
            if size > 0.2 * radius[j]:
                b = b / size
                frames.append(np.stack([a, b, np.cross(a, b)], axis=1))
    return np.array(frames[: MAX_FRAMES // 8]) if frames else np.eye(3)[None]


def _select(frames: np.ndarray, x: np.ndarray, weights: np.ndarray, tolerance: float = 5e-4) -> np.ndarray:
    """Indices of the frames whose moments are lexicographically largest, to a tolerance."""
    powers = [
        (3, 0, 0), (0, 3, 0), (0, 0, 3), (1, 2, 0), (1, 0, 2), (0, 1, 2), (2, 1, 0), (2, 0, 1), (0, 2, 1), (1, 1, 1),
        (3, 1, 0), (1, 3, 0), (3, 0, 1), (1, 0, 3), (0, 3, 1), (0, 1, 3), (5, 0, 0), (0, 5, 0), (0, 0, 5),
        (3, 1, 1), (1, 3, 1), (1, 1, 3), (4, 0, 0), (0, 4, 0), (6, 0, 0), (3, 3, 0), (5, 1, 0),
    ]  # fmt: skip
    coordinates = np.einsum("nj,sjk->snk", x, frames)
    alive = np.arange(len(frames))
    for a, b, c in powers:
        if len(alive) == 1:
            break
        y = coordinates[alive]
        moment = (weights * y[..., 0] ** a * y[..., 1] ** b * y[..., 2] ** c).sum(-1)
        alive = alive[moment > moment.max() - tolerance]
    return alive


def _maps_on_itself(operations: np.ndarray, x: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Which operations (S, 3, 3) put every atom within `MATCH` of one of the same element."""
    other = numbers[:, None] != numbers[None]
    good = np.zeros(len(operations), dtype=bool)
    for s, q in enumerate(operations):
        squared = ((x @ q)[:, None] - x[None]) ** 2
        distance = squared.sum(-1)
        distance[other] = np.inf
        good[s] = distance.min(1).max() < MATCH**2 and distance.min(0).max() < MATCH**2
    return good


def _distinct(operations: np.ndarray) -> np.ndarray:
    """The operations without repeats (to 5°), at most 24."""
    kept = [operations[0]]
    for q in operations[1:]:
        if len(kept) == 24:
            break
        if all(np.trace(q.T @ p) < 1.0 + 2.0 * np.cos(np.radians(5.0)) for p in kept):
            kept.append(q)
    return np.array(kept)
