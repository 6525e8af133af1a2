"""Identities: short hashes that say what a result was computed from.

A stored batch is used again only if its identity is the one now asked for, so a changed seed, setting, molecule or
version of the code can never be mixed with old results.

The identity of code is a hash over all that the numbers of a stage depend on, found by following its imports.

From the functions or modules that a stage names, imports of our own modules are followed, those inside functions too,
and those for type checking not. Every module so reached counts with its syntax tree, without comments and docstrings;
of a module that a stage names a function of, only what that function refers to. A name that a package passes on,
eagerly or by lazy_loader, leads to the module that defines it and not to the whole package. Libraries that decide
numbers count by their versions, and files of the package that a module names (tables, weights) by their bytes.

What is looked up at run time (``import_module`` of a name, an entry point) is not seen: what is loaded so must say
itself what it depends on, as `Generator.identity` does. Neither are statements in the ``__init__`` of packages above a
module, which pass names on and nothing else.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import molflow_sim
from molflow_sim.errors import StoreError
from molflow_sim.runs.files import sha256

OURS = ("molflow_sim", "molflow_ase", "molflow_openmm")
LIBRARIES = {
    **{name: name for name in ("e3nn", "numba", "numpy", "openmm", "oxtalign", "rdkit", "roma", "scipy", "spglib")},
    **{name: name for name in ("torch", "vesin", "zuko")},
    "torch_sim": "torch-sim-atomistic",
}
"""Imported name and distribution of what decides numbers (nothing optional: to install it must not discard results)."""

_FILE = re.compile(r"[\w./-]+\.\w+")


def digest(*parts: Any, length: int = 12) -> str:
    """Hexadecimal hash of any JSON-like values, the same on every machine and run.

    Parameters
    ----------
    *parts : JSON-like
        Numbers, strings, lists, dicts, None; NumPy scalars and arrays are taken by value.
    length : int
        Number of hexadecimal digits kept (12 digits: 48 bits).
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@cache
def code_identity(*roots: str) -> str:
    """Hash (12 digits) of what code depends on.

    Parameters
    ----------
    *roots : str
        ``module``, ``package`` (with all it holds), ``module:function`` or ``module:Class.method``.

    Raises
    ------
    StoreError
        A root, or a module of ours that is imported on the way, does not exist as source.
    """
    return sha256("\n".join(f"{name} {value}" for name, value in sorted(parts(*roots).items())).encode())[:12]


def code_version(*roots: str) -> str:
    """Version of the package with `code_identity`."""
    return f"{molflow_sim.__version__}+{code_identity(*roots)}"


def parts(*roots: str) -> dict[str, str]:
    """What `code_identity` hashes: modules, functions and files with their hashes, libraries with their versions."""
    found: dict[str, str] = {}
    ours = frozenset((*OURS, *(re.split(r"[.:]", root)[0] for root in roots)))
    todo: list[str] = []
    for root in roots:
        name, _, item = root.partition(":")
        module = _module(name)
        if item:
            nodes = module.reached_from(item)
            found[root] = _hash(nodes)
            others, names = _follow(module, nodes, ours)
            found |= others
            todo += names
        elif module.package:
            below = (path.relative_to(module.path.parent).with_suffix("") for path in module.path.parent.rglob("*.py"))
            todo += {".".join((name, *path.parts)).removesuffix(".__init__") for path in below}
        else:
            todo.append(name)
    if not found and not todo:
        raise StoreError("no code is named, so that its identity would say nothing")
    while todo:
        name = todo.pop()
        if name not in found:
            others, names = _imports(name, ours)
            found |= {**others, name: _module(name).hash}
            todo += names
    return found


def modules_of(*objects: Any) -> list[str]:
    """Modules that define functions, or the classes of other objects: roots of `code_identity`.

    Those of libraries, whose versions count where they are imported, and what has no source are left out.
    """
    found = set()
    for thing in objects:
        while isinstance(thing, partial):
            thing = thing.func
        found.add(getattr(thing, "__module__", None) or "")
    return sorted(name for name in found if name.split(".")[0] not in LIBRARIES and name and _path(name) is not None)


@dataclass(frozen=True, eq=False)
class _Module:
    """A source file of ours."""

    name: str
    path: Path
    tree: ast.Module
    hash: str

    @property
    def package(self) -> bool:
        return self.path.name == "__init__.py"

    def reached_from(self, item: str) -> list[ast.stmt]:
        """The statements of this module that define a function, class or method and all it refers to here."""
        bound: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for name in _bound(statement):
                bound.setdefault(name, []).append(statement)
        first, *inner = item.split(".")
        nodes = bound.get(first, [])
        for name in inner:
            nodes = [child for node in nodes for child in getattr(node, "body", []) if name in _bound(child)]
        if not nodes:
            raise StoreError(f"{self.path} defines no {item}, whose code results depend on")
        reached, todo = list(nodes), list(nodes)
        while todo:
            for node in _walk([todo.pop()]):
                for statement in bound.get(node.id, []) if isinstance(node, ast.Name) else []:
                    if statement not in reached:
                        reached.append(statement)
                        todo.append(statement)
        return reached

    def passed_on(self) -> dict[str, tuple[str, str | None]]:
        """Names that a package takes from its modules: (module, name there)."""
        names: dict[str, tuple[str, str | None]] = {}
        for node in _walk(self.tree.body):
            if isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name: (_source(self, node), alias.name) for alias in node.names}
            elif isinstance(node, ast.keyword) and node.arg == "submod_attrs":
                lazy = ast.literal_eval(node.value)
                names |= {name: (f"{self.name}.{sub}", name) for sub, attributes in lazy.items() for name in attributes}
        return names


