"""How do I get all-atom frames of a folding mini-protein from nothing but its sequence?

CLN025 (YYDPETGTWY), a variant of chignolin: ten residues that fold to a β-hairpin and melt at 343 K (Honda et al.,
J. Am. Chem. Soc. 130, 15327 (2008)). RDKit builds the chain, OpenMM adds hydrogens and runs replica exchange in
implicit solvent, half of the replicas from the hairpin and half from random chains. The frames of the lowest
temperature are kept.

    python make_chignolin_frames.py -o md/ --ns 500 --platform CUDA        # days: see the documentation
    python make_chignolin_frames.py -o md/ --ns 0.5 --solvent obc --replicas 4

The same command again carries on where it was stopped; the result does not depend on interruptions (on a platform
that computes the same forces twice, as Reference does).

The termini are charged, as in the crystal and in the published simulations (Lindorff-Larsen et al., Science 334, 517
(2011)): the salt bridge of N- and C-terminus is part of the hairpin. Asp and Glu are charged too (pH 7).
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mdtraj
import numpy as np
import openmm
from openmm import app, unit
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms
from replica_exchange import Molecule, ReplicaSettings, run_replicas

from molflow_sim.runs.files import atomic_path

SEQUENCE = "YYDPETGTWY"
HAIRPIN = ((0, 150), (-93, 138), (-76, 134), (-72, -21), (-92, -41), (-106, -17), (70, 17), (-104, 153), (-81, 133))
"""φ, ψ in degrees of residues 1 to 9 in the crystal (Protein Data Bank entry 5AWL); the tenth has φ = −137."""
HYDROGEN_BONDS = ((3, 8), (7, 3), (10, 1))
"""Residues whose N and O are 2.8 to 2.9 Å apart in that crystal: N of the first, O of the second, counted from 1."""
BOND_CUTOFF = 3.5
"""N–O distance of a hydrogen bond, Å, at most."""
REGIONS = ((-120.0, 130.0), (-70.0, 145.0), (-65.0, -40.0))
"""φ, ψ in degrees that residues of random chains take: β, polyproline II, helix."""
FORCE_FIELDS = {
    "gbn2": ("amber99sbildn.xml", "implicit/gbn2.xml"),
    "obc": ("amber99sbildn.xml", "amber99_obc.xml"),
}


@dataclass(frozen=True, kw_only=True)
class Settings(ReplicaSettings):
    """One all-atom run; see `ReplicaSettings` for the rest.

    Attributes
    ----------
    solvent : str
        ``gbn2`` (the Born model that folds small proteins in Nguyen et al., J. Am. Chem. Soc. 136, 13959 (2014)) or
        ``obc``, which is six times as fast on a processor.
    """

    temperatures: tuple[float, ...] = (340.0,)
    interval_ps: float = 10.0
    timestep_fs: float = 4.0
    equilibration_ps: float = 1000.0
    solvent: str = "gbn2"


def build_peptide(sequence: str, angles: list[tuple[float, float]]) -> tuple[app.Topology, np.ndarray]:
    """Heavy atoms of a peptide of L-amino acids with trans peptide bonds.

    Parameters
    ----------
    sequence : str
        One letter per residue.
    angles : list of (φ, ψ)
        Degrees, one pair per residue; φ of the first and of proline, and ψ of the last, are left as they are.

    Returns
    -------
    topology : openmm.app.Topology
    positions : ndarray, shape (atoms, 3)
        nm.
    """
    molecule = Chem.Mol(_embedded(sequence))
    conformer = molecule.GetConformer()
    info = [atom.GetPDBResidueInfo() for atom in molecule.GetAtoms()]
    number = {(i.GetResidueNumber(), i.GetName().strip()): n for n, i in enumerate(info)}

    def turn(degrees: float, *atoms: tuple[int, str]) -> None:
        rdMolTransforms.SetDihedralDeg(conformer, *(number[a] for a in atoms), float(degrees))

    for r, (phi, psi) in enumerate(angles, start=1):
        if r > 1:
            turn(180.0, (r - 1, "CA"), (r - 1, "C"), (r, "N"), (r, "CA"))
        if r > 1 and sequence[r - 1] != "P":
            turn(phi, (r - 1, "C"), (r, "N"), (r, "CA"), (r, "C"))
        if r < len(sequence):
            turn(psi, (r, "N"), (r, "CA"), (r, "C"), (r + 1, "N"))
    file = app.PDBFile(io.StringIO(Chem.MolToPDBBlock(molecule, flavor=4)))
    return file.topology, conformer.GetPositions() / 10.0


@cache
def _embedded(sequence: str) -> Chem.Mol:
    molecule = Chem.AddHs(Chem.MolFromSequence(sequence))
    if AllChem.EmbedMolecule(molecule, randomSeed=1) != 0:
        raise SystemExit(f"RDKit found no conformation of {sequence}")
    return Chem.RemoveHs(molecule)


def random_chain(sequence: str, rng: np.random.Generator) -> tuple[app.Topology, np.ndarray]:
    """A chain with random backbone torsions in which no two heavy atoms overlap."""
    while True:
        angles = [REGIONS[i] for i in rng.integers(len(REGIONS), size=len(sequence))]
        topology, x = build_peptide(sequence, angles)
        near = np.linalg.norm(x[:, None] - x[None], axis=-1)
        residue = np.array([a.residue.index for a in topology.atoms()])
        if near[np.abs(residue[:, None] - residue) > 1].min() > 0.3:  # or a bond might pass through a ring
            return topology, x


def protonated(topology: app.Topology, positions: np.ndarray, field: app.ForceField) -> app.Modeller:
    """The molecule with its hydrogens at pH 7."""
    modeller = app.Modeller(topology, positions * unit.nanometer)
    # The Reference platform, since the default one may be a GPU or may fail where there is a driver and no device.
    modeller.addHydrogens(field, pH=7.0, platform=openmm.Platform.getPlatformByName("Reference"))
    return modeller


@cache
def folded(steps: int = 400) -> tuple[app.Topology, np.ndarray]:
    """The hairpin: torsions of the crystal, hydrogen bonds pulled to their length, side chains relaxed.

    Parameters
    ----------
    steps : int
        Of Langevin dynamics at 300 K, 2 fs each, with the hydrogen bonds held.

    Returns
    -------
    topology : openmm.app.Topology
        166 atoms.
    positions : ndarray, shape (atoms, 3)
        nm.
    """
    field = app.ForceField(*FORCE_FIELDS["obc"])  # the faster one: only the start depends on it
    modeller = protonated(*build_peptide(SEQUENCE, [*HAIRPIN, (-137, 0)]), field)
    system = field.createSystem(modeller.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    atom = {(a.residue.index + 1, a.name): a.index for a in modeller.topology.atoms()}
    pull = openmm.CustomBondForce("0.5*k*max(0, r-0.29)^2")
    pull.addGlobalParameter("k", 5000.0)
    for donor, acceptor in HYDROGEN_BONDS:
        pull.addBond(atom[donor, "N"], atom[acceptor, "O"])
    system.addForce(pull)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 10.0, 0.002)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(modeller.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 500)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(steps)
    context.setParameter("k", 0.0)
    openmm.LocalEnergyMinimizer.minimize(context, 1.0, 500)
    return modeller.topology, context.getState(getPositions=True).getPositions(asNumpy=True)._value


def prepare(settings: Settings) -> Molecule:
    """Replicas from the hairpin and, every second, from a random chain."""
    field = app.ForceField(*FORCE_FIELDS[settings.solvent])
    topology, hairpin = folded()
    rng = np.random.default_rng(settings.seed)
    starts = []
    for replica in range(len(settings.temperatures)):
        chain = protonated(*random_chain(SEQUENCE, rng), field) if replica % 2 else None
        starts.append(hairpin if chain is None else np.array(chain.positions.value_in_unit(unit.nanometer)))
    system = field.createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds, hydrogenMass=3.0 * unit.amu
    )
    return Molecule(topology, starts, system, list(range(topology.getNumAtoms())))


def native_structure(trajectory: mdtraj.Trajectory, built: mdtraj.Trajectory) -> tuple[mdtraj.Trajectory, int]:
    """The folded structure: the most central frame of those that have all hydrogen bonds of the hairpin.

    Parameters
    ----------
    trajectory : mdtraj.Trajectory
        Frames of the run.
    built : mdtraj.Trajectory
        The hairpin as built, one frame; taken where fewer than ten frames have the hydrogen bonds.

    Returns
    -------
    native : mdtraj.Trajectory
        One frame.
    n_folded : int
        Frames with the hydrogen bonds.
    """
    atom = {(a.residue.index + 1, a.name): a.index for a in trajectory.topology.atoms}
    pairs = [[atom[donor, "N"], atom[acceptor, "O"]] for donor, acceptor in HYDROGEN_BONDS]
    bonded = np.flatnonzero((mdtraj.compute_distances(trajectory, pairs) < 0.1 * BOND_CUTOFF).all(axis=1))
    if len(bonded) < 10:
        return built, len(bonded)
    some = trajectory[bonded[np.linspace(0, len(bonded) - 1, min(len(bonded), 500)).astype(int)]]
    carbons = some.topology.select("name CA")
    apart = [mdtraj.rmsd(some, some, frame, atom_indices=carbons).mean() for frame in range(some.n_frames)]
    return some[int(np.argmin(apart))], len(bonded)


def run_md(folder: Path, ns: float, settings: Settings, platform: str | None = None) -> tuple[Path, Path, Path]:
    """Run, or carry on; returns trajectory, topology and the folded structure (md.trr, md.pdb, native.pdb).

    Parameters
    ----------
    folder, ns, settings, platform
        As in `run_replicas`; the hairpin of the start is kept as built.pdb.
    """
    molecule = prepare(settings)
    built = mdtraj.Trajectory(molecule.starts[0][None], mdtraj.Topology.from_openmm(molecule.topology))
    with atomic_path(folder / "built.pdb") as path:
        built.save_pdb(str(path))
    trajectory, topology = run_replicas(folder, ns, settings, lambda: molecule, platform)
    frames = mdtraj.load(str(trajectory), top=str(topology))
    native, n = native_structure(frames, built)
    print(f"{n} of {frames.n_frames} frames have the {len(HYDROGEN_BONDS)} hydrogen bonds of the hairpin; ", end="")
    print("folded structure: the most central of them" if native is not built else "folded structure: as built")
    with atomic_path(folder / "native.pdb") as path:
        native.save_pdb(str(path))
    return trajectory, topology, folder / "native.pdb"


def ladder(lowest: float, highest: float, replicas: int) -> tuple[float, ...]:
    """Temperatures in equal ratios, K."""
    return tuple(np.round(np.geomspace(lowest, highest, replicas), 2).tolist()) if replicas > 1 else (lowest,)


def main() -> None:
    """Run the dynamics."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("md"), help="folder of the run")
    parser.add_argument("--ns", type=float, default=500.0, help="length of each replica")
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=340.0, help="of the frames, K")
    parser.add_argument("--highest", type=float, default=550.0, help="of the hottest replica, K")
    parser.add_argument("--solvent", choices=sorted(FORCE_FIELDS), default="gbn2")
    parser.add_argument("--platform", help="OpenMM's, such as CUDA; default: the fastest there is")
    parser.add_argument("--seed", type=int, default=2024)
    options = parser.parse_args()
    temperatures = ladder(options.temperature, options.highest, options.replicas)
    settings = Settings(temperatures=temperatures, solvent=options.solvent, seed=options.seed)
    run_md(options.output, options.ns, settings, options.platform)


if __name__ == "__main__":
    main()
