"""Free energies of the first structures of a landscape, and their order by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from molflow_sim.evaluate.vibrations import Vibrations
from molflow_sim.screening.failures import FAILURES, reason_of
from molflow_sim.screening.landscape import Landscape, LandscapeEntry, relative_energies
from molflow_sim.screening.serialise import crystal_from_json, from_bytes, to_bytes
from molflow_sim.screening.stages import Shared
from molflow_sim.units import KJ_PER_MOL


def vibrating(landscape: Landscape, top: int) -> list[LandscapeEntry]:
    """Entries of the first `top` whose energies are known on the potential that the first was relaxed on."""
    model = landscape[0].relaxed_on
    return [e for e in landscape.entries[:top] if e.relaxed_on == model and np.isfinite(e.relative_energy)]


def vibrations_batch(shared: Shared, item: tuple[str, dict[str, Any]]) -> bytes:
    """Modes of one stored crystal, on what it was relaxed on, ``best`` or the force field; or why there are none."""
    spec, stored = item
    crystal = crystal_from_json(stored, [shared.molecule])
    try:
        parameters = shared.parameters if spec == "potential" else shared.ranking
        found = shared.stages.vibrations(crystal, parameters, spec)
    except FAILURES as error:
        return to_bytes({"reason": reason_of(error, "no vibrations: ")})
    modes = {"wavenumbers": found.wavenumbers.tolist(), "acoustic": found.acoustic.tolist()}
    return to_bytes({"reason": "", **modes, "molecules": found.molecules, "repeats": list(found.repeats)})


def warmed(
    landscape: Landscape, chosen: Sequence[LandscapeEntry], data: Sequence[bytes], temperature: float
) -> Landscape:
    """The landscape with free energies at a temperature (K), those structures that have one in their order.

    A structure without free energy keeps its rank: what is not known moves nothing.

    Parameters
    ----------
    landscape : Landscape
        Ranked by static energies.
    chosen : sequence of LandscapeEntry
        See `vibrating`.
    data : sequence of bytes
        What `vibrations_batch` made of each.
    temperature : float
    """
    vibrational, notes = np.full(len(landscape), np.nan), [e.note for e in landscape]
    for entry, stored in zip(chosen, map(from_bytes, data)):
        k, why = entry.rank - 1, stored["reason"]
        if not why:
            modes = Vibrations(
                np.array(stored["wavenumbers"]),
                np.array(stored["acoustic"]),
                stored["molecules"],
                tuple(stored["repeats"]),
            )
            vibrational[k], why = modes.free_energy(temperature), modes.problem
        notes[k] = "; ".join(x for x in (notes[k], why) if x)
    static = np.array([e.relative_energy for e in landscape])
    free = relative_energies(static * KJ_PER_MOL + vibrational)
    known = np.flatnonzero(np.isfinite(free))
    zero = vibrational[known[0]] if len(known) else np.nan
    order = np.arange(len(landscape))
    order[known] = known[np.argsort(np.round(free[known], 4), kind="stable")]
    entries = tuple(
        replace(
            landscape[k],
            rank=rank,
            static_rank=landscape[k].rank,
            vibrational_free_energy=float(vibrational[k] - zero) / KJ_PER_MOL,
            free_energy_relative=float(free[k]),
            note=notes[k],
        )
        for rank, k in enumerate(order.tolist(), start=1)
    )
    match = landscape.reference
    if match is not None and match.rank is not None:
        match = replace(match, rank=next(e.rank for e in entries if e.static_rank == match.rank))
    return replace(landscape, entries=entries, reference=match)
