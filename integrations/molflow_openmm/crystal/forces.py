"""The terms of the crystal potential as OpenMM forces.

Functional forms and parameters are those of `molflow_sim.forcefield`; here they are written as OpenMM expressions
and converted once from eV, Å to kJ/mol, nm. Expressions keep Å inside (``10*r``), so that they read like the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import openmm

from molflow_sim.forcefield.mmff import MMFFTerms
from molflow_sim.forcefield.parameters import MoleculeParameters
from molflow_sim.units import KJ_PER_MOL

EV = 1.0 / KJ_PER_MOL
"""1 eV in kJ/mol."""
GROUPS = {"intramolecular": 0, "exp-6": 1, "electrostatics": 2}
"""Force group of each part, for energies by part or multiple time steps."""

_BOND = "0.5*k*d^2*(1-2*d+7/3*d^2); d=10*(r-r0)"
_ANGLE = "0.5*k*t^2*(1-0.4*t); t=theta-theta0"
_LINEAR = "k*(1+cos(theta))"
_STRETCH_BEND = "10*(k0*(distance(p1,p2)-r0)+k1*(distance(p3,p2)-r1))*(angle(p1,p2,p3)-theta0)"
# The Wilson angle χ between bond j-l and the plane i, j, k: sin χ = sin(k-j-l) sin(dihedral about j-k).
_OUT_OF_PLANE = "0.5*k*asin(s)^2; s=sin(angle(p3,p2,p4))*sin(dihedral(p1,p2,p3,p4))"
_PAIR = "epsilon*(1.07*R/(x+0.07*R))^7*(1.12*R^7/(x^7+0.12*R^7)-2)+q/(x+0.05); x=10*r"  # buffered 14-7 and Coulomb
_EXP6 = "a1*a2*exp(-(b1+b2)*x)+c1*c2*s*(guard*s-1); s=1/x^6; x=10*r"


def named(force: openmm.Force, name: str, group: str) -> openmm.Force:
    """A force with its name and one of `GROUPS`."""
    force.setName(name)
    force.setForceGroup(GROUPS[group])
    return force


def intramolecular_forces(terms: Sequence[MMFFTerms], order: Iterable[tuple[int, int]]) -> list[openmm.Force]:
    """MMFF94 terms of every molecule, one force per kind of term.

    Parameters
    ----------
    terms : sequence of MMFFTerms
        Terms of each species.
    order : iterable of (species, first atom)
        Every molecule of the box: its species and the index of its first atom.

    Returns
    -------
    list of openmm.Force
        Forces that have at least one term. They do not apply periodic boundary conditions: molecules are whole.
    """
    bond = _custom(openmm.CustomBondForce(_BOND), "k", "r0")
    angle = _custom(openmm.CustomAngleForce(_ANGLE), "k", "theta0")
    linear = _custom(openmm.CustomAngleForce(_LINEAR), "k")
    stretch_bend = _custom(openmm.CustomCompoundBondForce(3, _STRETCH_BEND), "k0", "k1", "r0", "r1", "theta0")
    out_of_plane = _custom(openmm.CustomCompoundBondForce(4, _OUT_OF_PLANE), "k")
    torsion = openmm.PeriodicTorsionForce()
    pair = _custom(openmm.CustomBondForce(_PAIR), "R", "epsilon", "q")
    rows = [_rows(t) for t in terms]
    for species, first in order:
        r = rows[species]
        for (i, j), p in r["bond"]:
            bond.addBond(first + i, first + j, p)
        for (i, j, k), p in r["angle"]:
            angle.addAngle(first + i, first + j, first + k, p)
        for (i, j, k), p in r["linear"]:
            linear.addAngle(first + i, first + j, first + k, p)
        for atoms, p in r["stretch_bend"]:
            stretch_bend.addBond([first + i for i in atoms], p)
        for atoms, p in r["out_of_plane"]:
            out_of_plane.addBond([first + i for i in atoms], p)
        for (i, j, k, l), (n, phase, barrier) in r["torsion"]:
            torsion.addTorsion(first + i, first + j, first + k, first + l, n, phase, barrier)
        for (i, j), p in r["pair"]:
            pair.addBond(first + i, first + j, p)
    made = (
        (bond, "MMFF94 bonds", bond.getNumBonds()),
        (angle, "MMFF94 angles", angle.getNumAngles()),
        (linear, "MMFF94 linear angles", linear.getNumAngles()),
        (stretch_bend, "MMFF94 stretch-bends", stretch_bend.getNumBonds()),
        (out_of_plane, "MMFF94 out-of-planes", out_of_plane.getNumBonds()),
        (torsion, "MMFF94 torsions", torsion.getNumTorsions()),
        (pair, "MMFF94 pairs", pair.getNumBonds()),
    )
    return [named(force, name, "intramolecular") for force, name, count in made if count]


def _custom(force: openmm.Force, *parameters: str) -> openmm.Force:
    """Declare the per-term parameters of a custom force."""
    adder = getattr(force, "addPerAngleParameter", None) or force.addPerBondParameter
    for name in parameters:
        adder(name)
    return force


def _rows(t: MMFFTerms) -> dict[str, list[tuple]]:
    """One molecule's terms as (atoms, OpenMM parameters); energies in kJ/mol, lengths as the expressions want them."""
    torsions = []
    for atoms, barriers in zip(t.torsions.tolist(), 0.5 * EV * t.torsion_v):
        for n, phase, barrier in zip((1, 2, 3), (0.0, np.pi, 0.0), barriers.tolist()):
            if barrier:
                torsions.append((atoms, (n, phase, barrier)))
    return {
        "bond": _zip(t.bonds, EV * t.bond_k, 0.1 * t.bond_r0),
        "angle": _zip(t.angles, EV * t.angle_k, t.angle_theta0),
        "linear": _zip(t.linear_angles, EV * t.linear_k),
        "stretch_bend": _zip(t.stretch_bends, EV * t.stretch_bend_k, 0.1 * t.stretch_bend_r0, t.stretch_bend_theta0),
        "out_of_plane": _zip(t.out_of_planes, EV * t.out_of_plane_k),
        "torsion": torsions,
        "pair": _zip(t.pairs, t.vdw_r, EV * t.vdw_epsilon, EV * t.coulomb),
    }


