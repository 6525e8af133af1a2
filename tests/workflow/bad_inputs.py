"""Corpora of bad input, made by seeded mutation, and a runner that bounds time and memory for each item."""

import multiprocessing as mp
import random
import re
import resource
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

HAND_WRITTEN_CIFS = [
    "", "\x00\x01\x02", "data_", "data_x\nloop_", "data_x\nloop_\n_atom_site_label\n",
    "data_x\n_cell_length_a 'unclosed\n",
    "data_x\n;\nnever closed\n", "data_x data_y data_z\n", "loop_\n_a\n1 2 3\n", "{'not': 'a cif'}\n",
    "data_x\n" + "_a 1\n" * 3, "data_x\nsave_frame\n_a 1\n", "<html>404</html>\n", "data_x\n_cell_length_a 1e400\n",
    "\n" * 1000,
]  # fmt: skip

HAND_WRITTEN_SMILES = [
    "", " ", "\n", "C\nC", "C C", "(", ")", "[", "]", "[]", "[C", "C]", "C(", "C)", "C1", "C11", "C%", "C%1", "C%%",
    "%12", "C==C", "C=#C", "C#", "=", "#", "-", ".", "..", "C.", ".C", "C.C", "C..C", "*", "[*]", "R", "[R]", "X",
    "Q", "Zz", "[Zz]", "[C-999]", "[C+999999999999]", "[99999999999C]", "[CH99]", "[H]", "[H][H]", "[2H]", "[He]",
    "[Og]", "[Fe]", "[Na+].[Cl-]", "C[Pt](Cl)(Cl)C", "[CH3]", "[CH2]", "[C]", "[O]", "O=O", "[O][O]", "[N]=O", "C[O]",
    "[OH-]", "[NH4+]", "CC(=O)[O-]", "C[N+](C)(C)C", "C(C)(C)(C)(C)C", "FF(F)F", "O(C)(C)C", "N(C)(C)(C)C", "c", "cc",
    "c1ccc1", "c1cccc1", "c1ccccc", "n1cccc1", "c1ccccc1c", "C@", "[C@@@]", "[C@TH9]", "F/C", "F/C=C", "C/C/=C",
    "C\\", "/", "\\", "CC>>CC", "CC>", "C|$foo$|", "C |x|", "InChI=1S/CH4/h1H4", "CH4", "benzene", "<script>",
    "../../etc/passwd", "C;C", "C:C", "C~C", "C$C", "C!C", "C&C", "é", "碳", "C\x00C", "\x7f", "C" * 70, "C" * 300,
    "C" * 100_000, "(" * 5000, "[" * 5000, "C(" * 2000, "1" * 2000, "C1CC1" * 60, "N" * 30, "O" * 30,
    "c1ccc2ccccc2c1" * 20, "[SeH2]", "C[Se]C", "[AsH3]", "[SiH4]", "[BH3]", "B", "OB(O)O", "S(F)(F)(F)(F)(F)F",
    "P(F)(F)(F)(F)F", "I(F)(F)(F)(F)F", "Cl(=O)(=O)(=O)O", "[Xe]", "F[Xe]F", "C12C3C4C1C5C2C3C45", "C1C2C1C2",
    "C1#CC1", "C1=C=C1", "[C@H]1(C)[C@@H]2[C@@H]1[C@H]2F", "C[C@H]1C[C@@H]1[C@]12C[C@@]1(C)C2",
    "OCC(O)C(O)C(O)C(O)C(O)C(O)C(O)CO",
]  # fmt: skip

ABSURD_OPERATIONS = [
    "2x,y,z", "x,x,x", "0,0,0", "x+1/7,y,z", "1/0,y,z", "x,y", "x,y,z,w", "-x,-y,-z+1/3", "banana", "", "x-y+z,y,z",
    "y,z,x", "x+1e9,y,z", "-x,y,z+1/5",
]  # fmt: skip

VALUES = [
    "nan", "inf", "-inf", "1e308", "-1e308", "1e-308", "?", ".", "0", "-1", "99999", "''", "abc", "0.5(", "1/3", "0x10",
]  # fmt: skip


def mutated_cifs(texts: list[str], count: int, seed: int) -> list[str]:
    """The hand-written CIFs and `count` mutations of `texts`."""
    rng = random.Random(seed)
    out = list(HAND_WRITTEN_CIFS)
    for k in range(count):
        text = rng.choice(texts)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            text = _CIF_MUTATIONS[(k + rng.randrange(2) * 5) % len(_CIF_MUTATIONS)](text, rng)
        out.append(text)
    return out


