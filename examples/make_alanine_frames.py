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
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms

from molflow_sim import __version__
from molflow_sim.cg import read_frames
from molflow_sim.files import atomic_path, sha256, write_bytes_atomically
from molflow_sim.units import BOLTZMANN, KJ_PER_MOL

SMILES = "CC(=O)N[C@@H](C)C(=O)NC"
HEAVY = [("ACE", "CH3"), ("ACE", "C"), ("ACE", "O"), ("ALA", "N"), ("ALA", "CA"), ("ALA", "CB"), ("ALA", "C")]
HEAVY += [("ALA", "O"), ("NME", "N"), ("NME", "C")]
"""Residue and atom name, as in Amber's templates, of each heavy atom of the SMILES."""
HYDROGENS = {0: ("H1", "H2", "H3"), 3: ("H",), 4: ("HA",), 5: ("HB1", "HB2", "HB3"), 8: ("H",), 9: ("H1", "H2", "H3")}
BACKBONE = (1, 3, 4, 6, 8)
"""C, N, CA, C, N: the heavy atoms whose dihedrals are φ (first four) and ψ (last four)."""
STARTS = ((-80.0, 150.0), (-150.0, 160.0), (-70.0, -40.0), (60.0, 40.0))
"""φ, ψ in degrees that the replicas start from, in turn."""
SAVE_EVERY_PS = 500.0


@dataclass(frozen=True)
class Settings:
    """One all-atom run.

    Attributes
    ----------
    water : str
        ``implicit`` (OBC) or ``explicit`` (TIP3P, 1 bar).
    temperatures : tuple of float
        Replica temperatures in K, rising; the frames are the first one's.
    interval_ps, timestep_fs, friction_ps : float
        Between frames (and exchanges) in ps; integration step in fs; Langevin friction in 1/ps.
    equilibration_ps : float
        Left out at the start, per replica.
    seed : int
        Same seed, same versions: same frames.
    """

    water: str = "implicit"
    temperatures: tuple[float, ...] = (300.0, 400.0, 530.0)
    interval_ps: float = 2.0
    timestep_fs: float = 2.0
    friction_ps: float = 1.0
    equilibration_ps: float = 100.0
    seed: int = 2024

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


def solvate(settings: Settings) -> tuple[app.Topology, list[np.ndarray], openmm.System]:
    """The system to simulate, and where each replica starts (nm)."""
    field = app.ForceField(*settings.force_field)
    starts = [build_capped_alanine(*STARTS[r % len(STARTS)]) for r in range(len(settings.temperatures))]
    if settings.water == "implicit":
        topology = starts[0][0]
        system = field.createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
        return topology, [positions for _, positions in starts], system
    modeller = app.Modeller(starts[0][0], starts[0][1] * unit.nanometer)
    modeller.addSolvent(field, model="tip3p", padding=1.0 * unit.nanometer)
    system = field.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, constraints=app.HBonds
    )
    system.addForce(openmm.MonteCarloBarostat(1.0, settings.temperatures[0], 25))
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return modeller.topology, [positions] * len(settings.temperatures), system


