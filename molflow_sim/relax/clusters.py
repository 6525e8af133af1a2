"""Relaxation of clusters: first their molecules as rigid bodies, then all atoms; boxes stay as they are.

Loose molecules have far to go along soft ways, on which the stiff bonds would allow small steps only: the rigid stage
takes a tenth of the evaluations. Both are L-BFGS (SciPy's L-BFGS-B without bounds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch_sim as ts
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from molflow_sim.errors import NonFiniteError
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.threads import one_torch_thread

MEMORY = 30
RIGID_SHARE = 0.4
"""Of the evaluations, at most, that the rigid stage takes."""
CHART = 60
"""Iterations after which rotation vectors are counted from the orientations reached, far from their singular point."""
HUGE = 1e12
"""eV: where the energy is not finite, so that a line search steps back."""


@dataclass(frozen=True, eq=False)
class ClusterRelaxation:
    """Outcome of one relaxation.

    Attributes
    ----------
    cluster : MolecularCluster
        Relaxed; the start where it failed outright.
    energy : float
        eV per molecule; NaN where it is not finite.
    converged : bool
    max_force : float
        Longest force on an atom, eV/Å.
    n_steps : int
        Energy evaluations.
    reason : str
        Why it did not converge; empty if it did.
    """

    cluster: MolecularCluster
    energy: float
    converged: bool
    max_force: float
    n_steps: int
    reason: str


def relax_cluster(
    cluster: MolecularCluster, potential: Any, *, fmax: float = 0.02, max_steps: int = 1500, rigid: bool = True
) -> ClusterRelaxation:
    """Take a cluster to the nearest minimum.

    Parameters
    ----------
    cluster : MolecularCluster
    potential : CrystalPotential, EnsemblePotential or another torch-sim model
        Of the cluster's species.
    fmax : float
        Longest force, eV/Å.
    max_steps : int
        Energy evaluations in all.
    rigid : bool
        Whether the molecules move as rigid bodies first.

    Raises
    ------
    CrystalError
        The potential is of other molecules.
    """
    evaluate = Evaluations(cluster, potential)
    x = cluster.positions
    with one_torch_thread():
        energy, forces = evaluate(x)
        if not np.isfinite(energy):
            reason = NonFiniteError("the energy is not finite: atoms overlap, or molecules are torn").reason
            return ClusterRelaxation(cluster, np.nan, False, np.nan, evaluate.count, reason)
        component = fmax / np.sqrt(3.0)
        if rigid and cluster.n_molecules > 1:
            while evaluate.count < RIGID_SHARE * max_steps:
                body = RigidBodies(cluster, x)
                left = int(RIGID_SHARE * max_steps) - evaluate.count
                found = minimised(lambda q, b=body: b.energy(q, evaluate), body.zero, component, CHART, left)  # type: ignore[misc]
                x = body.positions(found.x)[0]
                if found.nit < CHART:
                    break
        left = max(max_steps - evaluate.count, 1)
        found = minimised(lambda q: plain(q, evaluate), x.ravel(), component, left, left)
        x = found.x.reshape(-1, 3)
        energy, forces = evaluate(x)
    force = float(np.linalg.norm(forces, axis=1).max())
    converged = bool(np.isfinite(energy) and force <= fmax)
    reason = "" if converged else f"not converged after {evaluate.count} steps: a force of {force:.3f} eV/Å is left"
    return ClusterRelaxation(
        cluster.with_positions(x), float(energy) / cluster.n_molecules, converged, force, evaluate.count, reason
    )


def single_point(cluster: MolecularCluster, potential: Any) -> tuple[float, float]:
    """Energy in eV per molecule, and the longest force in eV/Å, of a cluster as it is."""
    with one_torch_thread():
        energy, forces = Evaluations(cluster, potential)(cluster.positions)
    return energy / cluster.n_molecules, float(np.linalg.norm(forces, axis=1).max())


class Evaluations:
    """Energy and forces of a cluster at other positions, counted."""

    def __init__(self, cluster: MolecularCluster, potential: Any) -> None:
        self._state = ts.io.atoms_to_state([cluster.to_ase()], torch.device("cpu"), torch.float64)
        self._potential, self.count = potential, 0
        if hasattr(potential, "symmetric"):
            potential.symmetric(None)
        if hasattr(potential, "forget"):
            potential.forget()

    def __call__(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        self.count += 1
        self._state.positions = torch.as_tensor(np.ascontiguousarray(positions))
        out = self._potential(self._state)
        return float(out["energy"][0]), out["forces"].double().numpy()


class RigidBodies:
    """Coordinates of rigid molecules: shifts, and rotation vectors times their radii of gyration, all in Å."""

    def __init__(self, cluster: MolecularCluster, positions: np.ndarray) -> None:
        self._owner, self._firsts = cluster.molecule_index, cluster.firsts
        sizes = cluster.sizes[:, None]
        self._centres = np.add.reduceat(positions, self._firsts) / sizes
        self._arms = positions - self._centres[self._owner]
        squares = np.add.reduceat((self._arms**2).sum(1), self._firsts) / sizes[:, 0]
        self._radius = np.sqrt(np.maximum(squares, 0.01))[:, None]
        self.zero = np.zeros(6 * cluster.n_molecules)

    def positions(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Atoms (N, 3), their arms (N, 3) and the rotation vectors (n, 3)."""
        shift, vector = np.split(q.reshape(-1, 6), 2, axis=1)
        vector = vector / self._radius
        turn = Rotation.from_rotvec(vector).as_matrix()[self._owner]
        arms = np.einsum("nij,nj->ni", turn, self._arms)
        return (self._centres + shift)[self._owner] + arms, arms, vector

    def energy(
        self, q: np.ndarray, evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]]
    ) -> tuple[float, np.ndarray]:
        x, arms, vector = self.positions(q)
        energy, forces = evaluate(x)
        if not np.isfinite(energy):
            return HUGE, np.zeros_like(q)
        torque = np.add.reduceat(np.cross(arms, forces), self._firsts)
        turning = np.einsum("nji,nj->ni", _left_jacobian(vector), torque) / self._radius
        return energy, -np.concatenate([np.add.reduceat(forces, self._firsts), turning], axis=1).ravel()


