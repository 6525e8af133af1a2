"""How were the frames of capped alanine made that ship with molflow-sim, and how do I make more?

Capped alanine (ACE-ALA-NME) is built from its SMILES and simulated in OpenMM with Amber ff99SB-ILDN: in implicit
solvent (OBC) as replica exchange over a few temperatures, which lets the slow turn about φ equilibrate in a few
nanoseconds, or in explicit TIP3P water as plain Langevin dynamics. The frames of the lowest temperature are kept.

    python make_alanine_frames.py -o md/ --ns 1                     # a minute: md/md.trr and md/md.pdb
    python make_alanine_frames.py -o md/ --ns 16 --beads frames.npz # the shipped set
    python make_alanine_frames.py -o water/ --ns 100 --water explicit

The same command again carries on where it was stopped; the result does not depend on interruptions.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms
from replica_exchange import Molecule, ReplicaSettings, run_replicas

from molflow_sim import __version__
from molflow_sim.cg import read_frames
from molflow_sim.runs.files import sha256, write_bytes_atomically

SMILES = "CC(=O)N[C@@H](C)C(=O)NC"
HEAVY = [("ACE", "CH3"), ("ACE", "C"), ("ACE", "O"), ("ALA", "N"), ("ALA", "CA"), ("ALA", "CB"), ("ALA", "C")]
HEAVY += [("ALA", "O"), ("NME", "N"), ("NME", "C")]
"""Residue and atom name, as in Amber's templates, of each heavy atom of the SMILES."""
HYDROGENS = {0: ("H1", "H2", "H3"), 3: ("H",), 4: ("HA",), 5: ("HB1", "HB2", "HB3"), 8: ("H",), 9: ("H1", "H2", "H3")}
BACKBONE = (1, 3, 4, 6, 8)
"""C, N, CA, C, N: the heavy atoms whose dihedrals are φ (first four) and ψ (last four)."""
STARTS = ((-80.0, 150.0), (-150.0, 160.0), (-70.0, -40.0), (60.0, 40.0))
"""φ, ψ in degrees that the replicas start from, in turn."""


@dataclass(frozen=True, kw_only=True)
class Settings(ReplicaSettings):
    """One all-atom run; see `ReplicaSettings` for the rest.

    Attributes
    ----------
    water : str
        ``implicit`` (OBC) or ``explicit`` (TIP3P, 1 bar).
    """

    temperatures: tuple[float, ...] = (300.0, 400.0, 530.0)
    water: str = "implicit"

    @property
    def force_field(self) -> tuple[str, str]:
        """OpenMM's force field files."""
        return ("amber99sbildn.xml", "amber99_obc.xml" if self.water == "implicit" else "tip3p.xml")


def build_capped_alanine(phi: float, psi: float) -> tuple[app.Topology, np.ndarray]:
    """L-alanine with its caps from the SMILES.

    Parameters
    ----------
    phi, psi : float
        Backbone dihedrals in degrees.

    Returns
    -------
    topology : openmm.app.Topology
        22 atoms in three residues, named as Amber's templates ask.
    positions : ndarray, shape (22, 3)
        nm.
    """
    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES))
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(molecule)
    conformer = molecule.GetConformer()
    rdMolTransforms.SetDihedralDeg(conformer, *BACKBONE[:4], phi)
    rdMolTransforms.SetDihedralDeg(conformer, *BACKBONE[1:], psi)
    names = dict(enumerate(HEAVY))
    for heavy, hydrogens in HYDROGENS.items():
        bonded = [a.GetIdx() for a in molecule.GetAtomWithIdx(heavy).GetNeighbors() if a.GetAtomicNum() == 1]
        names |= {index: (HEAVY[heavy][0], name) for index, name in zip(bonded, hydrogens, strict=True)}
    residues = ("ACE", "ALA", "NME")
    order = sorted(names, key=lambda i: (residues.index(names[i][0]), i))
    topology = app.Topology()
    chain = topology.addChain()
    residue = {name: topology.addResidue(name, chain) for name in residues}
    atom = {}
    for index in order:
        element = app.Element.getByAtomicNumber(molecule.GetAtomWithIdx(index).GetAtomicNum())
        atom[index] = topology.addAtom(names[index][1], element, residue[names[index][0]])
    for bond in molecule.GetBonds():
        topology.addBond(atom[bond.GetBeginAtomIdx()], atom[bond.GetEndAtomIdx()])
    return topology, conformer.GetPositions()[order] / 10.0


