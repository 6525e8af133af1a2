"""GFN-xTB gives the same bits whatever the number of threads."""

import pytest
from processes import on_threads

BENZENE = """
import numpy as np
from ase.build import bulk, molecule
from molflow_sim.energies.foreign import gfn1_xtb, gfn2_xtb
from molflow_sim.forcefield.gfn2 import gfn2_multipoles
from molflow_sim.forcefield.gfn2_energy import GFN2Energy

benzene = molecule("C6H6")
surface = GFN2Energy(benzene.numbers)
for k in range(3):
    energy, gradient = surface((1.0 + 0.02 * k) * benzene.positions)
    print(energy.hex(), gradient.tobytes().hex())
print(b"".join(x.tobytes() for x in gfn2_multipoles(benzene.numbers, benzene.positions)).hex())
print(gfn1_xtb().cell_energy(benzene).hex(), gfn2_xtb().cell_energy(bulk("Si")).hex())
"""


def test_energies_gradients_and_multipoles_have_the_same_bits_on_one_thread_and_on_two():
    pytest.importorskip("tblite", reason="tblite is not installed")
    assert on_threads(1, BENZENE) == on_threads(2, BENZENE)
