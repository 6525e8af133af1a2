"""OpenMM topology of whole molecules, with names that a PDB file can hold; OpenMM is needed to import this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from openmm import app
from rdkit import Chem

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

_ORDERS = {
    Chem.BondType.SINGLE: (app.Single, 1),
    Chem.BondType.DOUBLE: (app.Double, 2),
    Chem.BondType.TRIPLE: (app.Triple, 3),
    Chem.BondType.AROMATIC: (app.Aromatic, None),
}


def atom_names(molecule: Molecule) -> list[str]:
    """Names unique in the molecule, at most four characters (``C1``, ``H12``; base 36 beyond 99)."""
    counts: Counter[str] = Counter()
    names = []
    for symbol in molecule.symbols:
        counts[symbol] += 1
        number = counts[symbol]
        names.append(symbol + (str(number) if number < 100 else _base36(number)))
    return names


def _base36(number: int) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    number += 260  # 100 -> "A0", so that it never repeats a decimal name
    return digits[number // 36] + digits[number % 36] if number < 1296 else str(number)


def openmm_topology(molecules: Sequence[Molecule], order: Iterable[int]) -> app.Topology:
    """One chain, one residue per molecule, bonds with their orders; no box.

    Parameters
    ----------
    molecules : sequence of Molecule
        The species. Residues are named ``MOA``, ``MOB``, ... by them.
    order : iterable of int
        Species of every molecule, in the order in which their atoms stand.
    """
    topology = app.Topology()
    chain = topology.addChain("A")
    blueprint = []
    for molecule in molecules:
        elements = [app.Element.getByAtomicNumber(int(n)) for n in molecule.numbers]
        bonds = [
            (b.GetBeginAtomIdx(), b.GetEndAtomIdx(), *_ORDERS.get(b.GetBondType(), (None, None)))
            for b in molecule.rdmol.GetBonds()
        ]
        blueprint.append((atom_names(molecule), elements, bonds))
    for index, species in enumerate(order):
        names, elements, bonds = blueprint[species]
        residue = topology.addResidue(f"MO{chr(ord('A') + species % 26)}", chain, str(index + 1))
        atoms = [topology.addAtom(name, element, residue) for name, element in zip(names, elements)]
        for i, j, kind, bond_order in bonds:
            topology.addBond(atoms[i], atoms[j], kind, bond_order)
    return topology
