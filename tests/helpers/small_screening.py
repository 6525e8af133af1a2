"""A screening of seconds for tests that kill it; all that it needs is imported here."""

from pathlib import Path

import molflow_sim.energies.ensemble
import molflow_sim.evaluate.deduplicate
import molflow_sim.packing
import molflow_sim.relax.flexible
import molflow_sim.screening.outputs
import molflow_sim.screening.pipeline
import molflow_sim.screening.plots
import molflow_sim.screening.report  # noqa: F401
from molflow_sim import Molecule, screen
from molflow_sim.screening import ScreenSettings

SETTINGS = ScreenSettings(
    candidates=48, batch_size=6, compare_top=24, relax_top=16, relax_batch=2, generator="random",
    space_groups=("P -1", "P 1 21/c 1"),
)  # fmt: skip


def run(folder: Path) -> None:
    """Screen formamide into a folder."""
    screen(Molecule.from_smiles("NC=O"), output=folder, settings=SETTINGS, progress=False)
