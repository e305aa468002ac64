"""The variants of a comparison one after the other, or several at a time in processes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from search.compare.shared_dense import ComparisonPlan, first_variants, load_variant
from search.compare.variant import run_variant
from search.compare.variant_result import VariantResult
from search.run.console import Console
from search.run.dense import ensure_dense
from search.run.folder import locked
from search.run.inputs import RunInputs
from search.run.stages import check_before_training, timed
from search.training.parallel import in_processes


def run_in_turn(
    plan: ComparisonPlan, names: Sequence[str], console: Console
) -> tuple[dict[str, VariantResult], dict[str, RunInputs]]:
    """Runs one variant after the other.

    Args:
        plan: what is compared.
        names: names of the variants to run.
        console: where the user reads on.

    Returns:
        by name of the variant: its result, and what it started from.
    """
    loaded: dict[str, RunInputs] = {}
    found = {}
    for number, name in enumerate(names, 1):
        console.head(f"Variant {number} of {len(names)}: {name}")
        inputs = load_variant(plan, name, loaded)
        found[name] = run_variant(plan.variants[name], inputs, plan.run_folder(name), console, plan.seeds)
    return found, loaded


def run_together(
    plan: ComparisonPlan, names: Sequence[str], processes: int, console: Console
) -> tuple[dict[str, VariantResult], dict[str, RunInputs]]:
    """As `run_in_turn`, several variants at a time: first the different dense networks, then all variants.

    Args:
        plan: what is compared.
        names: names of the variants to run.
        processes: how many variants at a time.
        console: where the user reads on.
    """
    console.head(f"{len(names)} variants, {processes} at a time")
    leaders = list(first_variants(plan.variants, names).values())
    for name in in_processes([partial(_train_dense, plan, name) for name in leaders], processes):
        console.say(f"  {name}: the dense network is there")
    found: dict[str, VariantResult] = {}
    for name, result in in_processes([partial(_run_alone, plan, name) for name in names], processes):
        found[name] = result
        console.say(f"  {name}: done ({len(found)} of {len(names)})")
    loaded: dict[str, RunInputs] = {}
    for name in names:
        load_variant(plan, name, loaded)
    return found, loaded


def _train_dense(plan: ComparisonPlan, name: str) -> str:
    """Trains the dense network of a variant, where it needs training; returns the variant's name."""
    study, folder = plan.variants[name], plan.run_folder(name)
    inputs = load_variant(plan, name, {})
    with locked(folder):
        check_before_training(study, inputs)
        with timed(folder, "dense network"):
            ensure_dense(inputs, study, folder, Console(quiet=True))
    return name


def _run_alone(plan: ComparisonPlan, name: str) -> tuple[str, VariantResult]:
    """Runs one variant in this process; returns its name and result."""
    inputs = load_variant(plan, name, {})
    return name, run_variant(plan.variants[name], inputs, plan.run_folder(name), Console(quiet=True), plan.seeds)