class Dynamics:
    """Replicas that take turns in one context, seeded anew for each block: a block depends on its start only."""

    def __init__(self, settings: Settings, platform: str | None = None) -> None:
        self.settings = settings
        self.topology, starts, self.system = solvate(settings)
        # For 22 atoms the Reference platform takes 50 µs a step, the CPU platform 350 µs; water wants the fastest.
        name = platform or ("Reference" if settings.water == "implicit" else None)
        step = settings.timestep_fs * 1e-3
        self.integrator = openmm.LangevinMiddleIntegrator(settings.temperatures[0], settings.friction_ps, step)
        chosen = (openmm.Platform.getPlatformByName(name),) if name else ()
        self.context = openmm.Context(self.system, self.integrator, *chosen)
        self.solute = [a.index for a in self.topology.atoms() if a.residue.name in ("ACE", "ALA", "NME")]
        self.boxes = [np.empty(0)] * len(starts)
        self.positions: list[np.ndarray] = []
        self.velocities: list[np.ndarray] = []
        for replica, (start, temperature) in enumerate(zip(starts, settings.temperatures)):
            self.context.setPositions(start)
            openmm.LocalEnergyMinimizer.minimize(self.context, 10.0, 200)
            self.context.setVelocitiesToTemperature(temperature, settings.seed + replica)
            self.positions.append(np.empty(0))
            self.velocities.append(np.empty(0))
            self._store(replica)
        self.rng = np.random.default_rng()
        self.exchanges = np.zeros(2, dtype=int)

    def _store(self, replica: int) -> float:
        state = self.context.getState(getPositions=True, getVelocities=True, getEnergy=True)
        self.positions[replica] = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        self.velocities[replica] = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
        self.boxes[replica] = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL

    def block(self, number: int, n_frames: int) -> np.ndarray:
        """Run one block and return the frames of the lowest temperature, (n_frames, atoms, 3) in nm."""
        self.rng = np.random.default_rng([self.settings.seed, number])
        self.integrator.setRandomNumberSeed(int(self.rng.integers(1, 2**31 - 1)))
        for force in self.system.getForces():
            if isinstance(force, openmm.MonteCarloBarostat):
                force.setRandomNumberSeed(int(self.rng.integers(1, 2**31 - 1)))
        self.context.reinitialize()
        return np.stack([self._advance() for _ in range(n_frames)])

    def _advance(self) -> np.ndarray:
        steps = round(self.settings.interval_ps * 1e3 / self.settings.timestep_fs)
        temperatures, energies = self.settings.temperatures, []
        for replica, temperature in enumerate(temperatures):
            self.integrator.setTemperature(temperature)
            if self.settings.water == "explicit":
                self.context.setPeriodicBoxVectors(*self.boxes[replica])
                self.context.setParameter(openmm.MonteCarloBarostat.Temperature(), temperature)
            self.context.setPositions(self.positions[replica])
            self.context.setVelocities(self.velocities[replica])
            self.integrator.step(steps)
            energies.append(self._store(replica))
        frame = self.positions[0][self.solute]
        first = int(self.rng.integers(2))
        for low in range(first, len(temperatures) - 1, 2):
            beta = [1.0 / (BOLTZMANN * t) for t in temperatures[low : low + 2]]
            log_accept = (beta[0] - beta[1]) * (energies[low] - energies[low + 1])
            accepted = np.log(self.rng.random()) < log_accept
            self.exchanges += (accepted, 1)
            if accepted:
                self._swap(low, low + 1)
        return frame

    def _swap(self, a: int, b: int) -> None:
        ratio = np.sqrt(self.settings.temperatures[b] / self.settings.temperatures[a])
        self.positions[a], self.positions[b] = self.positions[b], self.positions[a]
        self.velocities[a], self.velocities[b] = self.velocities[b] / ratio, self.velocities[a] * ratio
        self.boxes[a], self.boxes[b] = self.boxes[b], self.boxes[a]


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
    import mdtraj

    settings = settings or Settings()
    wanted = max(1, round(1e3 * ns / settings.interval_ps))
    folder.mkdir(parents=True, exist_ok=True)
    state, described = folder / "state.npz", json.dumps(asdict(settings))
    dynamics = Dynamics(settings, platform)
    n_skip = round(settings.equilibration_ps / settings.interval_ps)
    n_block = max(1, round(SAVE_EVERY_PS / settings.interval_ps))
    frames, block = np.empty((0, len(dynamics.solute), 3), dtype=np.float32), 0
    if state.is_file():
        with np.load(state) as saved:
            if str(saved["settings"]) != described:
                raise SystemExit(f"{folder} holds a run with other settings; choose another folder")
            frames, block = saved["frames"], int(saved["block"])
            dynamics.positions, dynamics.velocities = list(saved["positions"]), list(saved["velocities"])
            dynamics.boxes, dynamics.exchanges = list(saved["boxes"]), saved["exchanges"]
        print(f"carrying on from frame {len(frames)}", flush=True)
    elif n_skip:
        dynamics.block(0, n_skip)
        dynamics.exchanges[:] = 0
    start, done = time.time(), len(frames)
    while len(frames) < wanted:
        block += 1
        frames = np.concatenate([frames, dynamics.block(block, n_block).astype(np.float32)])
        with atomic_path(state) as path:
            np.savez(
                path,
                settings=described,
                frames=frames,
                block=block,
                positions=np.array(dynamics.positions),
                velocities=np.array(dynamics.velocities),
                boxes=np.array(dynamics.boxes),
                exchanges=dynamics.exchanges,
            )
        rate = (len(frames) - done) / (time.time() - start)
        print(
            f"{len(frames) * settings.interval_ps / 1e3:.1f} of {ns:g} ns, {max(0, wanted - len(frames)) / rate:.0f} s "
            f"left, {dynamics.exchanges[0]} of {dynamics.exchanges[1]} exchanges accepted",
            flush=True,
        )
    topology = mdtraj.Topology.from_openmm(dynamics.topology).subset(dynamics.solute)
    trajectory = mdtraj.Trajectory(frames[:wanted], topology)
    with atomic_path(folder / "md.pdb") as path:
        trajectory[0].save_pdb(str(path))
    with atomic_path(folder / "md.trr") as path:
        trajectory.save_trr(str(path))
    return folder / "md.trr", folder / "md.pdb"


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
