"""The search itself, by one process or by many on one storage.

One process works in batches of trials, each asked from what came before the batch and written in order. Trial i belongs
to batch i // jobs and is asked from the trials before that batch, with a sampler seeded from its number, so a search
that is killed and resumed proposes the same trials as one that was not, with any number of jobs.

Of many, each claims what it proposes, and the living redo what the dead left. A claim is a RUNNING trial with the
structure's id, written in one transaction. Claims beyond the trials that are wanted, those of the highest numbers, are
withdrawn. Of several claims of one structure the lowest number scores it and the others wait for that score. A claim
whose process is dead is failed by whoever notices first, who then does the same trial again.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from backbones.structure import Structure
from search.space.problem import SearchProblem
from search.space.proposals import WARM, Proposal, propose, unpack
from search.study.heartbeat import Heartbeat
from search.study.interrupts import pause
from search.study.samplers import sampler_for
from search.study.scores import ScoreCache, StructureScore
from search.study.storage import quiet
from search.study.trials import CLAIM, TrialStore, claimant
from search.study.warm_start import WarmStart


@dataclass(frozen=True, slots=True)
class Proposer:
    """Who proposes the trials of a search.

    Attributes:
        sampler: a key of `SAMPLERS`.
        seed: the study's seed.
        warm: what is tried before the sampler is asked.
    """

    sampler: str
    seed: int
    warm: WarmStart


def search_sequentially(
    store: TrialStore,
    problem: SearchProblem,
    scores: ScoreCache,
    proposer: Proposer,
    trials: int,
    stop: float,
    jobs: int,
) -> Generator[FrozenTrial, None, None]:
    """Searches until the study has so many finished trials; yields each trial as soon as it is stored.

    Args:
        store: the study's trials.
        problem: what the trials propose from.
        scores: the known scores; learns the new ones.
        proposer: what is tried first, and who proposes then.
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
            for place in proposer.warm.missing(store.finished):
                if len(store.finished) >= trials or time.monotonic() >= stop:
                    return
                yield _warm(store, problem, scores, proposer.warm, place)
                heartbeat.check()
            warm = sum(WARM in one.user_attrs for one in store.finished)
            while len(store.finished) < trials and time.monotonic() < stop:
                first = warm + (len(store.finished) - warm) // jobs * jobs
                for frozen in _batch(store, problem, scores, proposer, range(first, min(first + jobs, trials))):
                    yield frozen
                    heartbeat.check()
        finally:
            store.sampler_history.forget()


def with_bar(
    told: Iterator[FrozenTrial], store: TrialStore, trials: int, progress: bool
) -> Generator[FrozenTrial, None, None]:
    """The trials that a search tells of, with a bar of how many there are and the best score so far.

    Args:
        told: what a search yields.
        store: the study's trials, also those of other workers.
        trials: number of finished trials to reach.
        progress: show the bar when standard error is a terminal.
    """
    best = max((one.values[0] for one in store.finished if one.values is not None), default=-math.inf)
    start = len(store.finished)
    with tqdm(total=trials, initial=start, unit="trial", disable=None if progress else True) as bar:
        for frozen in told:
            bar.n = len(store.finished)
            if frozen.values is not None:
                best = max(best, frozen.values[0])
                bar.set_postfix_str(f"best {best:.6g}", refresh=False)
            bar.update(0)
            yield frozen


def _warm(store: TrialStore, problem: SearchProblem, scores: ScoreCache, warm: WarmStart, place: int) -> FrozenTrial:
    start = time.perf_counter()
    frozen = warm.proposed(place)
    structure = _structure(problem, frozen)
    return store.put(_finished(problem, frozen, next(scores.of([structure])) if structure else None, start))


def _batch(
    store: TrialStore, problem: SearchProblem, scores: ScoreCache, proposer: Proposer, numbers: range
) -> Iterator[FrozenTrial]:
    seen = store.history_at(numbers.start)
    asked = [_ask(seen, problem, proposer, number) for number in numbers]
    done = len(store.finished) - numbers.start
    for (trial, _, _), frozen in zip(asked, store.finished[numbers.start :], strict=False):
        store.sampler_history.tell(trial, frozen.values, frozen.user_attrs)  # stored when the batch was broken off
    found = [proposal.found.structure for _, proposal, _ in asked[done:] if proposal.found is not None]
    results = scores.of(found, min(len(numbers), max(1, len(found))))
    for trial, proposal, seconds in asked[done:]:
        scored = next(results) if proposal.found is not None else None
        yield _finish(store, problem, trial, proposal, scored, seconds)


def _ask(
    seen: optuna.Study, problem: SearchProblem, proposer: Proposer, number: int
) -> tuple[optuna.Trial, Proposal, float]:
    start = time.perf_counter()
    seen.sampler = sampler_for(proposer.sampler, proposer.seed, number, problem=problem)
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
    values, facts = _judged(problem, proposal.facts, scored)
    spent = seconds + (scored.seconds if scored else 0.0)
    return store.tell(trial, values, {**facts, "seconds": spent})


def _judged(
    problem: SearchProblem, facts: Mapping[str, Any], scored: StructureScore | None
) -> tuple[list[float] | None, dict[str, Any]]:
    """The objective values of a trial (None where it is infeasible), and its user attributes."""
    if scored is None:
        return None, dict(facts)
    if scored.score is None:
        return None, {**facts, "reason": scored.reason}
    return problem.values(scored.score, facts["macs"]), dict(facts)


SCORE_POLL = 0.2
"""Seconds between two looks at what others do."""


