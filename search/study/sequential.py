"""A search by one process: batches of trials, each asked from what came before the batch and written in order.

Trial i belongs to batch i // jobs and is asked from the trials before that batch, with a sampler seeded from its
number, so a search that is killed and resumed proposes the same trials as one that was not, with any number of jobs.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

import optuna
from optuna.trial import FrozenTrial

from search.space.problem import SearchProblem
from search.space.proposals import Proposal, propose
from search.study.heartbeat import Heartbeat
from search.study.samplers import sampler_for
from search.study.scores import ScoreCache, StructureScore
from search.study.trials import TrialStore


def search_sequentially(
    store: TrialStore,
    problem: SearchProblem,
    scores: ScoreCache,
    sampler: tuple[str, int],
    trials: int,
    stop: float,
    jobs: int,
) -> Generator[FrozenTrial, None, None]:
    """Searches until the study has so many finished trials; yields each trial as soon as it is stored.

    Args:
        store: the study's trials.
        problem: what the trials propose from.
        scores: the known scores; learns the new ones.
        sampler: name of the sampler and the study's seed.
        trials: number of finished trials to reach.
        stop: monotonic time in seconds after which no batch is begun.
        jobs: number of trials in a batch, scored at the same time.

    Raises:
        SecateurError: when another process works on the study.
    """
    with Heartbeat(store, "search") as heartbeat:
        store.sync()
        for orphan in store.running:  # of workers that died, now that none is alive
            store.fail(orphan)
        scores.learn(store.finished)
        try:
            while len(store.finished) < trials and time.monotonic() < stop:
                first = len(store.finished) // jobs * jobs
                for frozen in _batch(store, problem, scores, sampler, range(first, min(first + jobs, trials))):
                    yield frozen
                    heartbeat.check()
        finally:
            store.sampler_history.forget()


def _batch(
    store: TrialStore, problem: SearchProblem, scores: ScoreCache, sampler: tuple[str, int], numbers: range
) -> Iterator[FrozenTrial]:
    seen = store.history_at(numbers.start)
    asked = [_ask(seen, problem, sampler, number) for number in numbers]
    done = len(store.finished) - numbers.start
    for (trial, _, _), frozen in zip(asked, store.finished[numbers.start :], strict=False):
        store.sampler_history.tell(trial, frozen.values)  # a batch that was broken off: these are stored already
    found = [proposal.found.structure for _, proposal, _ in asked[done:] if proposal.found is not None]
    results = scores.of(found, min(len(numbers), max(1, len(found))))
    for trial, proposal, seconds in asked[done:]:
        scored = next(results) if proposal.found is not None else None
        yield _finish(store, problem, trial, proposal, scored, seconds)


def _ask(
    seen: optuna.Study, problem: SearchProblem, sampler: tuple[str, int], number: int
) -> tuple[optuna.Trial, Proposal, float]:
    start = time.perf_counter()
    name, seed = sampler
    seen.sampler = sampler_for(name, seed, number)
    trial = seen.ask()
    return trial, propose(problem, trial), time.perf_counter() - start


def _finish(
    store: TrialStore,
    problem: SearchProblem,
    trial: optuna.Trial,
    proposal: Proposal,
    scored: StructureScore | None,
    seconds: float,
) -> FrozenTrial:
    values, facts = _judged(problem, proposal, scored)
    spent = seconds + (scored.seconds if scored else 0.0)
    return store.tell(trial, values, {**facts, "seconds": spent})


def _judged(
    problem: SearchProblem, proposal: Proposal, scored: StructureScore | None
) -> tuple[list[float] | None, dict[str, object]]:
    """The objective values of a trial (None where it is infeasible), and its user attributes."""
    facts = dict(proposal.facts)
    if scored is None or proposal.found is None:
        return None, facts
    if scored.score is None:
        return None, {**facts, "reason": scored.reason}
    return problem.values(scored.score, proposal.found.cost.macs), facts
