"""Conformers of one molecule alone, relaxed on an energy that is asked for by name.

====================  ==================================================================================================
``none``              as they are; their energy is that of MMFF94 with a dielectric constant of 4
``restrained``        MMFF94 with a dielectric constant of 4, torsions held softly where they are: bonds, angles, rings
                      and contacts relax, and conformers stay as varied as they were drawn
``mmff94``            minima of MMFF94 in vacuum; ``mmff94:10`` of MMFF94 with a dielectric constant of 10
``so3lr``             minima of SO3LR
``gfn2-xtb``          minima of GFN2-xTB
``aimnet2``           minima of AIMNet2
``best``              the mean of ``so3lr`` and ``aimnet2``, as in crystals; one of them, or ``mmff94``, for molecules
                      that they do not know
====================  ==================================================================================================

MMFF94 in vacuum folds molecules on themselves; the dielectric constants stand for what surrounds them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.errors import InputError, MissingDependencyError, MolflowError, UnsupportedElementError

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

SPECS = ("none", "restrained", "mmff94", "so3lr", "gfn2-xtb", "aimnet2", "best")
DIELECTRIC = 4.0
"""Relative permittivity of ``none`` and ``restrained``."""
STIFFNESS = 0.1
"""eV, of what holds torsions."""
FMAX = 0.02
"""eV/Å; largest component of a force at a minimum."""
ROUGH_FMAX, ROUGH_STEPS = 0.1, 150
"""The same where torsions are held, and steps at most."""
MAX_STEPS = 500

Relax = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Intramolecular:
    """An energy inside one molecule.

    Attributes
    ----------
    spec : str
        What is used, which ``best`` leaves open.
    minimises : bool
        Whether conformers become minima, so that several may become one.
    relax : callable
        Positions (K, N, 3) in Å to relaxed ones and their energies (K,) in eV, NaN where one failed.
    note : str
        Why it is not what was asked for; empty if it is.
    """

    spec: str
    minimises: bool
    relax: Relax
    note: str = ""


def check_spec(spec: str) -> str:
    """Refuse an energy that there is not.

    Raises
    ------
    InputError
    """
    name, colon, number = spec.partition(":")
    if name not in SPECS or (colon and name != "mmff94"):
        raise InputError(f"no energy {spec!r} inside molecules; choose from {', '.join(SPECS)}, mmff94:DIELECTRIC")
    if colon:
        try:
            value = float(number)
        except ValueError:
            value = np.nan
        if not 1.0 <= value <= 1000.0:
            raise InputError(f"the dielectric constant of {spec!r} must be a number of 1 to 1000")
    return spec


def intramolecular(spec: str, molecule: Molecule) -> Intramolecular:
    """The energy of a name for a molecule.

    Raises
    ------
    InputError
        An unknown name.
    UnsupportedElementError, ParameterError
        An atom that the model does not know.
    MissingDependencyError
        The library behind it is not installed.
    """
    name, _, number = check_spec(spec).partition(":")
    if name == "best":
        return _best(molecule)
    if name == "so3lr":
        return Intramolecular(spec, True, _on_surface(molecule, _so3lr(molecule)))
    if name == "gfn2-xtb":
        return Intramolecular(spec, True, _on_surface(molecule, _gfn2(molecule)))
    if name == "aimnet2":
        return Intramolecular(spec, True, _on_surface(molecule, _aimnet2(molecule)))
    if name == "none":
        return Intramolecular(spec, False, _as_they_are(molecule))
    return Intramolecular(spec, name == "mmff94", _mmff(molecule, name, float(number or 1.0)))


def _best(molecule: Molecule) -> Intramolecular:
    surfaces, reasons = {}, []
    for name, make in (("so3lr", _so3lr), ("aimnet2", _aimnet2)):
        try:
            surfaces[name] = make(molecule)
        except (UnsupportedElementError, MissingDependencyError) as error:
            reasons.append(error.reason)
    if not surfaces:
        found = intramolecular("mmff94", molecule)
        return Intramolecular(found.spec, True, found.relax, f"mmff94: {'; '.join(reasons)}")

    def mean(x: np.ndarray) -> tuple[float, np.ndarray]:
        energies, gradients = zip(*(surface(x) for surface in surfaces.values()))
        return float(np.mean(energies)), np.mean(gradients, axis=0)

    spec = f"mean({','.join(surfaces)})" if len(surfaces) > 1 else next(iter(surfaces))
    note = f"{spec} alone: {'; '.join(reasons)}" if reasons else ""
    return Intramolecular(spec, True, _on_surface(molecule, mean), note)


def _mmff(molecule: Molecule, name: str, dielectric: float) -> Relax:
    from molflow_sim.chemistry.rotors import rotors
    from molflow_sim.forcefield.mmff import extract_mmff
    from molflow_sim.forcefield.mmff_minimise import in_dielectric, minimise

    terms = extract_mmff(molecule.rdmol)
    if name == "mmff94":
        field = in_dielectric(terms, dielectric)
        return lambda x: _both(minimise(field, x, fmax=FMAX, max_steps=MAX_STEPS))
    soft = in_dielectric(terms, DIELECTRIC)
    held = rotors(molecule.rdmol).torsions
    return lambda x: _both(minimise(soft, x, held=held, stiffness=STIFFNESS, fmax=ROUGH_FMAX, max_steps=ROUGH_STEPS))


def _both(found: Any) -> tuple[np.ndarray, np.ndarray]:
    good = np.isfinite(found.positions).all((1, 2)) & np.isfinite(found.energies)
    return found.positions, np.where(good, found.energies, np.nan)


def _as_they_are(molecule: Molecule) -> Relax:
    from molflow_sim.forcefield.mmff import extract_mmff
    from molflow_sim.forcefield.mmff_minimise import energies, in_dielectric

    try:
        field = in_dielectric(extract_mmff(molecule.rdmol), DIELECTRIC)
    except MolflowError:  # conformers without an energy are still conformers
        return lambda x: (x, np.full(len(x), np.nan))
    return lambda x: (x, energies(field, x))


def _so3lr(molecule: Molecule) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    from molflow_sim.so3lr.potential import SO3LR, check_elements

    numbers = np.asarray(molecule.numbers)
    check_elements(numbers)
    model = SO3LR()

    def surface(x: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient, *_ = model.evaluate([numbers], [x])[0]
        return energy, gradient

    return surface


def _aimnet2(molecule: Molecule) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    from molflow_sim.forcefield.aimnet2 import AIMNet2

    return _or_nan(AIMNet2(np.asarray(molecule.numbers)))


def _gfn2(molecule: Molecule) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    from molflow_sim.forcefield.gfn2_energy import GFN2Energy

    return _or_nan(GFN2Energy(np.asarray(molecule.numbers)))


def _or_nan(
    model: Callable[[np.ndarray], tuple[float, np.ndarray]],
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """NaN where a model has no energy."""

    def surface(x: np.ndarray) -> tuple[float, np.ndarray]:
        try:
            return model(x)
        except MolflowError:
            return np.nan, np.full_like(x, np.nan)

    return surface


def _on_surface(molecule: Molecule, surface: Callable[[np.ndarray], tuple[float, np.ndarray]]) -> Relax:
    """Minima of an expensive energy, begun at those of the restrained force field where that knows the molecule."""
    from molflow_sim.relax.clusters import HUGE, minimised, plain

    def forces(x: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient = surface(x)
        return energy, -gradient

    def relax(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with suppress(MolflowError):
            positions = _mmff(molecule, "restrained", DIELECTRIC)(positions)[0]
        found = [minimised(lambda q: plain(q, forces), x.ravel(), FMAX, MAX_STEPS, MAX_STEPS) for x in positions]
        energies = np.array([f.fun for f in found])
        return np.array([f.x.reshape(-1, 3) for f in found]), np.where(energies < 0.5 * HUGE, energies, np.nan)

    return relax
