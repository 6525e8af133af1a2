"""One door to every generator: structures of a kind, with what is needed to make them again."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import molflow_sim
from molflow_sim.errors import InputError, NoCandidatesError
from molflow_sim.generators.protocol import (
    DEFAULT_METHOD,
    REQUESTS,
    Generator,
    generator_identity,
    make_generator,
    space_group_names,
    whole_number,
)
from molflow_sim.registry import build
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.generators.ensembles import EnsembleSettings
    from molflow_sim.systems.molecule import Molecule

ENSEMBLE = ("energy", "window", "focus", "pool")
"""Options of conformers that say what is made of the draws, see `molflow_sim.generators.ensembles`."""
BATCH = 500
"""Candidates generated and pressed at once."""


def generate(
    kind: str,
    molecules: Molecule | str | Sequence[Molecule | str],
    n: int = 100,
    *,
    method: str | None = None,
    seed: int = 0,
    weights: str | Path | None = None,
    press: bool = False,
    charges: str = "mmff94",
    **options: Any,
) -> Any:
    """Structures straight from a generator; crystals and clusters neither relaxed nor ranked.

    Parameters
    ----------
    kind : {"crystals", "clusters", "conformers"}
    molecules : Molecule or str
        The molecule, or its SMILES; a sequence of them for kinds of structure that have several.
    n : int
        How many are generated.
    method : str, optional
        The generator: ``random``, ``flow``, ``mixed`` for crystals, ``random``, ``packmol`` for clusters, ``etkdg``,
        ``mmff``, ``torsions``, ``mixed`` for conformers, or another that is installed (``molflow doctor`` lists them).
        If not given, ``flow`` for crystals, ``random`` for clusters, ``torsions`` for conformers.
    seed : int
        Same seed, settings and version: same structures.
    weights : path, optional
        Folder of weights for the generator; those of the package if not given.
    press : bool
        Press crystals to rigid minima of the potential; what does not converge to a plausible density is left out.
    charges : str
        Charge model of the potential, with `press`.
    **options
        Further fields of the request (for crystals ``space_groups``, ``z_prime``: `CrystalRequest`; for clusters
        ``copies``, ``density``, ``periodic``: `ClusterRequest`), for conformers ``energy``, ``window``, ``pool``
        (`molflow_sim.generators.ensembles.EnsembleSettings`), and options of the generator (``draws`` of the flow,
        ``share`` of the mixture ...).

    Returns
    -------
    list of MolecularCrystal or MolecularCluster, or a Molecule
        Conformers come as one `Molecule`, lowest energy first, with `energies` and Boltzmann `shares`. The `info` tells
        where structures come from: ``name``, ``candidate`` (its number), ``seed``, ``generator`` and its options,
        ``weights`` (SHA-256), ``version``, ``pressed``, and after the press ``energy_kj_per_mol`` (lattice energy and
        strain, per molecule). Candidates that failed are left out, with a warning that counts the reasons.

    Raises
    ------
    InputError
        Arguments that cannot be used (MoleculeError, SpaceGroupError, PluginError ...).
    WeightsError
        Missing or damaged weights.
    NoCandidatesError
        No candidate is left.
    """
    from molflow_sim.systems.molecule import Molecule

    generator, identity, asked = checked(
        kind, n, method=method, seed=seed, weights=weights, press=press, charges=charges, **options
    )
    several = not isinstance(molecules, (str, Molecule))
    if several and kind != "clusters":
        raise InputError(f"{kind} are of one molecule; call for each molecule by itself")
    listed: Any = molecules if several else [molecules]
    method = method or DEFAULT_METHOD[kind]
    search = searches_conformers(kind, generator)
    given: list[Molecule] = [Molecule.from_smiles(m, search=search) if isinstance(m, str) else m for m in listed]
    request = REQUESTS[kind](tuple(given) if several else given[0], **asked)
    version = f"{molflow_sim.__version__}+{identity['code']}"
    notes: dict[str, Any] = {"seed": seed, "generator": method, "version": version}
    notes |= {"pressed": press} if kind != "conformers" else {}
    notes |= {key: value for key, value in asdict(generator).items() if key != "weights"}  # type: ignore[call-overload]
    if found := identity.get("weights", identity.get("first", {}).get("weights")):
        notes["weights"] = f"sha256:{found}"
    if "package" in identity:
        notes["package"] = identity["package"]
    name = " + ".join(m.name or m.formula for m in given)
    if kind == "conformers":
        from molflow_sim.generators.ensembles import ensemble

        settings = ensemble_settings(options)
        return ensemble(given[0], n, generator, seed=seed, settings=settings, info={"name": name, **notes})
    if press:
        from molflow_sim.forcefield import parametrize
        from molflow_sim.packing import press as run_press
        from molflow_sim.packing.candidates import packings_of

        parameters = parametrize(given[0], charges)
    systems: list[Any] = []
    failed: Counter[str] = Counter()
    for first in range(0, n, BATCH):
        candidates: Any = generator.sample(request, min(BATCH, n - first), seed=seed, first_index=first)
        if press:
            candidates = run_press(packings_of(candidates, given[0]), parameters)
        for i, (number, reason, system) in enumerate(zip(candidates.index, candidates.reasons, candidates.systems())):
            if system is None:
                failed[reason] += 1
                continue
            own: dict[str, Any] = {"candidate": int(number)}
            if kind == "crystals" or system.cell is not None:
                own["density_g_per_cm3"] = float(system.density)
            if press:
                own["energy_kj_per_mol"] = float(candidates.energy[i]) / KJ_PER_MOL
            systems.append(system.with_info(name=name, **notes, **own))
    counts = ", ".join(f"{count} {reason}" for reason, count in failed.most_common())
    if not systems:
        raise NoCandidatesError(f"none of {n} candidates of {name} is left: {counts}")
    if failed and not press:
        warnings.warn(f"{failed.total()} of {n} candidates of {name} failed: {counts}", stacklevel=2)
    return systems


def checked(
    kind: str,
    n: int,
    *,
    method: str | None = None,
    seed: int,
    weights: str | Path | None,
    press: bool,
    charges: str,
    **options: Any,
) -> tuple[Generator, dict[str, Any], dict[str, Any]]:
    """The generator, its identity and the fields of the request that `generate` makes of its arguments.

    Raises
    ------
    InputError, WeightsError
        As `generate`, for whatever does not hang on the molecule.
    """
    if press and kind != "crystals":
        raise InputError(f"only crystals can be pressed, not {kind}")
    whole_number("the number of candidates", n, 1)
    whole_number("seed", seed, 0)
    of_request = {f.name for f in fields(REQUESTS[kind])} if kind in REQUESTS else set()
    if kind == "conformers":
        ensemble_settings(options)
        of_request |= set(ENSEMBLE)
    own = {name: value for name, value in options.items() if name not in of_request}
    if weights is not None:
        own["weights"] = str(weights)
    generator = make_generator(kind, method or DEFAULT_METHOD.get(kind, ""), **own)
    asked = {name: options[name] for name in options if name in of_request and name not in ENSEMBLE}
    if "space_groups" in asked:
        asked["space_groups"] = space_group_names(asked["space_groups"])
    return generator, generator_identity(generator), asked


def searches_conformers(kind: str, generator: Generator) -> bool:
    """Whether conformers of a SMILES are searched for before the generator gets its molecule."""
    return kind != "conformers" and bool(getattr(generator, "uses_conformers", True))


def ensemble_settings(options: Mapping[str, Any]) -> EnsembleSettings:
    """What those of `options` that are about it make of the draws of conformers; InputError where they cannot."""
    from molflow_sim.generators.ensembles import EnsembleSettings

    return build(EnsembleSettings, {name: options[name] for name in ENSEMBLE if name in options}, "conformers")
