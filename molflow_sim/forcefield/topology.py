"""Which atoms of a batch belong to which molecule, and how to make molecules whole across cell walls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from molflow_sim import ordered
from molflow_sim.errors import CrystalError, ParameterError
from molflow_sim.ordered import product


def match_molecules(numbers: np.ndarray, species: Sequence[np.ndarray]) -> list[int]:
    """Species of each molecule when a sequence of atoms is molecules one after another.

    Parameters
    ----------
    numbers : (n,) array of int
        Atomic numbers of one system.
    species : sequence of (N_s,) arrays of int
        Atomic numbers of each species in its atom order.

    Returns
    -------
    list of int
        Index into `species` for each molecule.

    Raises
    ------
    CrystalError
        If the atoms are not a sequence of these molecules.
    """
    n = len(numbers)
    text = np.asarray(numbers, dtype=np.uint8).tobytes()
    patterns = [np.asarray(s, dtype=np.uint8).tobytes() for s in species]
    step = np.full(n + 1, -1)  # species that starts here on a way to the end; -2 at the end itself
    step[n] = -2
    for at in range(n - 1, -1, -1):
        for index, pattern in enumerate(patterns):
            end = at + len(pattern)
            if end <= n and step[end] != -1 and text.startswith(pattern, at):
                step[at] = index
                break
    if n == 0 or step[0] == -1:
        sizes = ", ".join(str(len(p)) for p in patterns)
        raise CrystalError(
            f"the {n} atoms are not whole molecules of this potential one after another (molecules of {sizes} atoms): "
            "keep each molecule's atoms together and in the order of its Molecule"
        )
    out, at = [], 0
    while at < n:
        out.append(int(step[at]))
        at += len(patterns[step[at]])
    return out


@dataclass(frozen=True, eq=False)
class SpanningTree:
    """Bonds that connect a molecule without rings.

    Attributes
    ----------
    parent, child : (N - 1,) int arrays
        Atoms of each edge.
    path : (N, N - 1) float array
        1 where the edge lies between atom 0 and the atom.
    """

    parent: np.ndarray
    child: np.ndarray
    path: np.ndarray

    @staticmethod
    def of_bonds(n_atoms: int, bonds: np.ndarray) -> SpanningTree:
        """Breadth-first tree from atom 0.

        Raises
        ------
        ParameterError
            If the bonds do not connect all atoms.
        """
        near: list[list[int]] = [[] for _ in range(n_atoms)]
        for i, j in np.asarray(bonds, dtype=int).reshape(-1, 2).tolist():
            near[i].append(j)
            near[j].append(i)
        path = np.zeros((n_atoms, max(n_atoms - 1, 0)))
        seen, queue = {0}, [0]
        edges: list[tuple[int, int]] = []
        for i in queue:
            for j in sorted(near[i]):
                if j not in seen:
                    path[j] = path[i]
                    path[j, len(edges)] = 1.0
                    edges.append((i, j))
                    seen.add(j)
                    queue.append(j)
        if len(seen) != n_atoms:
            raise ParameterError(f"the bonds connect {len(seen)} of {n_atoms} atoms; a species is one molecule")
        table = np.array(edges, dtype=np.int64).reshape(-1, 2)
        return SpanningTree(table[:, 0], table[:, 1], path)


_CORNERS = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3, indexing="ij"), -1).reshape(27, 3)


def lattice_shifts(positions: torch.Tensor, cells: torch.Tensor, tree: SpanningTree) -> torch.Tensor:
    """Lattice translations (M, N, 3) that make molecules (M, N, 3) whole; atom 0 stays where it is.

    Every bond of the tree gets its shortest image: rounding in fractional coordinates, and a search of the 26
    neighbouring images where the cell is so flat or skewed that rounding may miss it.

    Parameters
    ----------
    positions : (M, N, 3) tensor
        Å.
    cells : (M, 3, 3) tensor
        Cell rows of each molecule's system, Å.
    tree : SpanningTree
        Tree of the molecule's bonds.
    """
    if positions.shape[1] == 1:
        return torch.zeros_like(positions)
    delta = positions[:, tree.child] - positions[:, tree.parent]
    inverse = ordered.inverse(cells)
    shift = -torch.round(product(delta, inverse))
    image = delta + product(shift, cells)
    height = 1.0 / torch.linalg.vector_norm(inverse, dim=1).amax(-1)  # smallest distance of lattice planes
    length = torch.linalg.vector_norm(image, dim=-1).amax(-1)
    if bool((length > 0.5 * height).any()):
        corners = torch.as_tensor(_CORNERS, device=cells.device).to(cells.dtype)
        options = image.unsqueeze(2) + product(corners, cells).unsqueeze(1)
        shift = shift + corners[torch.linalg.vector_norm(options, dim=-1).argmin(-1)]
    path = torch.as_tensor(tree.path, device=positions.device).to(positions.dtype)
    return path @ shift


@dataclass(frozen=True, eq=False)
class BatchLayout:
    """Molecules and atom groups of a batch of systems.

    Attributes
    ----------
    n_per_system : (S,) int array
        Atoms of each system.
    atom_system : (n,) int array
        System of each atom.
    species : tuple of int
        Species present.
    atoms : tuple of (M, N) LongTensors
        Atom indices of all molecules of each species present.
    system : tuple of (M,) LongTensors
        System of each of these molecules.
    order : (n,) int array
        Atoms sorted by group: group order → batch order. Systems stay contiguous.
    kind : (n, 2) int array
        Species and index in the molecule of each atom, in group order.
    group_start, group_molecule, system_group : int arrays
        As `molflow_sim.forcefield.neighbours.VerletList.update` wants them.
    molecule_start : (M + 1,) int array
        First atom of each molecule.
    system_molecule : (S + 1,) int array
        First molecule of each system.
    """

    n_per_system: np.ndarray
    atom_system: np.ndarray
    species: tuple[int, ...]
    atoms: tuple[torch.Tensor, ...]
    system: tuple[torch.Tensor, ...]
    order: np.ndarray
    kind: np.ndarray
    group_start: np.ndarray
    group_molecule: np.ndarray
    system_group: np.ndarray
    molecule_start: np.ndarray
    system_molecule: np.ndarray

    @property
    def system_atom(self) -> np.ndarray:
        """First atom of each system, shape (S + 1,)."""
        return self.group_start[self.system_group]


def lay_out(
    numbers: np.ndarray,
    system_idx: np.ndarray,
    species_numbers: Sequence[np.ndarray],
    species_groups: Sequence[list[np.ndarray]],
    device: torch.device,
) -> BatchLayout:
    """Recognise the molecules of every system and order its atoms by group.

    Raises
    ------
    CrystalError
        If a system is not a sequence of the species' molecules.
    """
    n_per_system = np.bincount(system_idx)
    known: dict[bytes, list[int]] = {}
    atoms: dict[int, list[np.ndarray]] = {}
    system: dict[int, list[int]] = {}
    order, kind, group_size, group_molecule, system_group = [], [], [], [], [0]
    molecule_start, system_molecule = [0], [0]
    at = molecule = 0
    for s, n in enumerate(n_per_system):
        key = np.asarray(numbers[at : at + n], dtype=np.uint8).tobytes()
        if key not in known:
            known[key] = match_molecules(numbers[at : at + n], species_numbers)
        for index in known[key]:
            size = len(species_numbers[index])
            atoms.setdefault(index, []).append(np.arange(at, at + size))
            system.setdefault(index, []).append(s)
            for group in species_groups[index]:
                order.append(at + group)
                kind.append(np.stack([np.full_like(group, index), group], axis=1))
                group_size.append(len(group))
                group_molecule.append(molecule)
            molecule += 1
            at += size
            molecule_start.append(at)
        system_molecule.append(molecule)
        system_group.append(len(group_size))
    present = tuple(sorted(atoms))
    return BatchLayout(
        n_per_system=n_per_system,
        atom_system=np.asarray(system_idx),
        species=present,
        atoms=tuple(torch.as_tensor(np.stack(atoms[i]), device=device) for i in present),
        system=tuple(torch.as_tensor(np.array(system[i]), device=device) for i in present),
        order=np.concatenate(order),
        kind=np.concatenate(kind),
        group_start=np.concatenate([[0], np.cumsum(group_size)]),
        group_molecule=np.array(group_molecule),
        system_group=np.array(system_group),
        molecule_start=np.array(molecule_start),
        system_molecule=np.array(system_molecule),
    )
