"""The ``molflow`` command: verbs that mirror Python functions, errors in one line, exit codes.

Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 70 a defect of this program (a log is written),
130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
import warnings
from contextlib import suppress
from typing import Annotated, TextIO

import typer

from molflow_sim.cli.cg import app as cg
from molflow_sim.cli.dataset import app as dataset
from molflow_sim.cli.doctor import doctor
from molflow_sim.cli.generate import app as generate
from molflow_sim.cli.rank import EPILOG as RANK_EPILOG
from molflow_sim.cli.rank import rank
from molflow_sim.cli.screen import EPILOG as SCREEN_EPILOG
from molflow_sim.cli.screen import screen
from molflow_sim.cli.simulate import app as simulate
from molflow_sim.cli.train import EPILOG as TRAIN_EPILOG
from molflow_sim.cli.train import train
from molflow_sim.errors import MolflowError

INTERNAL_ERROR = 70
INTERRUPTED = 130
_MACHINE = {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS}
"""What the system may refuse through no fault of ours: rights, space, a device."""

app = typer.Typer(
    name="molflow",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Start with:  molflow screen "CC(=O)Oc1ccccc1C(=O)O" -o aspirin/',
)
app.command(epilog=SCREEN_EPILOG)(screen)
app.command(epilog=RANK_EPILOG)(rank)
app.add_typer(simulate, name="simulate")
app.add_typer(generate, name="generate")
app.add_typer(cg, name="cg")
app.add_typer(dataset, name="dataset")
app.command(epilog=TRAIN_EPILOG)(train)
app.command()(doctor)


def _print_version(asked: bool) -> None:
    if asked:
        from molflow_sim import __version__

        typer.echo(f"molflow-sim {__version__}")
        raise typer.Exit()


@app.callback()
def _molflow(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Molecular crystals from a molecule: search, relax, rank, simulate."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; no exception gets out.

    Parameters
    ----------
    arguments : list of str, optional
        Those of the process by default.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = _note
            code = app(args=arguments, standalone_mode=False)
    except MolflowError as error:
        return _fail(_one_line(error), error.exit_code)
    except typer.Exit as error:
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            what = f"{error.filename}: " if error.filename else ""
            return _fail(f"{what}{error.strerror}; the same command carries on once that is mended", 1)
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's own: a wrong option or value
            message = str(error.format_message()).strip()
            if not message:  # no command at all: the help has just been shown
                return int(error.exit_code)
            return _fail(f"{message} (see --help)", int(error.exit_code))
        return _fail(_defect(error), INTERNAL_ERROR)
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code
        return _fail("interrupted; run the same command again to carry on", INTERRUPTED)
    return int(code) if isinstance(code, int) else 0


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show our own warnings in one line; those of libraries are for developers."""
    if "molflow" in filename and issubclass(category, UserWarning):
        print(f"molflow: note: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(message: str, code: int) -> int:
    print(f"molflow: {message}", file=sys.stderr)
    return code


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _defect(error: Exception) -> str:
    """Write the traceback to a file and say where; a defect report needs it, a user's terminal does not."""
    where = "no log can be written"
    with (
        suppress(OSError),
        tempfile.NamedTemporaryFile(
            "w", prefix="molflow-error-", suffix=".log", delete=False, encoding="utf-8"
        ) as file,
    ):
        file.write(f"{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
        where = f"with the log {file.name}"
    what = f"{type(error).__name__}: {_one_line(error)}"
    return f"unexpected error, please report it, {where} ({what[:200]})"