def search_distributed(
    store: TrialStore, problem: SearchProblem, scores: ScoreCache, proposer: Proposer, trials: int, stop: float
) -> Generator[FrozenTrial, None, None]:
    """Yields the trials that this process finished, until all processes together have reached `trials`.

    Arguments as for `search_sequentially`; a sampler's seed depends on the process's slot too.

    Raises:
        SecateurError: when a search on its own is at work on the study.
    """
    with Heartbeat(store, "work") as heartbeat:
        worker = _Worker(store, problem, scores, proposer, trials, heartbeat)
        try:
            while time.monotonic() < stop:
                worker.sync()
                if len(store.finished) >= trials:
                    return
                if not worker.left and len(store.finished) + len(store.running) >= trials:
                    heartbeat.waits(map(claimant, store.running), "scores")
                    pause(SCORE_POLL)  # the last ones are being scored; their processes may die yet
                    continue
                frozen = worker.trial()
                if frozen is not None:
                    yield frozen
        finally:
            worker.give_up()
            store.sampler_history.forget()


class _Worker:
    """What one process of several does.

    Attributes:
        left: claims of dead processes that this process has to do again.
    """

    def __init__(
        self,
        store: TrialStore,
        problem: SearchProblem,
        scores: ScoreCache,
        proposer: Proposer,
        trials: int,
        heartbeat: Heartbeat,
    ) -> None:
        self.store, self.problem, self.scores = store, problem, scores
        self.proposer, self.trials, self.heartbeat = proposer, trials, heartbeat
        self.left: list[FrozenTrial] = []
        self._claim: FrozenTrial | None = None
        scores.learn(store.finished)
        self._count = 0

    def sync(self) -> None:
        """Takes over what others finished, and fails the claims of the dead."""
        self.scores.learn(self.store.sync())
        for claim in list(self.store.running):
            if self.heartbeat.is_dead(claimant(claim)):
                self.store.running.remove(claim)
                if self.store.fail(claim):
                    self.left.append(claim)

    def trial(self) -> FrozenTrial | None:
        """One trial, from the proposal to the storage.

        Returns:
            None when it is one too many, or when others took this process for dead meanwhile.
        """
        start = time.perf_counter()
        self._count += 1
        key = f"{self.heartbeat.token}/{self._count}"
        frozen = self._again(self.left.pop()) if self.left else self._propose()
        self._claim = self.store.claim(frozen, key)
        self.sync()
        if self._is_too_many(self._claim):
            self.store.withdraw(self._claim)
            self._claim = None
            return None
        structure = _structure(self.problem, self._claim)
        scored = None if structure is None else self._await(structure, self._claim)
        done = _finished(self.problem, self._claim, scored, start)
        added = {name: done.user_attrs[name] for name in done.user_attrs.keys() - self._claim.user_attrs.keys()}
        kept = self.store.finish(self._claim, done.values, added)
        self._claim = None
        return done if kept else None

    def give_up(self) -> None:
        """Fails the claim that is open, when the process is stopped in the middle of a trial."""
        if self._claim is not None:
            self.store.fail(self._claim)

    def _is_too_many(self, claim: FrozenTrial) -> bool:
        """Of claims that are written at the same time those of the lowest numbers stand."""
        others = [one for one in (*self.store.finished, *self.store.running) if one.number < claim.number]
        rule = claim.user_attrs.get(WARM)
        return len(others) >= self.trials or (rule is not None and rule in (one.user_attrs.get(WARM) for one in others))

    def _await(self, structure: Structure, claim: FrozenTrial) -> StructureScore:
        """The score of a claimed structure, from this process or from another that claimed the structure earlier."""
        while structure.id not in self.scores.known:
            same = (t for t in self.store.running if t.user_attrs.get("structure") == structure.id)
            rivals = [one for one in same if one.number < claim.number]
            if not rivals:
                return next(self.scores.of([structure]))
            self.heartbeat.waits(map(claimant, rivals), "scores")
            pause(SCORE_POLL)
            self.sync()
        return self.scores.known[structure.id]

    def _propose(self) -> FrozenTrial:
        places = self.proposer.warm.missing([*self.store.finished, *self.store.running])
        if places:
            return self.proposer.warm.proposed(places[0])
        name, seed = self.proposer.sampler, self.proposer.seed
        seen = self.store.history_at(len(self.store.finished))
        index = self.store.total if name == "qmc" else len(self.store.finished)
        worker = f"{self.heartbeat.slot}/{self._count}"
        seen.sampler = sampler_for(name, seed, index, worker, self.problem, self.store.running)
        trial = seen.ask()
        proposal = propose(self.problem, trial)
        frozen = copy.copy(seen.get_trials(deepcopy=False)[trial.number])
        frozen.user_attrs = dict(proposal.facts)
        with quiet():
            seen.tell(trial, state=TrialState.FAIL)  # it comes back from the storage, with what became of it
        return frozen

    def _again(self, orphan: FrozenTrial) -> FrozenTrial:
        frozen = copy.copy(orphan)
        frozen.datetime_start = datetime.now()
        facts = {name: value for name, value in orphan.user_attrs.items() if name != CLAIM}
        frozen.user_attrs = {**facts, "redone": orphan.number}
        return frozen


def _structure(problem: SearchProblem, frozen: FrozenTrial) -> Structure | None:
    return unpack(problem.graph, frozen.user_attrs) if "kept" in frozen.user_attrs else None


def _finished(problem: SearchProblem, frozen: FrozenTrial, scored: StructureScore | None, start: float) -> FrozenTrial:
    """The trial with its result."""
    values, facts = _judged(problem, frozen.user_attrs, scored)
    done = copy.copy(frozen)
    done.state = TrialState.PRUNED if values is None else TrialState.COMPLETE
    done.values = values
    done.user_attrs = {**facts, "seconds": time.perf_counter() - start}
    done.datetime_complete = datetime.now()
    return done