@cache
def _module(name: str) -> _Module:
    path = _path(name)
    if path is None:
        raise StoreError(f"the source of {name} is not there, so that results cannot be told from those of other code")
    tree = ast.parse(path.read_bytes(), str(path))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body:
            if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                del body[0]
    return _Module(name, path, tree, _hash(tree.body))


@cache
def _path(name: str) -> Path | None:
    top, *rest = name.split(".")
    try:
        spec = find_spec(top)
    except ValueError:  # __main__ of a session
        spec = None
    if spec is None or spec.origin is None:
        return None
    base = Path(spec.origin)
    if base.name == "__init__.py":
        base = base.parent.joinpath(*rest)
        base = base / "__init__.py" if base.is_dir() else base.with_name(f"{base.name}.py")
    elif rest:
        return None
    return base if base.suffix == ".py" and base.is_file() else None


@cache
def _imports(name: str, ours: frozenset[str]) -> tuple[dict[str, str], list[str]]:
    module = _module(name)
    return _follow(module, module.tree.body, ours)


def _follow(module: _Module, nodes: Sequence[ast.stmt], ours: frozenset[str]) -> tuple[dict[str, str], list[str]]:
    """Versions of libraries that statements of a module import, hashes of files they name; modules of ours."""
    found: dict[str, str] = {}
    todo: list[str] = []
    bound: dict[str, str] = {}
    everything = list(_walk(nodes))
    for node in everything:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                _library(top, found)
                if top in ours:
                    bound[alias.asname or top] = alias.name if alias.asname else top
                    todo += _defining(alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            source = _source(module, node)
            _library(source.split(".")[0], found)
            if source.split(".")[0] in ours:
                for alias in node.names:
                    todo += _defining(source, alias.name)
                    if alias.name != "*" and _path(f"{source}.{alias.name}") is not None:
                        bound[alias.asname or alias.name] = f"{source}.{alias.name}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _FILE.fullmatch(node.value):
            for folder in (module.path.parent, _module(module.name.split(".")[0]).path.parent):
                path = folder / node.value
                if path.suffix != ".py" and path.is_file():
                    found[f"{module.name}/{node.value}"] = sha256(path.read_bytes())
    for node in everything:
        chain = []
        while isinstance(node, ast.Attribute):
            chain.append(node.attr)
            node = node.value
        name = bound.get(node.id) if isinstance(node, ast.Name) else None
        while name and chain:
            todo += _defining(name, attribute := chain.pop())
            name = f"{name}.{attribute}" if _path(f"{name}.{attribute}") else None
    return found, todo


def _defining(name: str, attribute: str | None) -> Iterator[str]:
    """The module that defines what is imported; none for a package by itself, whose attributes are what count."""
    module = _module(name)
    if not module.package:
        yield name
    elif attribute in (passed := module.passed_on()):
        source, inner = passed[attribute]
        if source.split(".")[0] == name.split(".")[0]:
            yield from _defining(source, inner)
        else:
            yield name
    elif attribute is not None:
        below = _path(f"{name}.{attribute}") is not None
        yield from _defining(f"{name}.{attribute}", None) if below else [name]


def _library(name: str, found: dict[str, str]) -> None:
    if name in LIBRARIES:
        try:
            found[f"library {name}"] = version(LIBRARIES[name])
        except PackageNotFoundError:
            found[f"library {name}"] = "not installed"


def _source(module: _Module, node: ast.ImportFrom) -> str:
    """Full name of the module that an import takes names from."""
    if not node.level:
        return node.module or ""
    above = module.name.split(".")
    above = above[: len(above) - node.level + module.package]
    return ".".join([*above, node.module] if node.module else above)


def _walk(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes but annotations and what stands under ``if TYPE_CHECKING``."""
    todo = list(nodes)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            todo += node.orelse
            continue
        for field, value in ast.iter_fields(node):
            if field not in ("annotation", "returns"):
                todo += [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST)]


def _bound(statement: ast.AST) -> set[str]:
    """Names that a statement binds in the module or class it stands in."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    names = set()
    for node in _walk([statement]):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
    return names


def _hash(nodes: Iterable[ast.AST]) -> str:
    return sha256("\n".join(ast.dump(node) for node in nodes).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no stable hash")
