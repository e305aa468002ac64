"""The command line: `secateur COMMAND …`, also as `python -m secateur`."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

# Before torch loads OpenMP: on cores that others use too, threads that spin while they wait cost many times the work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import shtab

from backbones.errors import SecateurError, plain_text
from backbones.version import VERSION
from search.commands.compare import COMPARE
from search.commands.evaluate import EVALUATE
from search.commands.options import Command
from search.commands.results import EXPORT, REPORT, STATUS
from search.commands.stages import PRUNE, RESUME, RETRAIN, RUN, SEARCH, WORK
from search.commands.study_file import INIT, INSPECT
from search.run.console import RED, Console, Terminated, logged, paint, sigterm_as_interrupt

SHELLS = ("bash", "zsh", "fish")
OK, FAILED, BAD_INPUT, INTERRUPTED, UNREAD, TERMINATED = 0, 1, 2, 130, 141, 143
GUIDE = """\
a first run:
  secateur init study.toml             a study that runs as it is (on digits)
  secateur run study.toml              train or load, search, retrain, report
  secateur status runs/digits          what it is at, from another terminal
  secateur resume runs/digits          goes on after Ctrl-C or a power cut
  then open runs/digits/report.html in a browser

your own network:
  secateur inspect study.toml          what can be pruned, what cannot and why

a smaller network at once, nothing trained (it has a [model] checkpoint):
  secateur prune study.toml            search, refit in closed form, save

step by step:
  secateur search study.toml           only the search: seconds to minutes
  secateur retrain runs/digits --top 5
  secateur resume runs/digits --trials 1000
  secateur report runs/digits runs/other -o both
  secateur export runs/digits --to onnx-int8   for other runtimes

several variants, seeds and networks in one table:
  secateur compare studies/system3_hybrid.toml --scale small

which scorer to trust:
  secateur evaluate study.toml         against real retraining: minutes to hours

many processes or machines, the same line on each:
  secateur work study.toml --storage postgresql+psycopg://user@host/studies

the Tab key (zsh the same; fish: secateur completion fish | source):
  eval "$(secateur completion bash)"

scripts:
  secateur run study.toml --json       one JSON object on standard output
  secateur run study.toml --quiet      the result table alone
  Progress, warnings and errors go to standard error. Progress bars and colours
  show on a terminal only; NO_COLOR=1 takes the colours away.

exit codes:
  0    done
  1    a failure of the system or a bug; --debug shows the traceback
  2    input that cannot be used: one line says what is wrong and what is right
  130  stopped by Ctrl-C, 143 by SIGTERM; both leave a run that resumes
  141  whoever read the output stopped reading (`| head`)

Every command has a --help with examples of its own.
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
        with sigterm_as_interrupt(), logged(console), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            console.record(arguments.execute(arguments, console))
    except KeyboardInterrupt as stop:
        print("\n".join(["stopped", *getattr(stop, "__notes__", [])]), file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed has no reader
        return UNREAD
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        known = isinstance(error, SecateurError)
        if known or isinstance(error, OSError):
            print(_error_line(str(error)), file=sys.stderr)
        else:
            hint = "" if arguments.debug else "; --debug shows where"
            print(_error_line(f"a bug in secateur: {type(error).__name__}: {error}{hint}"), file=sys.stderr)
        return BAD_INPUT if known else FAILED
    return OK


def _parser(brief: bool = False) -> _Parser:
    """All commands with their arguments; `brief` for completion scripts, where a command is described in one line."""
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
        part = commands.add_parser(
            command.name,
            parents=[common],
            help=command.summary,
            description=command.summary if brief else command.description,
            formatter_class=form,
        )
        for add in command.arguments:
            add(part)
        part.set_defaults(execute=command.execute)
    return parser


def _error_line(message: str) -> str:
    return f"{paint('secateur: error:', RED, sys.stderr)} {plain_text(message)}"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"secateur: warning: {plain_text(str(message))}", file=file or sys.stderr)


def _add_shell(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def _completion(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    script = shtab.complete(_parser(brief=True), arguments.shell)
    console.result(script)
    return {"shell": arguments.shell, "script": script}


COMPLETION = Command(
    "completion",
    "print what makes Tab complete in bash, zsh or fish",
    """\
Prints a script for one shell, to be read when a shell starts: the line for
bash goes into ~/.bashrc, that for zsh into ~/.zshrc (after compinit), that for
fish into ~/.config/fish/config.fish.

  eval "$(secateur completion bash)"
  eval "$(secateur completion zsh)"
  secateur completion fish | source""",
    (_add_shell,),
    _completion,
)
COMMANDS = (
    INIT, INSPECT, PRUNE, RUN, SEARCH, RESUME, RETRAIN, REPORT, EXPORT, COMPARE, EVALUATE, WORK, STATUS, COMPLETION,
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
