"""The command line: `secateur COMMAND …`, also as `python -m secateur`."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn, TextIO

# Before torch loads OpenMP: on cores that others use too, threads that spin while they wait cost many times the work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from backbones.errors import SecateurError
from backbones.version import VERSION
from search.commands import init, inspect, report, resume, retrain, run, search, status, work
from search.run.console import RED, Console, paint
from search.run.interrupts import Terminated, sigterm_as_interrupt

OK, BUG, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
COMMANDS = (init, inspect, run, search, resume, retrain, report, work, status)
GUIDE = """\
examples:
  secateur init study.toml        write a commented study file to start from
  secateur inspect study.toml     what can be pruned, what cannot and why
  secateur run study.toml         train (or load), search, retrain, report
  secateur run study.toml         again: goes on where it was stopped
  secateur resume runs/digits     the same, from the run folder alone
  secateur search study.toml      only the search: seconds to minutes
  secateur retrain runs/digits --top 5
  secateur report runs/digits runs/other -o both
  secateur work study.toml --storage postgresql+psycopg://user@host/studies
  secateur status runs/digits

Every command knows --help. --json gives scripts one JSON object on standard
output; progress, warnings and errors go to standard error.

exit codes: 0 done; 2 input that cannot be used (one line says what and why);
130 stopped by Ctrl-C, 143 by SIGTERM (both leave a run that resumes);
1 anything else, --debug shows the traceback.
"""


class _Parser(argparse.ArgumentParser):
    """Argument errors in one line, as all errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{_error_line(f'{message} (see {self.prog} --help)')}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: without the program's name; those of the process when not given.

    Returns:
        the exit code, as `secateur --help` lists them. `--help`, `--version` and argument errors raise SystemExit.
    """
    arguments = _parser().parse_args(argv)
    console = Console(quiet=arguments.quiet, as_json=arguments.json)
    try:
        with sigterm_as_interrupt(), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            console.record(arguments.execute(arguments, console))
    except KeyboardInterrupt as stop:
        print("\n".join(["stopped", *getattr(stop, "__notes__", [])]), file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        known = isinstance(error, SecateurError)
        if known or isinstance(error, OSError):
            print(_error_line(str(error)), file=sys.stderr)
        else:
            hint = "" if arguments.debug else "; --debug shows where"
            print(_error_line(f"a bug in secateur: {type(error).__name__}: {error}{hint}"), file=sys.stderr)
        return BAD_INPUT if known else BUG
    return OK


def _parser() -> _Parser:
    form = argparse.RawDescriptionHelpFormatter
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")
    common.add_argument("--quiet", "-q", action="store_true", help="only the result")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(
        prog="secateur",
        description="Prunes PyTorch networks to a budget: searches, retrains, reports.",
        epilog=GUIDE,
        formatter_class=form,
    )
    parser.add_argument("--version", action="version", version=f"secateur {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2]
        part = commands.add_parser(
            name, parents=[common], help=command.SUMMARY, description=command.DESCRIPTION, formatter_class=form
        )
        command.add(part)
        part.set_defaults(execute=command.execute)
    return parser


def _error_line(message: str) -> str:
    return f"{paint('secateur: error:', RED, sys.stderr)} {' '.join(message.split())}"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"secateur: warning: {' '.join(str(message).split())}", file=file or sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