def _left_jacobian(vector: np.ndarray) -> np.ndarray:
    """J (n, 3, 3): a change dv of a rotation vector turns the body by J dv, in the space frame."""
    angle = np.maximum(np.linalg.norm(vector, axis=1), 1e-8)[:, None, None]
    cross = np.zeros((len(vector), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = vector
    cross -= cross.transpose(0, 2, 1)
    return np.asarray(
        np.eye(3) + (1 - np.cos(angle)) / angle**2 * cross + (angle - np.sin(angle)) / angle**3 * (cross @ cross)
    )


def plain(q: np.ndarray, evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]]) -> tuple[float, np.ndarray]:
    """Energy in eV and gradient (3 N,) in eV/Å at positions (3 N,) in Å; `HUGE` and none where it is not finite.

    `evaluate` takes positions (N, 3) to the energy and the forces (N, 3).
    """
    energy, forces = evaluate(q.reshape(-1, 3))
    return (energy, -forces.ravel()) if np.isfinite(energy) else (HUGE, np.zeros_like(q))


def minimised(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, gtol: float, most: int, calls: int
) -> Any:
    """SciPy's result of L-BFGS from `start`.

    Parameters
    ----------
    function : callable
        Coordinates (n,) to energy and gradient (n,).
    start : ndarray (n,)
    gtol : float
        Largest component of the gradient at the end.
    most, calls : int
        Iterations and evaluations at most.
    """
    options = {"maxcor": MEMORY, "gtol": gtol, "ftol": 1e-13, "maxiter": most, "maxfun": max(calls, 1)}
    return minimize(function, start, jac=True, method="L-BFGS-B", options=options)
