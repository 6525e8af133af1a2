"""The result of a screening: ranked crystal structures with what was computed about each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.errors import StoreError
from molflow_sim.evaluate.hydrogen_bonds import hydrogen_bond_text
from molflow_sim.evaluate.packing_coefficient import packing_coefficient
from molflow_sim.io.powder_read import CU_K_ALPHA, PowderPattern
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.runs.folder import read_run
from molflow_sim.screening.serialise import (
    crystal_from_json,
    crystal_to_json,
    from_bytes,
    molecule_from_json,
    molecule_to_json,
    to_bytes,
)
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms
    from pymatgen.core import Structure

    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule


@dataclass(frozen=True, eq=False)
class LandscapeEntry:
    """One ranked structure.

    Attributes
    ----------
    rank : int
        1 is the most stable.
    id : str
        Hash of molecule, settings, seed, place in the run and code version.
    crystal : MolecularCrystal
        The relaxed structure.
    energy : float
        Energy per molecule (eV) in the model that ranks: the re-ranking model where it gave one.
    relative_energy : float
        kJ/mol per molecule above the best structure of the same model.
    potential_energy : float
        Energy per molecule (eV) of the force field, lattice and molecule together.
    potential_relative : float
        kJ/mol per molecule above the lowest `potential_energy` of the landscape.
    press_energy : float
        Lattice energy per molecule (eV) of the rigid packing it came from.
    converged : bool
        Whether the relaxation converged and left a residual stress within the limit.
    max_force : float
        eV/Å.
    residual_stress_gpa : float
        Largest component of the residual stress in GPa.
    n_steps : int
        Relaxation steps.
    copies : int
        Candidates that led here, duplicates merged (1: found once).
    energy_model : str
        Name of the model behind `energy`.
    relaxed_on : str
        Model on which the structure was relaxed.
    uncertainty : float
        kJ/mol: half the range of `relative_energy` among the members of a mean, against rank 1; NaN for one model.
    parts : dict
        kJ/mol above rank 1 by each member of a mean.
    vibrational_free_energy : float
        kJ/mol: of the harmonic lattice vibrations at the temperature asked for, less that of the lowest static energy
        that has one; NaN where it was not computed, or the structure is no minimum.
    free_energy_relative : float
        kJ/mol above the lowest free energy: static energy and vibrations.
    static_rank : int
        Rank by the static energy alone, where a temperature was asked for; else 0. `relative_energy` and `parts` are
        against the first of these.
    note : str
        What a reader should know, e.g. why the re-ranking failed.
    reference_rmsd : float
        RMSD15 (Å) to the reference structure where all 15 molecules match, else NaN.
    source : str
        Where a structure that was given came from: file and block, frame or row; empty for one that was searched.
    pxrd_similarity : float
        To the measured powder pattern, 0 to 1, the cell fitted to it (`molflow_sim.evaluate.powder`); NaN without one.
    pxrd_strain : tuple of float
        The nine components of the strain of that fit; empty without a pattern.
    """

    rank: int
    id: str
    crystal: MolecularCrystal
    energy: float
    relative_energy: float
    potential_energy: float
    potential_relative: float
    press_energy: float
    converged: bool
    max_force: float
    residual_stress_gpa: float
    n_steps: int
    copies: int
    energy_model: str = "potential"
    relaxed_on: str = "potential"
    uncertainty: float = float("nan")
    parts: dict[str, float] = field(default_factory=dict)
    vibrational_free_energy: float = float("nan")
    free_energy_relative: float = float("nan")
    static_rank: int = 0
    note: str = ""
    reference_rmsd: float = float("nan")
    source: str = ""
    pxrd_similarity: float = float("nan")
    pxrd_strain: tuple[float, ...] = ()

    @cached_property
    def hydrogen_bonds(self) -> str:
        """Hydrogen bonds between molecules: D...A in Å and graph set, see `molflow_sim.evaluate.hydrogen_bonds`."""
        return hydrogen_bond_text(self.crystal)

    @cached_property
    def packing_coefficient(self) -> float:
        """Volume of the molecules over that of the cell."""
        return packing_coefficient(self.crystal)

    @property
    def density(self) -> float:
        """g/cm³."""
        return float(self.crystal.density)

    @property
    def space_group(self) -> str:
        """Short Hermann-Mauguin symbol, e.g. ``P21/c``."""
        return short_symbol(self.crystal)

    @property
    def z(self) -> int:
        """Molecules in the cell."""
        return int(self.crystal.z)

    @property
    def z_prime(self) -> float:
        """Molecules in the asymmetric unit."""
        return float(self.crystal.z_prime)

    def to_ase(self) -> Atoms:
        """ASE atoms of the unit cell; ``atoms.info`` carries id, rank, energies and the crystal's own notes."""
        atoms = self.crystal.to_ase()
        atoms.info.update(
            id=self.id,
            rank=self.rank,
            relative_energy_kj_per_mol=self.relative_energy,
            energy_per_molecule_ev=self.energy,
            density_g_per_cm3=self.density,
        )
        return atoms

    def to_pymatgen(self) -> Structure:
        """pymatgen structure of the unit cell."""
        return self.crystal.to_pymatgen()

    def to_cif(self) -> str:
        """CIF text with the space group kept."""
        return self.crystal.to_cif()

    def row(self) -> dict[str, Any]:
        """The entry as one row of a table (people's units in the names)."""
        a, b, c, alpha, beta, gamma = (float(x) for x in self.crystal.cell_parameters)
        return {
            "rank": self.rank,
            "id": self.id,
            **({"source": self.source} if self.source else {}),
            "relative_energy_kj_per_mol": self.relative_energy,
            **self._thermal(),
            "density_g_per_cm3": self.density,
            "space_group": self.space_group,
            "z": self.z,
            "z_prime": self.z_prime,
            "packing_coefficient": self.packing_coefficient,
            "hydrogen_bonds": self.hydrogen_bonds,
            **self._pxrd_columns(),
            "converged": self.converged,
            "copies": self.copies,
            "energy_ev_per_molecule": self.energy,
            "energy_model": self.energy_model,
            "relaxed_on": self.relaxed_on,
            "uncertainty_kj_per_mol": self.uncertainty,
            **{f"{name}_relative_kj_per_mol": value for name, value in self.parts.items() if name != "potential"},
            "potential_relative_kj_per_mol": self.potential_relative,
            "potential_ev_per_molecule": self.potential_energy,
            "press_ev_per_molecule": self.press_energy,
            "max_force_ev_per_angstrom": self.max_force,
            "residual_stress_gpa": self.residual_stress_gpa,
            "relaxation_steps": self.n_steps,
            "a_angstrom": a,
            "b_angstrom": b,
            "c_angstrom": c,
            "alpha_degree": alpha,
            "beta_degree": beta,
            "gamma_degree": gamma,
            "volume_angstrom3_per_molecule": float(self.crystal.volume) / self.z,
            "reference_rmsd15_angstrom": self.reference_rmsd,
            "note": self.note,
        }

    def _pxrd_columns(self) -> dict[str, float]:
        if not self.pxrd_strain:
            return {}
        change = np.linalg.det(np.eye(3) + np.reshape(self.pxrd_strain, (3, 3))) - 1.0
        return {"pxrd_similarity": self.pxrd_similarity, "pxrd_volume_change_percent": 100.0 * float(change)}

    def _thermal(self) -> dict[str, Any]:
        """Columns of a ranking at a temperature."""
        if not self.static_rank:
            return {}
        return {
            "free_energy_relative_kj_per_mol": self.free_energy_relative,
            "vibrational_free_energy_kj_per_mol": self.vibrational_free_energy,
            "static_rank": self.static_rank,
        }


