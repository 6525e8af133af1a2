"""ASE calculator of the crystal potential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch_sim as ts
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from molflow_sim.errors import CrystalError, InputError, NonFiniteError
from molflow_sim.forcefield.parameters import MoleculeParameters, distinct_species, parametrize
from molflow_sim.forcefield.potential import CrystalPotential
from molflow_sim.systems.crystal import MolecularCrystal
from molflow_sim.systems.molecule import Molecule


class CrystalCalculator(Calculator):
    """Energy, forces and stress of a molecular crystal: exp-6 + Ewald between molecules, MMFF94 within.

    The atoms must be whole molecules one after another, each in the atom order of its Molecule (what
    ``MolecularCrystal.to_ase()`` gives; ``atoms.repeat`` keeps it); wrapping into the cell does no harm. All three
    directions must be periodic.

    Parameters
    ----------
    source : Molecule, MoleculeParameters, MolecularCrystal, or a sequence of them
        The species of the crystal.
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
    >>> atoms = crystal.to_ase()                                # doctest: +SKIP
    >>> atoms.calc = CrystalCalculator.from_crystal(crystal)    # doctest: +SKIP
    >>> atoms.get_potential_energy(), atoms.get_stress()        # doctest: +SKIP
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 (ASE's own declaration)
    default_parameters = {"charges": "mmff94", "cutoff": 15.0}  # noqa: RUF012

    def __init__(
        self,
        source: Molecule | MoleculeParameters | MolecularCrystal | Sequence[Any],
        charges: str = "mmff94",
        cutoff: float = 15.0,
        **options: Any,
    ) -> None:
        super().__init__(charges=charges, cutoff=cutoff)
        species: list[MoleculeParameters | Molecule] = []
        for item in source if isinstance(source, Sequence) else (source,):
            for molecule in item.molecules if isinstance(item, MolecularCrystal) else (item,):
                if not isinstance(molecule, (Molecule, MoleculeParameters)):
                    raise InputError(
                        f"{type(molecule).__name__} is no Molecule, MoleculeParameters or MolecularCrystal; "
                        "for plain atoms use MolecularCrystal.from_ase(atoms) first"
                    )
                species.append(molecule)
        table = [m if isinstance(m, MoleculeParameters) else parametrize(m, charges) for m in distinct_species(species)]
        self.potential = CrystalPotential(table, cutoff=cutoff, **options)

    @classmethod
    def from_crystal(cls, crystal: MolecularCrystal, charges: str = "mmff94", **options: Any) -> CrystalCalculator:
        """The calculator of a crystal's molecules."""
        return cls(crystal, charges=charges, **options)

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
            The atoms are not periodic, or not the calculator's molecules one after another, bonded as these are.
        NonFiniteError
            Positions or cell are not finite, or the cell has collapsed.
        """
        super().calculate(atoms, properties, system_changes)
        if not self.atoms.pbc.all():
            raise CrystalError("the potential needs atoms periodic in all three directions; set atoms.pbc = True")
        if not np.abs(self.atoms.cell.volume) > 0.0:
            raise CrystalError("the cell has no volume; set atoms.cell")
        state = ts.io.atoms_to_state(self.atoms, self.potential.device, torch.float64)
        out = {name: value.cpu().double().numpy() for name, value in self.potential(state).items()}
        energy = float(out["energy"][0])
        if self.potential.torn:
            raise CrystalError(self.potential.torn)
        if not np.isfinite(energy):
            raise NonFiniteError("the energy is not finite: the cell has collapsed, or positions are NaN")
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": out["forces"],
            "stress": full_3x3_to_voigt_6_stress(out["stress"][0]),
            "intermolecular_energy": float(out["intermolecular_energy"][0]),
            "intramolecular_energy": float(out["intramolecular_energy"][0]),
        }