def mutated_smiles(smiles: list[str], count: int, seed: int) -> list[str]:
    """The hand-written SMILES and `count` random edits of `smiles`."""
    rng = random.Random(seed)
    single = "CNOFSPIBcnos[]()=#@+-%/\\123456789.HhrlX*"
    alphabet = [*single, "Cl", "Br", "[nH]", "[C@H]", "[Fe]", "[O-]", "[CH2]"]
    out = list(HAND_WRITTEN_SMILES)
    for _ in range(count):
        s = rng.choice(smiles)
        for _ in range(rng.randint(1, 4)):
            i, j = sorted(rng.randrange(len(s) + 1) for _ in range(2))
            edit = rng.randrange(5)
            if edit == 0:
                s = s[:i] + rng.choice(alphabet) + s[i:]
            elif edit == 1:
                s = s[:i] + s[i + 1 :]
            elif edit == 2:
                s = s[:i] + s[j : j + 6] + s[i:]
            elif edit == 3:
                s = s[:i] + rng.choice(alphabet) + s[i + 1 :]
            else:
                s = s[:j] if rng.random() < 0.3 else s[:i] + s[i:j][::-1] + s[j:]
        out.append(s)
    return out


def _lines(text: str, rng: random.Random) -> tuple[list[str], int]:
    lines = text.split("\n")
    return lines, rng.randrange(len(lines))


def _flip(text: str, rng: random.Random) -> str:
    data = list(text)
    for _ in range(rng.randint(1, 12)):
        if data:
            data[rng.randrange(len(data))] = chr(rng.choice([rng.randrange(32, 127), rng.randrange(256), 0xFFFD]))
    return "".join(data)


def _number(text: str, rng: random.Random, pattern: str, change: Callable[[str], str]) -> str:
    found = list(re.finditer(rf"(?<=\s){pattern}(?=\s)", text))
    if not found:
        return text
    m = rng.choice(found)
    return text[: m.start()] + change(m.group()) + text[m.end() :]


def _replace_number(text: str, rng: random.Random) -> str:
    return _number(text, rng, r"-?\d+\.?\d*(\(\d+\))?", lambda _: rng.choice(VALUES))


def _scale_number(text: str, rng: random.Random) -> str:
    return _number(
        text, rng, r"-?\d+\.\d+", lambda number: repr(float(number) * rng.choice([-1, 0.1, 0.5, 1.5, 10, 1e6]))
    )


def _drop_line(text: str, rng: random.Random) -> str:
    lines, k = _lines(text, rng)
    del lines[k : k + rng.choice([1, 1, 3, 8])]
    return "\n".join(lines)


def _repeat_line(text: str, rng: random.Random) -> str:
    lines, k = _lines(text, rng)
    return "\n".join(lines[:k] + [lines[k]] * rng.choice([2, 2, 5]) + lines[k + 1 :])


def _swap_lines(text: str, rng: random.Random) -> str:
    lines, k = _lines(text, rng)
    j = rng.randrange(len(lines))
    lines[k], lines[j] = lines[j], lines[k]
    return "\n".join(lines)


def _shift_atom(text: str, rng: random.Random) -> str:
    """A copy of an atom close to it."""
    lines = text.split("\n")
    atoms = [k for k, line in enumerate(lines) if re.match(r"^[A-Z][a-z]?\d+\s+[A-Z]", line)]
    if not atoms:
        return text
    words = lines[rng.choice(atoms)].split()
    try:
        words[2:5] = [f"{float(w) + rng.uniform(-0.05, 0.05):.5f}" for w in words[2:5]]
    except ValueError:
        return text
    return "\n".join([*lines[: atoms[-1] + 1], " ".join(words), *lines[atoms[-1] + 1 :]])


def _drop_column(text: str, rng: random.Random) -> str:
    tags = re.findall(r"^_atom_site_\S+$", text, flags=re.M)
    return text.replace(rng.choice(tags) + "\n", "", 1) if tags else text


def _element(text: str, rng: random.Random) -> str:
    new = rng.choice(["Fe", "Xx", "D", "C5+", "O2-", "", "1", "Se", "CL", "H", "?"])
    return re.sub(r"(?<= )[CHNO](?= )", new, text, count=rng.choice([1, 1, 99]))


def _operation(text: str, rng: random.Random) -> str:
    found = list(re.finditer(r"'[^'\n]*x[^'\n]*,[^'\n]*'", text))
    if not found:
        return text
    m = rng.choice(found)
    return text[: m.start()] + f"'{rng.choice(ABSURD_OPERATIONS)}'" + text[m.end() :]


def _cell(text: str, rng: random.Random) -> str:
    tag = rng.choice(["length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"])
    value = rng.choice([*VALUES, "0.001", "1e5", "179.99", "90.3", "60", "5", "500"])
    return re.sub(rf"_cell_{tag}\s+\S+", f"_cell_{tag} {value}", text)