@dataclass(frozen=True)
class Dropped:
    """A structure that is not in the ranking, and why."""

    id: str
    stage: str
    reason: str
    energy: float | None = None
    density: float | None = None
    space_group: str = ""
    source: str = ""


@dataclass(frozen=True)
class ReferenceMatch:
    """Where the experimental form came.

    Attributes
    ----------
    name : str
        File it was read from.
    space_group, density : str, float
        Of the experimental structure.
    rank : int or None
        Of the structure that is the experimental form, as measured or relaxed as the ranked ones were (15 of 15
        molecules within `molflow_sim.evaluate.found_rmsd`); None if not found.
    relative_energy : float or None
        Its ΔE in kJ/mol per molecule.
    rmsd15 : float or None
        Its RMSD15 to the experimental structure in Å.
    rmsd15_to_relaxed : float or None
        Its RMSD15 to the relaxed experimental structure.
    relaxed_drift : float or None
        RMSD15 between the experimental structure and itself relaxed: how well the potential keeps it.
    relaxed_relative_energy : float or None
        ΔE (potential) of the relaxed experimental structure against the best structure of the landscape.
    note : str
        What went wrong or should be known.
    """

    name: str
    space_group: str
    density: float
    rank: int | None = None
    relative_energy: float | None = None
    rmsd15: float | None = None
    rmsd15_to_relaxed: float | None = None
    relaxed_drift: float | None = None
    relaxed_relative_energy: float | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Landscape:
    """Ranked crystal structures of one molecule.

    ``landscape[0]`` is the most stable; iterate, slice or `to_dataframe` for the rest.

    Attributes
    ----------
    molecule : Molecule
        What was screened.
    entries : tuple of LandscapeEntry
        By rank.
    dropped : tuple of Dropped
        Relaxed structures that failed a check or are duplicates.
    tally : dict
        How many candidates each stage saw, kept and lost, by reason.
    run : dict
        Provenance: versions, seed, settings, timings.
    reference : ReferenceMatch or None
        Where the experimental form came, if one was given.
    folder : Path or None
        The results folder.
    wavelength : float
        Å, of powder patterns.
    measured : PowderPattern or None
        The powder pattern that the structures were compared with.
    """

    molecule: Molecule
    entries: tuple[LandscapeEntry, ...]
    dropped: tuple[Dropped, ...] = ()
    tally: dict[str, dict[str, int]] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    reference: ReferenceMatch | None = None
    folder: Path | None = None
    wavelength: float = CU_K_ALPHA
    measured: PowderPattern | None = None

    @property
    def best_match(self) -> LandscapeEntry | None:
        """The structure that agrees best with the measured powder pattern."""
        compared = [entry for entry in self.entries if entry.pxrd_strain]
        return max(compared, key=lambda entry: entry.pxrd_similarity, default=None)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> LandscapeEntry:
        return self.entries[index]

    def __iter__(self) -> Iterator[LandscapeEntry]:
        return iter(self.entries)

    def __repr__(self) -> str:
        if not self.entries:
            return f"Landscape({self.molecule.formula}, empty)"
        best = self.entries[0]
        what = f"{len(self)} structures, best {best.space_group} {best.density:.3f} g/cm³"
        return f"Landscape({self.molecule.formula}, {what})"

    def to_dataframe(self) -> pd.DataFrame:
        """One row per structure, see `LandscapeEntry.row`."""
        import pandas as pd

        return pd.DataFrame([entry.row() for entry in self.entries])

    def dropped_dataframe(self) -> pd.DataFrame:
        """One row per structure that is not in the ranking, with the reason."""
        return dropped_dataframe(self.dropped)

    def report(self, path: str | Path) -> Path:
        """Write the self-contained HTML report and return its path."""
        from molflow_sim.screening.report import report_html

        path = Path(path)
        write_bytes_atomically(path, report_html(self).encode())
        return path

    def plot(self, path: str | Path) -> Path:
        """Write the energy-density landscape as a picture (SVG, PNG or PDF by the suffix) and return its path."""
        from molflow_sim.screening.plots import landscape_figure

        return landscape_figure(self, Path(path))

    def save(self, path: str | Path) -> None:
        """Write everything needed by `load` as one JSON file."""
        data = {
            "molecule": molecule_to_json(self.molecule),
            "species": [molecule_to_json(m) for m in self.entries[0].crystal.molecules] if self.entries else [],
            "entries": [
                {**{k: getattr(e, k) for k in _PLAIN}, "crystal": crystal_to_json(e.crystal)} for e in self.entries
            ],
            "dropped": [asdict(d) for d in self.dropped],
            "tally": self.tally,
            "reference": asdict(self.reference) if self.reference else None,
            "wavelength": self.wavelength,
            "measured": self.measured
            and {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self.measured).items()},
        }
        write_bytes_atomically(Path(path), to_bytes(data))

    @classmethod
    def load(cls, folder: str | Path) -> Landscape:
        """Read the landscape of a finished screening.

        Parameters
        ----------
        folder : path
            The screening's output folder.

        Raises
        ------
        StoreError
            If the folder holds no finished run or its files are damaged.
        """
        folder = Path(folder)
        run = read_run(folder)
        path = folder / "store" / "landscape.json"
        try:
            data = from_bytes(path.read_bytes())
        except FileNotFoundError as error:
            raise StoreError(f"{folder} holds no finished screening; run the same command again to carry on") from error
        except ValueError as error:
            raise StoreError(f"{path} is damaged; run the same command again to rebuild it") from error
        try:
            species = [molecule_from_json(m) for m in data["species"]]
            return cls(
                molecule=molecule_from_json(data["molecule"]),
                entries=tuple(
                    LandscapeEntry(
                        **{
                            **e,
                            "crystal": crystal_from_json(e["crystal"], species),
                            "pxrd_strain": tuple(e.get("pxrd_strain", ())),
                        }
                    )
                    for e in data["entries"]
                ),
                dropped=tuple(Dropped(**d) for d in data["dropped"]),
                tally=data["tally"],
                run=run,
                reference=ReferenceMatch(**data["reference"]) if data["reference"] else None,
                folder=folder,
                wavelength=data.get("wavelength", CU_K_ALPHA),
                measured=_pattern(data.get("measured")),
            )
        except (KeyError, TypeError) as error:
            raise StoreError(f"{path} is damaged ({error}); run the same command again to rebuild it") from error


