"""PyXtal's random molecular crystals as RigidPackings, so that both generators go through the same press."""

import warnings
from functools import cache
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from molflow_sim import Molecule, SpaceGroup
from molflow_sim.packing import RigidPackings
from molflow_sim.symmetry.placements import COMMON_SPACE_GROUPS, general_placement
from molflow_sim.symmetry.spacegroup import cell_matrix

MAX_ATTEMPTS = 20
VDW_FACTOR = 0.8
"""Share of the sum of van der Waals radii that the stricter tolerance keeps atoms apart by: above the 0.7 of hydrogen
bonds, for the press closes gaps sooner than it parts molecules, and enough for no two heavy atoms to clash."""


def pyxtal_packings(
    molecule: Molecule, n: int, *, seed: int = 0, first_index: int = 0, vdw: bool = False
) -> RigidPackings:
    """Random crystals of PyXtal, one molecule in a general position.

    Its default tolerance keeps atoms apart by 1.2 times the sum of covalent radii; with `vdw` by `VDW_FACTOR` times
    that of the van der Waals radii.

    The space groups are drawn with the frequencies that `random_packings` uses, in PyXtal's standard settings;
    conformers are drawn in turn.

    Raises
    ------
    RuntimeError
        If PyXtal describes a group otherwise than gemmi, or fails too often.
    """
    from pymatgen.core import Molecule as PymatgenMolecule
    from pyxtal.molecule import pyxtal_molecule
    from pyxtal.tolerance import Tol_matrix

    tolerance = Tol_matrix(prototype="vdW", factor=VDW_FACTOR) if vdw else Tol_matrix(prototype="molecular")
    rng = np.random.default_rng(seed)
    shares = [(SpaceGroup.from_name(k[0]), share) for k, share in COMMON_SPACE_GROUPS.items()]
    if molecule.is_enantiopure:
        shares = [(group, share) for group, share in shares if group.is_sohncke]
    choices = [group for group, _ in shares]
    weights = np.array([share for _, share in shares])
    weights = weights / weights.sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The molecule's own tolerance is the one that counts between its copies.
        shapes = [
            pyxtal_molecule(PymatgenMolecule(list(molecule.symbols), x), fix=True, tm=tolerance)
            for x in molecule.conformers
        ]
        rows = []
        while len(rows) < n:
            conformer = len(rows) % len(shapes)
            for _ in range(MAX_ATTEMPTS):
                made = _one(shapes[conformer], choices[rng.choice(len(choices), p=weights)], rng, tolerance)
                if made is not None:
                    break
            else:
                raise RuntimeError(f"PyXtal made no crystal of {molecule.smiles} in {MAX_ATTEMPTS} attempts")
            name, cell, positions = made
            rotation, centre = _pose(molecule, conformer, positions)
            rows.append((name, conformer, cell, centre @ np.linalg.inv(cell), rotation))
    names = sorted({r[0] for r in rows})
    return RigidPackings.proposed(
        molecule,
        molecule.conformers,
        [general_placement(name) for name in names],
        np.array([names.index(r[0]) for r in rows]),
        np.array([r[1] for r in rows]),
        np.array([r[2] for r in rows]),
        np.array([r[3] for r in rows])[:, None],
        np.array([r[4] for r in rows])[:, None],
        first_index + np.arange(n),
    )


def _one(
    shape: Any, group: SpaceGroup, rng: np.random.Generator, tolerance: Any
) -> tuple[str, np.ndarray, np.ndarray] | None:
    """(setting, cell, positions of the first molecule in Å) of one crystal, or None where PyXtal gives up."""
    from pyxtal import pyxtal

    crystal = pyxtal(molecular=True)
    try:
        crystal.from_random(
            3, group.number, [shape], [group.order], random_state=int(rng.integers(2**31)), tm=tolerance
        )
    except RuntimeError:  # it has tried often enough
        return None
    if not crystal.valid:
        return None
    if len(crystal.mol_sites) != 1:  # several special positions instead of the general one
        return None
    site = crystal.mol_sites[0]
    _same_operations(group.name, tuple(str(op.as_xyz_str()) for op in site.wp.ops))
    fractional, _ = site._get_coords_and_species(absolute=False, first=True)
    cell = cell_matrix(np.array(crystal.lattice.get_para(degree=True)))
    return group.name, cell, np.asarray(fractional)[: len(shape.mol)] @ cell


def _pose(molecule: Molecule, conformer: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and centre of mass (Å) that put a conformer on these atoms."""
    masses = molecule.masses / molecule.masses.sum()
    centre = masses @ positions
    rotation = Rotation.align_vectors(positions - centre, molecule.conformers[conformer])[0].as_matrix()
    misfit = np.abs(molecule.conformers[conformer] @ rotation.T + centre - positions).max()
    if misfit > 0.02:
        raise RuntimeError(f"PyXtal changed the molecule or its atom order (misfit {misfit:.2f} Å)")
    return rotation, centre


@cache
def _same_operations(name: str, operations: tuple[str, ...]) -> None:
    import gemmi

    def key(op: gemmi.Op) -> str:
        return op.wrap().triplet()

    ours = {key(gemmi.Op(s)) for s in SpaceGroup.from_name(name).symbols}
    if {key(gemmi.Op(s)) for s in operations} != ours:
        raise RuntimeError(f"PyXtal describes {name} by other operations: {operations}")
