"""`secateur evaluate`: how well each scorer ranks pruned structures by what retraining makes of them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from search.commands.options import Command, add_device, add_jobs, add_study, opened
from search.evaluate.evaluation import evaluate, results_folder
from search.evaluate.evidence import Evidence
from search.formatting import correlation, significant, text_table
from search.run.console import Console
from search.run.dense import ensure_dense
from search.run.folder import locked
from search.run.inputs import importable, load_run_inputs


def _add_structures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--structures", type=int, metavar="N", help="instead of [evaluate] structures")
    parser.add_argument("--seeds", type=int, metavar="N", help="retrainings of each, instead of [evaluate] seeds")
    parser.add_argument("--set", type=int, metavar="N", help="which set of structures, instead of [evaluate] set")
    parser.add_argument(
        "--on", choices=("validation", "test"), help="accuracy to compare with, instead of [evaluate] measure"
    )
    add_jobs(parser, "retrainings")


def _evaluate(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    folder, study = opened(arguments)
    given = {key: getattr(arguments, key) for key in ("structures", "seeds", "set")} | {"measure": arguments.on}
    plan = dataclasses.replace(study.evaluate, **{key: value for key, value in given.items() if value is not None})
    with locked(folder):
        inputs = load_run_inputs(study, folder, arguments.device)
        ensure_dense(inputs, study, folder, console)
        console.head(f"Evaluation: {plan.structures} structures, {plan.seeds} retrainings each, set {plan.set}")
        with importable(arguments.study.resolve().parent, Path.cwd()):  # for the processes that retrain
            evidence = evaluate(
                inputs.model,
                inputs.graph,
                inputs.data,
                budget=study.budget.budget(),
                plan=plan,
                space=study.space.space(),
                folder=folder.path,
                jobs=arguments.jobs,
                device=inputs.device,
                progress=console.progress,
            )
    console.result(evaluation_table(evidence))
    console.say(f"\nPictures and the full table: {results_folder(folder.shown, plan)}/")
    return {**evidence.to_dict(), "folder": str(results_folder(folder.path, plan))}


def evaluation_table(evidence: Evidence) -> str:
    """How the scorers did, within 80 columns: taus with intervals, regret in points or the metric's unit."""
    rows = [
        [
            one.scorer,
            str(one.tau),
            correlation(one.tau_top.value),
            evidence.metric.difference(one.regret),
            significant(one.seconds, 2),
        ]
        for one in evidence.results
    ]
    header = ["score", "tau [95 %]", "top third", "regret", "seconds"]
    return evidence.summary() + "\n\n" + text_table(header, rows)


EVALUATE = Command(
    "evaluate",
    "measure which scorers rank structures as retraining does",
    """\
Draws structures of one cost (the study's [budget]) from families of widths,
scores all of them by every scorer, retrains all of them by the recipe in
[evaluate], and compares the orders: Kendall's tau with 95 % intervals over all
and inside the top third, and what is lost by trusting each score. It takes
minutes to hours, and goes on where it was stopped.

  secateur evaluate study.toml --jobs 2
  secateur evaluate study.toml --set 1 --on test    fresh structures, to confirm

Results are in runs/<name>/evaluate/set-0/: evidence.json, evidence.md,
scatter.png, tau.png.""",
    (add_study, _add_structures, add_device),
    _evaluate,
)