def _quote(text: str, rng: random.Random) -> str:
    k = rng.randrange(len(text) + 1)
    return text[:k] + rng.choice(["'", '"', "\n;", "#", "loop_\n", "data_b\n", "_tag ", "\x00", "\r"]) + text[k:]


def _many(text: str, rng: random.Random) -> str:
    lines = text.rstrip("\n").split("\n")
    if not re.match(r"^[A-Z]", lines[-1]):
        return text
    extra = [
        f"C{k} C {rng.random():.4f} {rng.random():.4f} {rng.random():.4f} 1 1"
        for k in range(rng.choice([50, 400, 2500]))
    ]
    return "\n".join([*lines, *extra]) + "\n"


_CIF_MUTATIONS: list[Callable[[str, random.Random], str]] = [
    lambda text, rng: text[: rng.randrange(len(text) + 1)],
    _flip, _replace_number, _scale_number, _drop_line, _repeat_line, _swap_lines, _shift_atom,
    lambda text, rng: re.sub(
        r" 1 (\d+)$", lambda m: f" {rng.choice(['0.5', '0', '-1', '2', '?', 'nan', '1'])} {m[1]}", text, flags=re.M
    ),
    lambda text, rng: text.replace(
        "_atom_site_symmetry_multiplicity",
        rng.choice(["_atom_site_disorder_group", "_atom_site_disorder_assembly", "_atom_site_calc_flag"]),
    ),
    _drop_column, _element, _operation, _cell, _quote,
    lambda text, rng: text[(k := rng.randrange(len(text) + 1)) :] + text[:k],
    lambda text, rng: re.sub(r"^H\d+ .*\n", lambda m: "" if rng.random() < 0.6 else m[0], text, flags=re.M),
    _many, _replace_number,
]  # fmt: skip


def read_cif(text: str) -> str:
    """Outcome of reading one CIF text from memory: 'read', or the reason; anything else propagates."""
    from molflow_sim import MolecularCrystal
    from molflow_sim.errors import MolflowError

    try:
        # a text without a line break would be taken for a path
        MolecularCrystal.from_cif(text + "\n").unit_cell()
    except MolflowError as error:
        return error.reason
    return "read"


def read_smiles(smiles: str) -> str:
    """Outcome of reading one SMILES: 'read', or the reason; anything else propagates."""
    from molflow_sim import Molecule
    from molflow_sim.errors import MolflowError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Molecule.from_smiles(smiles, n_conformers=1)
        except MolflowError as error:
            return error.reason
    return "read"


def _worker(pipe: Connection, job: Callable[[str], str], memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    while True:
        item = pipe.recv()
        if item is None:
            return
        try:
            pipe.send(job(item))
        except BaseException as error:  # what this is here to catch
            pipe.send(f"CRASH {type(error).__name__}: {error}")


def run_bounded(
    job: Callable[[str], str], items: list[str], *, seconds: float, memory: int = 8 << 30, workers: int = 2
) -> list[str]:
    """``job(item)`` for every item in worker processes that are killed after `seconds` on one item.

    The outcome is the job's string, or ``CRASH ...`` for an exception, ``DIED`` for a lost process, ``HANG`` for a
    timeout.
    """
    context = mp.get_context("spawn")
    outcomes = ["MISSING"] * len(items)
    todo = list(enumerate(items))[::-1]
    running: dict[Connection, tuple[mp.process.BaseProcess, int | None, float]] = {}

    def start() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(theirs, job, memory), daemon=True)
        process.start()
        theirs.close()
        running[ours] = (process, None, 0.0)

    def feed(pipe: Connection) -> None:
        process = running[pipe][0]
        if todo:
            k, item = todo.pop()
            pipe.send(item)
            # a fresh process first imports everything: its first item gets longer
            grace = 60.0 if running[pipe][1] is None else 0.0
            running[pipe] = (process, k, time.monotonic() + seconds + grace)
        else:
            pipe.send(None)
            process.join(5)
            del running[pipe]

    for _ in range(workers):
        start()
    for pipe in list(running):
        feed(pipe)
    while running:
        for pipe in wait(list(running), timeout=0.2):
            process, k, _ = running[pipe]
            try:
                outcomes[k] = pipe.recv()
            except EOFError:
                outcomes[k] = "DIED"
                del running[pipe]
                start()
                pipe = list(running)[-1]
            feed(pipe)
        for pipe, (process, k, deadline) in list(running.items()):
            if time.monotonic() > deadline:
                process.kill()
                outcomes[k] = "HANG"
                del running[pipe]
                start()
                feed(list(running)[-1])
    return outcomes
