"""Low-energy conformers of a molecule at the level of GEOM: a search with MMFF94, minimised by GFN2-xTB.

GEOM's ensembles (S. Axelrod, R. Gómez-Bombarelli, Sci. Data 9, 185, 2022) come from CREST: metadynamics and
minimisation with GFN2-xTB, merged by RMSD, energy and rotational constants. Here the search is distance geometry and
torsion drives, which costs a hundredth:

1. ETKDGv3 embeddings with and without torsion preferences, minimised by MMFF94 (permittivity `SCREENING`), merged.
2. If there are more than can be afforded, GFN2-xTB energies of the lowest decide which go on.
3. GFN2-xTB minimisation guided by MMFF94 (`molflow_sim.relax.guided`); one that is about to become a conformer which
   is known, or lies far above the lowest, is left on its way.
4. Each rotatable bond of the lowest conformers is turned by 60 to 300 degrees, and what MMFF94 makes of it that is new
   goes through 2 and 3.
5. A conformer counts if it has the bonds and the R/S and E/Z of the SMILES; those within the window stay.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers as mmff
from rdkit.Chem import rdMolTransforms

from molflow_sim.chemistry import conformers as conf
from molflow_sim.chemistry.bonds import automorphisms, perceive_bonds
from molflow_sim.chemistry.checks import canonical_smiles, mirror_image, same_stereo
from molflow_sim.chemistry.rotors import torsions
from molflow_sim.dataset.conformer_settings import ConformerSettings
from molflow_sim.errors import ConformerError, CrystalError, NonFiniteError
from molflow_sim.forcefield.gfn2_energy import GFN2Energy
from molflow_sim.forcefield.mmff import extract_mmff
from molflow_sim.forcefield.mmff_compiled import mmff_hessian, mmff_molecules
from molflow_sim.relax.guided import guided
from molflow_sim.threads import one_blas_thread
from molflow_sim.units import KCAL_PER_MOL, KJ_PER_MOL

SCREENING = 2.0
"""Relative permittivity for MMFF94: at 1 too many conformers are folded, from those at 4 GFN2-xTB has further to go."""
SEARCH_WINDOW = 50.0
"""kJ/mol above the lowest by MMFF94 up to which a minimum goes on."""
SEARCH_RMSD = 0.2
"""Å; minima of MMFF94 that are closer are one."""
SAME_RMSD, SAME_ENERGY, SAME_SHAPE = 0.125, 0.1, 0.01
"""Å; kJ/mol and relative difference of the rotational constants: either makes two conformers one."""
NEARLY = 0.1
"""eV/Å; below it a minimisation is compared with what is known."""
MARGIN = 8.0
"""kJ/mol above the window, beyond which a minimisation that is nearly done is left."""
MAX_STEPS = 40
"""Gradients for one minimisation at most."""
USUAL_STEPS = 12
LOOSE = 0.06
"""eV/Å; what has not come below it by then is left out."""
ANGLES = (60.0, 120.0, 180.0, 240.0, 300.0)
KICKED = 3
"""Conformers whose bonds are turned."""
EMBEDDED_SHARE = 0.65
"""Of the gradients, for what embedding found; the rest for torsion drives."""
MAX_MATCHES = 100


@dataclass
class Found:
    """Conformers of a search.

    Attributes
    ----------
    positions : ndarray, shape (K, N, 3)
        Å, lowest first.
    energies : ndarray, shape (K,)
        eV.
    degeneracy : ndarray, shape (K,)
        2 where the mirror image is another conformer that is not listed.
    left_out : Counter
        Conformers by the reason why they are not there.
    work : dict
        Counts of what was done.
    """

    positions: np.ndarray
    energies: np.ndarray
    degeneracy: np.ndarray
    left_out: Counter[str] = field(default_factory=Counter)
    work: dict[str, int] = field(default_factory=dict)


def search_conformers(rdmol: Chem.Mol, settings: ConformerSettings, seed: int) -> Found:
    """The low-energy conformers of a molecule.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Explicit hydrogens, stereochemistry assigned, known to MMFF94.
    settings : ConformerSettings
    seed : int
        Of the embedding.

    Raises
    ------
    ConformerError
        Nothing embeds, no conformer keeps its bonds and stereochemistry, or the time is up.
    ParameterError, UnsupportedElementError
        MMFF94 cannot treat it.
    """
    with one_blas_thread():
        return _Search(rdmol, settings, seed).run()


class _Search:
    def __init__(self, rdmol: Chem.Mol, settings: ConformerSettings, seed: int) -> None:
        self.rdmol, self.settings, self.seed = rdmol, settings, seed
        self.deadline = monotonic() + settings.seconds
        self.numbers = np.array([a.GetAtomicNum() for a in rdmol.GetAtoms()])
        self.bonds = {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in rdmol.GetBonds()}
        self.mirror = same_stereo(rdmol, mirror_image(rdmol))
        self.core = conf.core_atoms(rdmol)
        self.matches = automorphisms(rdmol, self.core, max_matches=MAX_MATCHES)
        self.terms = extract_mmff(rdmol)
        self.gfn2 = GFN2Energy(self.numbers)
        self.field = _Field(rdmol)
        self.tried: list[np.ndarray] = []  # minima of MMFF94
        self.positions: list[np.ndarray] = []
        self.energies: list[float] = []
        self.left_out: Counter[str] = Counter()
        self.work: Counter[str] = Counter()

    def run(self) -> Found:
        budget = self.settings.gradients(len(self.numbers))
        self._go_on(self._embedded(), round(EMBEDDED_SHARE * budget))
        if self.positions:
            self._go_on(self._turned(), budget)
        if not self.positions:
            why = ", ".join(f"{number} {reason}" for reason, number in sorted(self.left_out.items()))
            raise ConformerError(
                f"{canonical_smiles(self.rdmol)}: GFN2-xTB left no conformer of this molecule ({why or 'none tried'})"
            )
        order = np.argsort(self.energies, kind="stable")
        lowest = self.energies[order[0]]
        kept = [k for k in order if self.energies[k] <= lowest + self.settings.window * KJ_PER_MOL]
        kept = kept[: self.settings.keep]
        positions = np.array([self.positions[k] for k in kept])
        pairs = [self.mirror and self._rmsd(x, -x, mirror=False) > SAME_RMSD for x in positions]
        self.work["gradients"] = self.gfn2.evaluations
        return Found(
            positions, np.array([self.energies[k] for k in kept]), 1 + np.array(pairs, int), self.left_out,
            dict(self.work),
        )  # fmt: skip

    def _embedded(self) -> list[tuple[float, np.ndarray]]:
        rotors = conf.count_rotors(self.rdmol)
        trials = min(self.settings.embeddings, 4 + 5 * rotors)
        half = max(trials // 2, 2)
        mols = [conf.embed(self.rdmol, half, self.seed)]
        if rotors:
            mols.append(conf.embed(self.rdmol, half, self.seed + 1, torsion_preferences=False))
        starts = [c.GetPositions() for mol in mols for c in mol.GetConformers()]
        self.work["embedded"] = len(starts)
        return [self._relaxed(x) for x in starts]

    def _turned(self) -> list[tuple[float, np.ndarray]]:
        """Minima of MMFF94 from the lowest conformers with one bond turned."""
        starts = []
        for k in np.argsort(self.energies, kind="stable")[:KICKED]:
            mol = conf.with_positions(self.rdmol, self.positions[k])
            for torsion in torsions(self.rdmol, methyl=False):
                angle = rdMolTransforms.GetDihedralDeg(mol.GetConformer(), *torsion)
                for turn in ANGLES if np.isfinite(angle) else ():
                    rdMolTransforms.SetDihedralDeg(mol.GetConformer(), *torsion, angle + turn)
                    starts.append(mol.GetConformer().GetPositions())
                mol = conf.with_positions(self.rdmol, self.positions[k])
        if len(starts) > self.settings.kicks:
            rng = np.random.default_rng(self.seed)
            starts = [starts[i] for i in sorted(rng.choice(len(starts), self.settings.kicks, replace=False))]
        self.work["turned"] = len(starts)
        return [self._relaxed(x) for x in starts]

    def _relaxed(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        if monotonic() > self.deadline:
            raise ConformerError(
                f"{canonical_smiles(self.rdmol)}: not done within {self.settings.seconds:g} s; allow more seconds a "
                "molecule"
            )
        return self.field.minimised(x)

    def _go_on(self, found: list[tuple[float, np.ndarray]], evaluations: int) -> None:
        """GFN2-xTB for what is new among minima of MMFF94, until `evaluations` gradients have been spent in all."""
        found = sorted((pair for pair in found if np.isfinite(pair[0])), key=lambda pair: pair[0])
        new: list[np.ndarray] = []
        for energy, x in found:
            if energy > found[0][0] + SEARCH_WINDOW * KJ_PER_MOL:
                break
            if all(self._rmsd(x, y) > SEARCH_RMSD for y in (*self.tried, *new)):
                new.append(x)
        self.tried += new
        affordable = (evaluations - self.gfn2.evaluations) // USUAL_STEPS
        if len(new) > affordable:
            new = new[: 2 * max(affordable, 1)]
            energies = [self._energy(x) for x in new]
            new = [new[k] for k in np.argsort(energies, kind="stable")]
        for x in new:
            if self.gfn2.evaluations >= evaluations:
                break
            self._minimised(x)

    def _energy(self, x: np.ndarray) -> float:
        try:
            return self.gfn2(x)[0]
        except NonFiniteError:
            return float("inf")

    def _minimised(self, x: np.ndarray) -> None:
        if monotonic() > self.deadline:
            self._relaxed(x)  # says so
        self.work["minimised"] += 1
        known = list(self.positions)

        def of_no_use(x: np.ndarray, energy: float, force: float) -> bool:
            if force > NEARLY or not known:
                return False
            window = (self.settings.window + MARGIN) * KJ_PER_MOL
            return energy > min(self.energies) + window or any(self._rmsd(x, y) < SAME_RMSD for y in known)

        try:
            end = guided(
                self.gfn2, self._guide, x, mmff_hessian(self.terms, x), force=self.settings.force,
                evaluations=MAX_STEPS, stop=of_no_use,
            )  # fmt: skip
        except NonFiniteError:
            self.left_out["without an energy of GFN2-xTB"] += 1
            return
        y, energy = end.positions, end.energy
        if end.converged or not of_no_use(y, energy, end.force):
            if end.force > LOOSE:
                self.left_out[f"not minimised within {MAX_STEPS} gradients"] += 1
            elif not self._same_bonds(y):
                self.left_out["with other bonds: GFN2-xTB made it react"] += 1
            elif not conf.keeps_stereo(self.rdmol, y[None])[0]:
                self.left_out["of another stereoisomer"] += 1
            else:
                self._add(y, energy)

    def _guide(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient, _ = mmff_molecules(self.terms, x, np.zeros(1, int))
        return float(energy[0]), gradient[0]

    def _add(self, x: np.ndarray, energy: float) -> None:
        """Keep a conformer, or the lower of two that are the same."""
        for k, (y, other) in enumerate(zip(self.positions, self.energies)):
            level = abs(energy - other) < SAME_ENERGY * KJ_PER_MOL
            if self._rmsd(x, y) < SAME_RMSD or (level and self._same_shape(x, y)):
                if energy < other:
                    self.positions[k], self.energies[k] = x, energy
                return
        self.positions.append(x)
        self.energies.append(energy)

    def _rmsd(self, x: np.ndarray, y: np.ndarray, mirror: bool | None = None) -> float:
        mirror = self.mirror if mirror is None else mirror
        return conf.best_rmsd(x[self.core], y[self.core], self.matches, mirror=mirror)

    def _same_shape(self, x: np.ndarray, y: np.ndarray) -> bool:
        """Whether the rotational constants agree."""
        a, b = (np.linalg.eigvalsh(np.cov(z.T, aweights=self.numbers.astype(float))) for z in (x, y))
        return bool((np.abs(a - b) <= SAME_SHAPE * np.maximum(a, b) + 1e-9).all())

    def _same_bonds(self, x: np.ndarray) -> bool:
        try:
            bonds, _ = perceive_bonds(self.numbers, x)
        except CrystalError:
            return False
        return {tuple(sorted(map(int, pair))) for pair in bonds} == self.bonds


class _Field:
    """RDKit's MMFF94 of one molecule, electrostatics divided by `SCREENING`."""

    def __init__(self, rdmol: Chem.Mol) -> None:
        self.properties = mmff.MMFFGetMoleculeProperties(rdmol, mmffVariant="MMFF94")
        self.properties.SetMMFFDielectricConstant(SCREENING)
        self.mol = conf.with_positions(rdmol, np.zeros((rdmol.GetNumAtoms(), 3)))
        self.field: Any = None

    def minimised(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy in eV and positions of the minimum near `x`."""
        self.mol.GetConformer().SetPositions(np.ascontiguousarray(x))
        if self.field is None:
            self.field = mmff.MMFFGetMoleculeForceField(self.mol, self.properties, ignoreInterfragInteractions=False)
        self.field.Initialize()
        self.field.Minimize(maxIts=500)
        return self.field.CalcEnergy() * KCAL_PER_MOL, self.mol.GetConformer().GetPositions()
