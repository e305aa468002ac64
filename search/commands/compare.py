"""`secateur compare`: the variants of a study beside each other, each retrained with several seeds."""

from __future__ import annotations

import argparse
from typing import Any

from search.commands.options import Command, add_device, add_jobs, add_study
from search.compare.comparison import COMPARE_FOLDER, compare
from search.data.task import ACCURACY
from search.formatting import counted
from search.run.console import Console
from search.run.folder import RunFolder


def _add_variants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variants", type=_names, metavar="A,B", help="only these")
    parser.add_argument("--seeds", type=int, metavar="N", help="retrainings of each, instead of [compare] seeds")
    add_jobs(parser, "searches, and then retrainings,")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _compare(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    result = compare(
        arguments.study,
        scale=arguments.scale,
        variants=arguments.variants,
        seeds=arguments.seeds,
        runs=arguments.runs,
        device=arguments.device,
        jobs=arguments.jobs,
        progress=console.progress,
    )
    folder = RunFolder(arguments.runs.resolve() / result.name)
    metric, seeds = result.metric, counted(result.seeds, "seed")
    told = "in percent, Omega is the NetScore" if metric == ACCURACY else f"({metric.direction} is better)"
    console.head(f"Result: test {metric.heading} of {seeds} {told}")
    console.result(result.shown())
    console.say(f"\nThe full table: {folder.shown}/{COMPARE_FOLDER}/compare.md")
    return {**result.to_dict(), "folder": str(folder.path / COMPARE_FOLDER)}


COMPARE = Command(
    "compare",
    "run the variants of a study, several seeds each, and tabulate them",
    """\
For each table [variants.NAME] of the study: trains or loads the dense network
(once for all variants that share it), searches within the budget or follows a
[search] rule, retrains the best structure with several seeds, prunes single
weights where [sparsify] says so, and measures size and latency. What an earlier
call has done is not done again, and more seeds add to it.

  secateur compare studies/system3_hybrid.toml
  secateur compare studies/system3_hybrid.toml --scale full --seeds 5
  secateur compare study.toml --variants hybrid,uniform --jobs 2

Results are in runs/<name>/compare/: compare.json, compare.md, compare.csv, and
a run folder for each variant.""",
    (add_study, _add_variants, add_device),
    _compare,
)