def dropped_dataframe(dropped: Sequence[Dropped]) -> pd.DataFrame:
    """Table of dropped structures."""
    import pandas as pd

    frame = pd.DataFrame([asdict(row) for row in dropped], columns=list(Dropped.__dataclass_fields__))
    return frame.rename(columns={"energy": "potential_ev_per_molecule", "density": "density_g_per_cm3"})


def _pattern(data: dict[str, Any] | None) -> PowderPattern | None:
    if not data:
        return None
    return PowderPattern(**{**data, **{name: np.array(data[name]) for name in ("two_theta", "intensity")}})


def short_symbol(crystal: MolecularCrystal) -> str:
    """Short Hermann-Mauguin symbol of a crystal's space group, e.g. ``P21/n``."""
    return str(crystal.space_group.gemmi.short_name())


_PLAIN = tuple(name for name in LandscapeEntry.__dataclass_fields__ if name != "crystal")


def relative_energies(energies: np.ndarray) -> np.ndarray:
    """kJ/mol above the lowest finite energy, from eV; NaN stays NaN."""
    energies = np.asarray(energies, dtype=float)
    if not np.any(np.isfinite(energies)):
        return np.full(energies.shape, np.nan)
    return (energies - np.nanmin(energies)) / KJ_PER_MOL