def solvate(settings: Settings) -> Molecule:
    """The system to simulate, and where each replica starts."""
    field = app.ForceField(*settings.force_field)
    starts = [build_capped_alanine(*STARTS[r % len(STARTS)]) for r in range(len(settings.temperatures))]
    if settings.water == "implicit":
        topology = starts[0][0]
        system = field.createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
        return Molecule(topology, [p for _, p in starts], system, list(range(topology.getNumAtoms())))
    modeller = app.Modeller(starts[0][0], starts[0][1] * unit.nanometer)
    # A cube of 2.8 nm: at the 2.0 nm that a padding of 1.0 gives, the molecule would see its own image within 1.1 nm.
    modeller.addSolvent(field, model="tip3p", padding=1.4 * unit.nanometer)
    system = field.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, constraints=app.HBonds
    )
    system.addForce(openmm.MonteCarloBarostat(1.0, settings.temperatures[0], 25))
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    solute = [a.index for a in modeller.topology.atoms() if a.residue.name in ("ACE", "ALA", "NME")]
    return Molecule(modeller.topology, [positions] * len(settings.temperatures), system, solute)


def run_md(folder: Path, ns: float, settings: Settings | None = None, platform: str | None = None) -> tuple[Path, Path]:
    """Run, or carry on, and write the solute's trajectory.

    Parameters
    ----------
    folder : Path
        Holds the state of the run, md.pdb and md.trr.
    ns : float
        Length at the lowest temperature after equilibration.
    settings : Settings, optional
        Those of the shipped set by default.
    platform : str, optional
        OpenMM's platform; by default Reference in implicit solvent, the fastest there is in water.

    Returns
    -------
    trajectory, topology : Path
    """
    settings = settings or Settings()
    # For 22 atoms the Reference platform takes 50 µs a step, the CPU platform 350 µs; water wants the fastest.
    name = platform or ("Reference" if settings.water == "implicit" else None)
    return run_replicas(folder, ns, settings, lambda: solvate(settings), name)


def save_beads(trajectory: Path, topology: Path, settings: Settings, output: Path) -> None:
    """Map a run to the five backbone beads and write them (npz) with a card beside them (json)."""
    frames = read_frames(trajectory, topology, "backbone", settings.temperatures[0])
    positions = frames.positions - frames.positions.mean(axis=1, keepdims=True)
    source = f"capped alanine, {' + '.join(settings.force_field)}, {settings.temperatures[0]:g} K"
    replace(frames, positions=positions, source=source, lengths=()).save(output)
    card = {
        "system": f"capped alanine (ACE-ALA-NME), {SMILES}, 22 atoms",
        "beads": [frames.topology.label(i) for i in range(frames.topology.n_beads)],
        "frames": frames.n_frames,
        "length_unit": "angstrom",
        "temperature_K": settings.temperatures[0],
        "solvent": "implicit, OBC" if settings.water == "implicit" else "explicit, TIP3P, 1 bar",
        "force_field": list(settings.force_field),
        "constraints": "bonds to hydrogen",
        "integrator": "LangevinMiddleIntegrator",
        **{key: value for key, value in asdict(settings).items() if key not in ("water", "temperatures")},
        "replica_exchange_temperatures_K": list(settings.temperatures),
        "versions": {"openmm": openmm.__version__, "molflow-sim": __version__},
        "made_by": "examples/make_alanine_frames.py",
        "licence": "MIT",
        "sha256": sha256(output.read_bytes()),
    }
    write_bytes_atomically(output.with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())


def settings_for(water: str, seed: int = 2024) -> Settings:
    """Replica exchange in implicit solvent; one temperature in water, where exchange would need many replicas."""
    if water == "explicit":
        return Settings(water="explicit", temperatures=(300.0,), seed=seed)
    return Settings(seed=seed)


def main() -> None:
    """Run the dynamics and write the frames."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("md"), help="folder of the run")
    parser.add_argument("--ns", type=float, default=1.0, help="length at the lowest temperature")
    parser.add_argument("--water", choices=("implicit", "explicit"), default="implicit")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--beads", type=Path, help="also write the five backbone beads (npz and json)")
    options = parser.parse_args()
    settings = settings_for(options.water, options.seed)
    trajectory, topology = run_md(options.output, options.ns, settings)
    if options.beads:
        save_beads(trajectory, topology, settings, options.beads)


if __name__ == "__main__":
    main()
