"""ASE calculator of the crystal potential."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch_sim as ts
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from scipy.spatial import cKDTree

from molflow_sim.energies import best_potential
from molflow_sim.energies.ensemble import best_parameters
from molflow_sim.errors import CrystalError, InputError, NonFiniteError
from molflow_sim.forcefield.parameters import MoleculeParameters, distinct_species, parametrize
from molflow_sim.forcefield.potential import CrystalPotential
from molflow_sim.so3lr.potential import SO3LR
from molflow_sim.systems.crystal import MolecularCrystal
from molflow_sim.systems.molecule import Molecule

JUMP = 1.0
"""Å; atoms that move more between two calls, and have lost their bonds, are other atoms."""


def _so3lr(table: Sequence[MoleculeParameters], **options: Any) -> SO3LR:
    return SO3LR(**options)


_POTENTIALS: dict[str, Callable[..., Any]] = {
    "potential": CrystalPotential,
    "best": best_potential,
    "so3lr": _so3lr,
    "fit": partial(CrystalPotential, intramolecular=False),
}


class CrystalCalculator(Calculator):
    """Energy, forces and stress of a molecular crystal, by the force field, SO3LR or their mean.

    Like every ASE calculator it takes the atoms that it is attached to: any periodic molecular crystal, atoms in any
    order. Which atoms form which molecules is read from their distances at first use, and again when the calculator is
    given other atoms; in between the bonds stay what they are, so that a dynamics does not change its force field.

    Parameters
    ----------
    source : Molecule, MoleculeParameters, MolecularCrystal, or a sequence of them, optional
        The species of the crystal, where they are known: nothing is read from distances then, and the atoms must be
        whole molecules one after another, each in the atom order of its Molecule (what ``MolecularCrystal.to_ase()``
        gives; ``atoms.repeat`` keeps it); wrapping into the cell does no harm.
    energy : {"potential", "best", "so3lr", "fit"}
        The force field (exp-6 and charges between molecules, MMFF94 within), the mean that ranks and relaxes in a
        screening (`molflow_sim.energies.best_potential`), SO3LR, or the force field between molecules alone.
    charges : str
        Charge model for species that are not parametrised yet: "mmff94", "hf-esp", "gfn2-esp" or "gfn2".
    cutoff : float
        Å.
    **options
        For `molflow_sim.forcefield.potential.CrystalPotential` (device, skin, ...).

    Raises
    ------
    InputError
        `source` is none of these, or an option is out of range.
    ParameterError, UnsupportedElementError
        A molecule has no parameters.

    Examples
    --------
    >>> atoms = ase.io.read("urea.cif")                         # doctest: +SKIP
    >>> atoms.calc = CrystalCalculator()                        # doctest: +SKIP
    >>> atoms.get_potential_energy(), atoms.get_stress()        # doctest: +SKIP
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 (ASE's own declaration)
    default_parameters = {"charges": "mmff94", "cutoff": 15.0}  # noqa: RUF012

    def __init__(
        self,
        source: Molecule | MoleculeParameters | MolecularCrystal | Sequence[Any] | None = None,
        charges: str = "mmff94",
        cutoff: float = 15.0,
        *,
        energy: str = "potential",
        **options: Any,
    ) -> None:
        super().__init__(charges=charges, cutoff=cutoff)
        if energy not in _POTENTIALS:
            raise InputError(f"unknown energy {energy!r}; use {', '.join(_POTENTIALS)}")
        self._energy = energy
        self._charges, self._options = charges, {"cutoff": cutoff, **options}
        self._reads = source is None
        self._numbers = self._order = np.zeros(0, dtype=int)
        self._last = np.zeros((0, 3))
        self.potential: Any = None if source is None else self._potential_of(source)

    def set(self, **changes: Any) -> dict[str, Any]:
        """Refuse to change what the potential was made with (ASE's way to set parameters, used when it is made)."""
        if hasattr(self, "potential"):
            raise InputError(f"{', '.join(changes)}: the potential is made already; make another calculator")
        return super().set(**changes)

    def _potential_of(self, source: Any) -> Any:
        species: list[MoleculeParameters | Molecule] = []
        for item in source if isinstance(source, Sequence) else (source,):
            for molecule in getattr(item, "molecules", getattr(item, "species", (item,))):
                if not isinstance(molecule, (Molecule, MoleculeParameters)):
                    raise InputError(
                        f"{type(molecule).__name__} is no Molecule, MoleculeParameters, MolecularCrystal or "
                        "MolecularCluster; for plain atoms give nothing: the molecules are read from them"
                    )
                species.append(molecule)
        distinct = distinct_species(species)
        table = [m if isinstance(m, MoleculeParameters) else parametrize(m, self._charges) for m in distinct]
        if self._energy == "best":
            table = best_parameters(table, distinct)
        return _POTENTIALS[self._energy](table, **self._options)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate the potential (ASE's entry point).

        Raises
        ------
        CrystalError
            The atoms are not periodic or no molecular crystal; or, where the species were given, not these molecules
            one after another, bonded as these are.
        ParameterError, UnsupportedElementError
            A molecule that was read has no parameters.
        NonFiniteError
            Positions or cell are not finite, or the cell has collapsed.
        """
        super().calculate(atoms, properties, system_changes)
        self._check()
        if self._reads and not np.array_equal(self.atoms.numbers, self._numbers):
            self._read()
        out, torn = self._evaluate()
        if torn and self._reads and self._jumped():  # other atoms with the same elements, such as another polymorph
            self._read()
            out, torn = self._evaluate()
        if torn:
            raise CrystalError(torn)
        energy = float(out["energy"][0])
        if not np.isfinite(energy):
            raise NonFiniteError("the energy is not finite: the cell has collapsed, or positions are NaN")
        self._last = self._places()
        self.results = {"energy": energy, "free_energy": energy, "forces": out["forces"]}
        if "stress" in out:
            self.results["stress"] = full_3x3_to_voigt_6_stress(out["stress"][0])
        for part in ("intermolecular_energy", "intramolecular_energy"):
            if part in out:
                self.results[part] = float(out[part][0])

    def _check(self) -> None:
        """Refuse atoms that this calculator is not for."""
        if not self.atoms.pbc.all():
            raise CrystalError("the potential needs atoms periodic in all three directions; set atoms.pbc = True")
        if not np.abs(self.atoms.cell.volume) > 0.0:
            raise CrystalError("the cell has no volume; set atoms.cell")

    def _places(self) -> np.ndarray:
        """Where the atoms are, for `_jumped`."""
        return self.atoms.get_scaled_positions(wrap=False)

    def _read(self) -> None:
        """Find the molecules of the atoms, and the order in which these are whole molecules one after another."""
        self._numbers = np.zeros(0, dtype=int)
        crystal = MolecularCrystal.from_ase(self.atoms)
        numbers, positions, *_ = crystal.unit_cell()
        hand = np.sign(np.linalg.det(self.atoms.cell.array))  # a crystal's axes are right-handed
        own, found = (
            np.mod(np.round(f, 9), 1.0)
            for f in (hand * self.atoms.get_scaled_positions(wrap=False), positions @ np.linalg.inv(crystal.cell))
        )
        _, order = cKDTree(np.where(own < 1.0, own, 0.0), boxsize=1.0).query(np.where(found < 1.0, found, 0.0))
        if len(np.unique(order)) < len(self.atoms) or not np.array_equal(self.atoms.numbers[order], numbers):
            raise CrystalError(f"{len(self.atoms)} atoms make {len(numbers)}: some of them lie upon each other")
        self.potential = self._potential_of(crystal)
        self._last = self._places()
        self._numbers, self._order = self.atoms.numbers.copy(), order

    def _jumped(self) -> bool:
        """Whether an atom is further from its last place than any dynamics or optimiser moves it."""
        gap = self._places() - self._last
        gap -= np.rint(gap)
        return bool(np.linalg.norm(gap @ self.atoms.cell.array, axis=1).max() > JUMP)

    def _evaluate(self) -> tuple[dict[str, np.ndarray], str]:
        """What the potential gives, forces in the order of the atoms, and how they contradict its molecules."""
        if self.potential is None:
            raise InputError("no molecules were given or read")
        atoms, order = self.atoms, self._order if self._reads else np.arange(len(self.atoms))
        if not np.array_equal(order, np.arange(len(order))):
            atoms = atoms.copy()
            atoms.set_constraint()
            atoms = atoms[order]
        state = ts.io.atoms_to_state(atoms, self.potential.device, torch.float64)
        out = {name: value.cpu().double().numpy() for name, value in self.potential(state).items()}
        forces = np.empty_like(out["forces"])
        forces[order] = out["forces"]
        return {**out, "forces": forces}, getattr(self.potential, "torn", "")
