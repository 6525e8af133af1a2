"""The screening of a molecule: one call from a SMILES to a landscape."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molflow_sim.energies.models import check_energy_spec
from molflow_sim.errors import InputError
from molflow_sim.screening.landscape import Landscape
from molflow_sim.screening.powder import measured
from molflow_sim.screening.search import Search
from molflow_sim.screening.settings import ScreenSettings
from molflow_sim.screening.stages import Stages

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule


def screen(
    molecule: Molecule | str,
    candidates: int | None = None,
    *,
    seed: int | None = None,
    output: str | Path | None = None,
    space_groups: str | Sequence[str] | None = None,
    z_prime: int | None = None,
    charges: str | None = None,
    potential: str | None = None,
    relax_top: int | None = None,
    reference: str | Path | None = None,
    reference_block: str | None = None,
    energy: str | None = None,
    energy_top: int | None = None,
    refine_top: int | None = None,
    temperature: float | None = None,
    generator: str | None = None,
    weights: str | Path | None = None,
    pxrd: str | Path | None = None,
    wavelength: float | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    settings: ScreenSettings | None = None,
    stages: Stages | None = None,
) -> Landscape:
    """Search, relax and rank the crystal structures of a molecule.

    Parameters
    ----------
    molecule : Molecule or str
        The molecule, or its SMILES.
    candidates : int, optional
        Packings to try; the default takes some minutes for an aspirin-sized molecule on two cores.
    seed : int, optional
        Same seed, settings and version: same result.
    output : path, optional
        Results folder (report.html, ranking.csv, structures/ ...); a temporary one if not given. Calling again with
        the same arguments carries on where a former call was stopped, and repeats nothing that is done.
    space_groups : str or sequence of str, optional
        ``"common"``, or symbols (``["P 21/c", "P-1"]`` or ``"P21/c,P-1"``).
    z_prime : int, optional
        Molecules in the asymmetric unit.
    charges : str, optional
        ``mmff94``, ``hf-esp`` (pyscf), ``gfn2`` or ``gfn2-esp`` (extra ``xtb``).
    potential : str, optional
        ``fit``, or ``bespoke``: fitted to SO3LR for this molecule first, see `molflow_sim.bespoke`.
    relax_top : int, optional
        How many packings are relaxed with flexible molecules.
    reference : path, optional
        CIF of the experimental form; the result then says where it came.
    reference_block : str, optional
        Its data block, where it has several.
    energy : str, optional
        What ranks, see `molflow_sim.energies.models`: ``"best"``, the mean of force field and SO3LR, unless said
        otherwise; ``"potential"`` is the force field alone.
    energy_top : int, optional
        How many structures it ranks; the others follow.
    refine_top : int, optional
        How many of the first are relaxed again on ``"best"``, where that ranks.
    temperature : float, optional
        K; the first ten are ranked by their free energy with harmonic lattice vibrations.
    generator : str, optional
        Where the packings come from: ``random``, ``flow`` (a trained crystal flow) or ``mixed`` (half of each).
    weights : path, optional
        Folder of weights for the flow instead of those of the package.
    pxrd : path, optional
        Measured powder pattern (text, two columns: 2θ and intensity) that every ranked structure is compared with.
    wavelength : float, optional
        Å, of that pattern and of the simulated ones; Cu Kα by default.
    scheduler : str, optional
        Address of a Dask scheduler (``tcp://...``); batches run in this process otherwise.
    overwrite : bool
        Replace the results of another run in `output`.
    progress : bool
        Show progress on standard error.
    settings : ScreenSettings, optional
        All settings at once, those of `ScreenSettings` by default; the arguments above that are given take precedence.
    stages : Stages, optional
        Other implementations of the steps.

    Returns
    -------
    Landscape

    Raises
    ------
    InputError
        Arguments that cannot be used (MoleculeError, SpaceGroupError, CrystalError for the reference...).
    StoreError
        `output` belongs to another run or is in use.
    WeightsError
        The generator's weights are missing or damaged.
    NoCandidatesError
        Nothing survived a step; the message counts the reasons.
    MissingDependencyError
        An optional library that was asked for is not installed.
    """
    given: dict[str, Any] = {
        "candidates": candidates, "seed": seed, "space_groups": space_groups, "z_prime": z_prime, "charges": charges,
        "potential": potential, "relax_top": relax_top, "energy": energy, "energy_top": energy_top,
        "refine_top": refine_top, "temperature": temperature, "generator": generator, "weights": weights, "pxrd": pxrd,
        "wavelength": wavelength,
    }  # fmt: skip
    chosen = replace(settings or ScreenSettings(), **{k: value for k, value in given.items() if value is not None})
    if isinstance(molecule, str):
        from molflow_sim.systems.molecule import Molecule

        molecule = Molecule.from_smiles(molecule)
    elif not hasattr(molecule, "conformers"):
        raise InputError(f"screen needs a Molecule or a SMILES, not {type(molecule).__name__}")
    check_energy_spec(chosen.energy)
    measured(chosen)  # refuses what cannot be compared before the work begins
    if reference_block is not None and reference is None:
        raise InputError(f"a data block is named, {reference_block}, but no reference (--reference) to find it in")
    experiment = None
    if reference is not None:
        from molflow_sim.screening.reference import read_reference

        experiment = read_reference(reference, molecule, reference_block)
    folder = Path(tempfile.mkdtemp(prefix="molflow-")) if output is None else Path(output)
    return Search(molecule, chosen, stages or Stages(), folder, overwrite, progress).run(scheduler, experiment)
