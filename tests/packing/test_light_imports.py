"""The press and its arrays work where torch, Numba, NumPy and SciPy are all there is, as on machines that train."""

from processes import without_chemistry

SCRIPT = """
    import numpy as np
    from types import SimpleNamespace
    from molflow_sim.packing import PressSettings, RigidPackings, press
    from molflow_sim.symmetry.placements import Placement

    # Hydrogen-like diatomics in P -1, given as arrays.
    positions = np.array([[[-0.6, 0, 0], [0.6, 0, 0]]])
    molecule = SimpleNamespace(n_atoms=2, bonds=np.array([[0, 1]]), energies=np.zeros(1), molar_mass=28.0)
    parameters = SimpleNamespace(numbers=np.array([7, 7]), exp6_a=np.full(2, 2638.0), exp6_b=np.full(2, 3.78),
                                 exp6_c=np.full(2, 14.29), charges=np.zeros(2))
    signs = np.array([1.0, -1.0])[:, None, None] * np.eye(3)
    place = Placement("P -1", "triclinic", "", signs, np.zeros((2, 3)), signs, (0, 1), np.array([0, 1]))
    rng = np.random.default_rng(0)
    n = 20
    rotation = np.linalg.qr(rng.normal(size=(n, 1, 3, 3)))[0]
    rotation *= np.linalg.det(rotation)[..., None, None]
    packings = RigidPackings.proposed(molecule, positions, [place], np.zeros(n, int), np.zeros(n, int),
                                      np.tile(np.eye(3) * 5.0, (n, 1, 1)), rng.random((n, 1, 3)), rotation)
    out = press(packings, parameters, PressSettings(reduce_cells=False))
    assert out.ok.mean() > 0.8, out.reasons
    print("pressed", int(out.ok.sum()))
"""


def test_the_press_needs_no_chemistry_library():
    assert without_chemistry(SCRIPT).startswith("pressed")