def _zip(index: np.ndarray, *parameters: np.ndarray) -> list[tuple]:
    return list(zip(index.tolist(), np.column_stack(parameters).tolist())) if len(index) else []


def exp6_force(
    species: Sequence[MoleculeParameters],
    order: Sequence[tuple[int, int]],
    *,
    cutoff: float | None,
    switch_width: float,
    guard_radius: float,
    dispersion_correction: bool,
) -> openmm.CustomNonbondedForce:
    """Guarded Buckingham exp-6 between atoms of different molecules.

    Parameters
    ----------
    species : sequence of MoleculeParameters
        Parameters of each species.
    order : sequence of (species, first atom)
        Every molecule of the box.
    cutoff, switch_width : float
        Å. The quintic switch runs over the last `switch_width` before the cutoff. No cutoff: all pairs, in open space.
    guard_radius : float
        Radius of the repulsive C (guard/r²)⁶ term, Å.
    dispersion_correction : bool
        Add OpenMM's isotropic long-range correction (not part of `CrystalPotential`).

    Returns
    -------
    openmm.CustomNonbondedForce
        Every intramolecular pair is an exclusion.
    """
    force = openmm.CustomNonbondedForce(f"{_EXP6}; guard={guard_radius**6!r}")
    for name in ("a", "b", "c"):
        force.addPerParticleParameter(name)
    rows = [np.column_stack([np.sqrt(EV * p.exp6_a), 0.5 * p.exp6_b, np.sqrt(EV * p.exp6_c)]).tolist() for p in species]
    for s, _ in order:
        for row in rows[s]:
            force.addParticle(row)
    for i, j in molecule_pairs(species, order):
        force.addExclusion(i, j)
    if cutoff is None:
        return named(force, "exp-6", "exp-6")
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.1 * cutoff)
    if switch_width > 0:
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(0.1 * (cutoff - switch_width))
    force.setUseLongRangeCorrection(dispersion_correction)
    return named(force, "exp-6", "exp-6")


def electrostatic_force(
    species: Sequence[MoleculeParameters], order: Sequence[tuple[int, int]], *, cutoff: float | None, tolerance: float
) -> openmm.NonbondedForce:
    """Particle-mesh Ewald electrostatics between molecules: charges only, no Lennard-Jones.

    Parameters
    ----------
    species, order
        As in `exp6_force`.
    cutoff : float or None
        Real-space cutoff, Å; None for plain Coulomb in open space.
    tolerance : float
        OpenMM's PME error tolerance.

    Returns
    -------
    openmm.NonbondedForce
        Every intramolecular pair is an exception with zero charge product, so that its plain 1/r is removed.
    """
    force = charges_force(species, order)
    for i, j in molecule_pairs(species, order):
        force.addException(i, j, 0.0, 0.1, 0.0)
    if cutoff is not None:
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        force.setCutoffDistance(0.1 * cutoff)
        force.setEwaldErrorTolerance(tolerance)
    return named(force, "electrostatics", "electrostatics")


def charges_force(species: Sequence[MoleculeParameters], order: Sequence[tuple[int, int]]) -> openmm.NonbondedForce:
    """The charges of a box and nothing else: no Lennard-Jones, no exceptions, no cutoff yet."""
    force = openmm.NonbondedForce()
    for s, _ in order:
        for q in species[s].charges.tolist():
            force.addParticle(q, 0.1, 0.0)
    force.setUseDispersionCorrection(False)
    return force


def molecule_pairs(
    species: Sequence[MoleculeParameters], order: Sequence[tuple[int, int]]
) -> Iterable[tuple[int, int]]:
    """All pairs of atoms of the same molecule, i < j, over the whole box."""
    for s, first in order:
        n = len(species[s].numbers)
        for i in range(n):
            for j in range(i + 1, n):
                yield first + i, first + j
