"""Checks that every generator must pass."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from molflow_sim.errors import InputError, RequestError
from molflow_sim.generators.protocol import Generator


def validate_generator(
    generator: Generator, request: Any, *, n: int = 12, seed: int = 3, others: Sequence[Generator] = ()
) -> None:
    """Hold a generator to its protocol: rows, numbers, seeds, pieces, pickling, identity and refusals.

    Parameters
    ----------
    generator : Generator
    request : CrystalRequest, ...
        One that it serves.
    n : int
        Candidates drawn, at least 6.
    seed : int
    others : sequence of Generator
        The same with other weights: their identities must differ. (Numbers among the options are varied anyway.)

    Raises
    ------
    ValueError
        Names the failed check and what was found.
    """
    name = getattr(generator, "kind", type(generator).__name__)
    if not isinstance(generator, Generator):
        raise ValueError(f"protocol: {name} lacks kind, sample or identity")
    if not is_dataclass(generator) or not generator.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ValueError(f"protocol: {name} is not a frozen dataclass")
    whole = _rows(generator, request, n, seed, 0)
    if _rows(generator, request, n, seed, 0) != whole:
        raise ValueError(f"seed: {name} draws other structures when it is asked again")
    alike = [a for a, b in zip(whole, _rows(generator, request, n, seed + 1, 0)) if a == b and a[0] is not None]
    if alike:
        raise ValueError(f"seed: {len(alike)} of {n} structures of {name} are the same with another seed")
    drawn = [row for row in whole if row[0] is not None]
    if len(set(drawn)) < len(drawn):
        raise ValueError(f"seed: {name} draws {len(drawn) - len(set(drawn))} of {n} structures twice")
    for first, size in ((n // 2, n - n // 2), (0, n // 2), (n - 1, 1), (1, n // 3)):  # later ones first, on purpose
        if _rows(generator, request, size, seed, first) != whole[first : first + size]:
            raise ValueError(f"pieces: {size} candidates of {name} from {first} on depend on what else is asked for")
    twin = pickle.loads(pickle.dumps(generator))  # noqa: S301
    if twin != generator or _rows(twin, request, n, seed, 0) != whole:
        raise ValueError(f"pickling: a copy of {name} draws other structures")
    _check_identity(generator, [twin], list(others))
    _refused("a request of another kind", RequestError, lambda: generator.sample(object(), 1, seed=seed))
    _refused("no candidates", InputError, lambda: generator.sample(request, 0, seed=seed))


def _rows(generator: Generator, request: Any, n: int, seed: int, first: int) -> list[tuple[bytes | None, str]]:
    """Each candidate by the bytes of its atoms (None if it failed) and its reason; rows and numbers are checked."""
    found = generator.sample(request, n, seed=seed, first_index=first)
    systems, reasons, index = found.systems(), list(found.reasons), np.asarray(found.index)
    if not len(systems) == len(reasons) == len(index) == n:
        raise ValueError(f"rows: {len(systems)} structures, {len(reasons)} reasons, {len(index)} numbers for {n} asked")
    if index.tolist() != list(range(first, first + n)):
        raise ValueError(f"numbers: candidates {first} to {first + n - 1} are numbered {index.tolist()}")
    rows = []
    for k, (system, reason) in enumerate(zip(systems, reasons)):
        if not isinstance(reason, str) or (system is None) != bool(reason):
            what = "has no structure and no reason" if system is None else f"has a structure and the reason {reason!r}"
            raise ValueError(f"failures: candidate {first + k} {what}")
        rows.append((None if system is None else _bytes(system), reason))
    return rows


def _bytes(system: Any) -> bytes:
    atoms = system.to_ase()
    return b"".join(np.ascontiguousarray(a).tobytes() for a in (atoms.numbers, atoms.positions, atoms.cell.array))


def _check_identity(generator: Generator, same: list[Generator], others: list[Generator]) -> None:
    own = json.dumps(generator.identity(), sort_keys=True)
    if any(json.dumps(twin.identity(), sort_keys=True) != own for twin in same):
        raise ValueError(f"identity: a copy of {generator.kind} has another identity")
    for field in fields(generator):  # type: ignore[arg-type]
        value = getattr(generator, field.name)
        changes = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: 0.9 * v + 0.01}
        if type(value) in changes:
            others.append(replace(generator, **{field.name: changes[type(value)](value)}))  # type: ignore[type-var]
    for other in others:
        if json.dumps(other.identity(), sort_keys=True) == own:
            raise ValueError(f"identity: {other} and {generator} have the same")


def _refused(what: str, error: type[Exception], call: Any) -> None:
    try:
        call()
    except error:
        return
    except Exception as other:
        raise ValueError(f"refusals: {what} raises {type(other).__name__}, not {error.__name__}") from other
    raise ValueError(f"refusals: {what} is not refused")
