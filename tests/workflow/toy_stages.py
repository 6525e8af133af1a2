"""Cheap stand-ins for the scientific steps: real packings and crystals, made-up energies."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from molflow_sim.energies.models import Value
from molflow_sim.evaluate import PackingMatch
from molflow_sim.evaluate.vibrations import Vibrations
from molflow_sim.forcefield import ChargeSites
from molflow_sim.packing.packings import STATUS
from molflow_sim.screening import Stages


@dataclass(frozen=True)
class Relaxed:
    crystal: Any
    energy: float
    converged: bool = True
    max_force: float = 0.001
    residual_stress_gpa: float = 0.01
    n_steps: int = 5
    reason: str = ""


@dataclass(frozen=True)
class Valid:
    valid: bool = True
    reasons: tuple[str, ...] = ()


Match = partial(PackingMatch, n=15)


def press(packings, parameters):
    """Blown up until no molecules touch; every tenth fails, energies fall with density."""
    packings = replace(packings, cell=2.5 * packings.cell)
    status = np.where(np.arange(len(packings)) % 10 == 3, STATUS.index("not converged"), 0).astype(np.int8)
    return replace(packings, energy=-packings.density, status=status)


def evaluate(crystals, parameters):
    return np.array([-c.density + 0.01 * np.sin(100 * c.density) for c in crystals])


def relax(crystals, parameters):
    return [Relaxed(c, float(e)) for c, e in zip(crystals, evaluate(crystals, parameters))]


def refine(crystals, parameters, spec):
    return relax(crystals, parameters)


def energies(spec, crystals, parameters):
    return [Value(2 * float(e), {"fit-hf": float(e), "so3lr": 3 * float(e)}) for e in evaluate(crystals, parameters)]


def vibrations(crystal, parameters, spec):
    """An Einstein crystal, the stiffer the denser."""
    return Vibrations(np.full(24, 50.0 + 1e4 * crystal.density), np.empty((0, 3)), 8, (1, 1, 1))


def sites(molecule):
    """Charges on the atoms alone, all zero."""
    return ChargeSites(np.eye(molecule.n_atoms), np.zeros(molecule.n_atoms))


def always_valid(crystal, settings):
    return Valid()


def never_valid(crystal, settings):
    return Valid(False, ("bonds broke",))


def everything_fails(packings, parameters):
    n = np.arange(len(packings))
    status = np.where(n % 3 == 0, STATUS.index("not finite"), STATUS.index("implausible density")).astype(np.int8)
    return replace(packings, energy=np.full(len(n), np.nan), status=status)


def keep_all(items, energies):
    return np.arange(len(energies))


def merge_pairs(items, energies):
    """Every second crystal is called a duplicate of the one before it."""
    return np.arange(len(energies)) // 2 * 2


def compare(a, b):
    return Match(abs(a.density - b.density), 15)


TOY = Stages(
    sites=sites,
    press=press,
    evaluate=evaluate,
    relax=relax,
    vibrations=vibrations,
    refine=refine,
    energies=energies,
    validity=always_valid,
    deduplicate_packings=keep_all,
    deduplicate_crystals=merge_pairs,
    similarity=compare,
)
