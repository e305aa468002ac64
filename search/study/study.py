"""The search: ask for a proposal, project it onto the budget, score the structure, tell; without any training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial
from torch import nn

from backbones.arguments import explains
from backbones.errors import SecateurError, check_name
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from backbones.trace import check_traced
from scoring.scorers import DEFAULT_SCORER, check_scorer, refits
from search.checks import check_count, check_study_name
from search.data.data import Data
from search.review.candidate import Candidate
from search.review.front import Front
from search.space.budget import Budget
from search.space.feasibility import feasibility_table
from search.space.prepare import check_classes, confirming_task, prepare_problem, scoring_task
from search.space.proposals import unpack
from search.space.space import Space
from search.study.candidates import candidate_of, confirm, confirmed_scores, given_structure
from search.study.finalists import Finalists, check_finalists, finalists_of, given_finalists
from search.study.identity import as_begun, identity_of, scorer_text, to_record
from search.study.interrupts import stop_between_trials, stop_if_asked
from search.study.loops import Proposer, search_distributed, search_sequentially, with_bar
from search.study.metadata import StudyMetadata, dense_candidate, known_dense_accuracy, write_metadata
from search.study.networks import RETRAIN_FOLDER, Refitter
from search.study.retrain import Retrainer
from search.study.retraining_task import DEFAULT_START, RetrainConfig, RetrainingTask
from search.study.rules import use_rule
from search.study.samplers import DEFAULT_SAMPLER, SAMPLERS, WINDOWS, tries_layers
from search.study.scores import ScoreCache
from search.study.storage import quiet, shown_url
from search.study.trials import TrialStore
from search.study.warm_start import RULES, ForkResult, WarmStart, fork_study, recall_scores
from search.training.flows import Flow
from search.training.metrics import check_task, measure
from search.training.recipe import Recipe

if TYPE_CHECKING:
    import pandas

Callback = Callable[["Study", FrozenTrial], None]
TrialChoice = int | Sequence[Candidate | int]


@explains("__init__", "search", "retrain", "finalists", "reconstruct", "use_rule", "fork")
class Study:
    """One search on one network, kept in an Optuna storage; the same arguments open it again and go on.

    Args:
        name: names the study in its storage, and its folder.
        model: the dense network; it is never changed.
        graph: the network's channel graph, from `trace(model, …)`.
        data: the task and its samples; the scoring batch is drawn from the training samples.
        budget: what a structure may cost.
        storage: Optuna storage URL.
        space: what is proposed; a kind by name, or a `Space`. Where it leaves the criterion, or which layers may go,
            to the study, one that is there already goes on as it was begun.
        scorer: a key of `SCORERS`, or a rank sum "a+b": where a structure stands among some of the same budget. Some
            are computed in bfloat16 where the processor is faster so; a study goes on as it was begun.
        sampler: a key of `SAMPLERS`.
        warm_start: what the first trials are: rules (keys of `BASELINES`), for every target of the budget, and
            structures that were made elsewhere. A search then never ends below one of them by its own score.
        batch: images the scorer looks at.
        statistics: images for the batch-norm statistics of pruned networks, for scorers that renew them; 0 for the
            scoring batch itself, which is cheapest.
        seed: seed of the proposals and of the draw of the scoring batch.
        folder: holds retrained networks, filter tables and the latency calibration; `runs/<name>` by default.

    Attributes:
        problem: what the trials propose from: network, space, filter tables, cost model, targets.
        scores: the scores of all structures that are known.
        refitter: makes refitted networks of structures.
        store: the trials.

    Raises:
        SecateurError: for unknown names, a budget that cannot be reached (the nearest value is named), or a study of
            that name that was made with anything else (the differing item is named); for a scorer or criterion that
            needs classes where the task has none, a loss or metric that cannot be used, a network that does not fit
            the data or that the scorer cannot score.
    """

    def __init__(  # noqa: PLR0913 - every argument is a part of the study's identity, and all are keywords
        self,
        name: str,
        model: nn.Module,
        graph: ChannelGraph,
        data: Data,
        *,
        budget: Budget,
        storage: str | None = None,
        space: Space | str = "ratios",
        scorer: str = DEFAULT_SCORER,
        sampler: str = DEFAULT_SAMPLER,
        warm_start: Sequence[str | Structure] = RULES,
        batch: int = 128,
        statistics: int = 0,
        seed: int = 0,
        folder: str | Path | None = None,
    ) -> None:
        check_study_name(name)
        check_traced(model, graph)
        check_scorer(scorer)
        check_name("sampler", sampler, SAMPLERS)
        self.name, self.model, self.graph, self.data = name, model, graph, data
        self.budget, self.scorer, self.sampler, self.seed = budget, scorer, sampler, seed
        self.space = Space(space) if isinstance(space, str) else space
        self.folder = Path("runs") / name if folder is None else Path(folder)
        check_classes(self.space, scorer, data)
        check_task(model, data)
        task = scoring_task(model, graph, data, batch, seed, statistics, scorer)
        url = storage or f"sqlite:///{name}.db"
        begun, task = as_begun(name, url, self.space, task, scorer)
        chosen = begun.for_search(graph, tries_layers(sampler, scorer, warm_start))
        self.problem = prepare_problem(chosen, task, budget, scorer=scorer, seed=seed, folder=self.folder)
        self.warm = WarmStart.of(self.problem, warm_start, seed)
        self.scores = ScoreCache(scorer, self.problem.task)
        self.refitter = Refitter(model, graph, data, seed)
        looked_at = scorer_text(scorer, self.problem.task, batch, statistics, to_record(budget.to_dict()))
        others = {"scorer": looked_at, "sampler": sampler + self.warm.text, "seed": str(seed)}
        identity = identity_of(model, graph, data, budget, self.problem.space, **others)
        self.store = TrialStore(name, url, budget.objectives, identity, WINDOWS[sampler])
        noted = StudyMetadata.of(graph, self.problem.cost_model.dense, scorer, self._caps, data.task.spec)
        write_metadata(self.store, noted)
        recall_scores(self.store, self.scores)
        self.scores.check_scorable(self.store.finished)

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {len(self.store.finished)} trials, {shown_url(self.store.url)!r})"

    @property
    def optuna_study(self) -> optuna.Study:
        """The underlying Optuna study."""
        return self.store.study

    def feasibility(self) -> str:
        """A table: dense cost, largest and smallest reachable cost under the rate limits, the budget."""
        return feasibility_table(self.problem)

    def search(
        self,
        trials: int,
        *,
        timeout: float | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        jobs: int = 1,
        shared: bool = False,
    ) -> None:
        """Goes on until the study has `trials` finished trials, infeasible ones included.

        Killed and called again, it finishes with the same trials. Ctrl-C stops after the trial, pressed twice at once.

        Args:
            trials: the study's total, not how many to add.
            timeout: seconds after which no further trial is begun.
            callbacks: called with the study and each trial that this process finished.
            progress: show a bar when standard error is a terminal.
            jobs: structures scored at the same time, the cores divided among them, on a CPU by processes of their own
                where a score takes a third of a second or more. With another number a search proposes other trials.
            shared: let any number of processes and machines do so at the same time; what each proposes then depends
                on who finishes first. Without it a second process is refused.

        Raises:
            SecateurError: for a storage that fails for good; while another process searches this study.
        """
        check_count("trials", trials)
        check_count("jobs", jobs)
        if shared and jobs > 1:
            raise SecateurError(f"jobs=1 must hold when the search is shared, but got jobs={jobs}; start more workers")
        stop = math.inf if timeout is None else time.monotonic() + timeout
        parts = (self.store, self.problem, self.scores, Proposer(self.sampler, self.seed, self.warm), trials, stop)
        told = search_distributed(*parts) if shared else search_sequentially(*parts, jobs)
        shown = with_bar(told, self.store, trials, progress)
        with stop_between_trials(), quiet(), closing(told), closing(shown):
            for frozen in shown:
                for callback in callbacks:
                    callback(self, frozen)
                stop_if_asked()

    def use_rule(self, rule: str | Structure) -> None:
        """Takes what a simple rule gives in the place of a search, one trial for each target of the budget.

        Args:
            rule: "uniform", "global", "sensitivity" or "random", as in `secateur.baseline`; or a structure that was
                made elsewhere, such as by another pruner.

        Raises:
            SecateurError: for an unknown rule, a structure of another network, one that misses the budget, or a study
                that has searched already.
        """
        use_rule(self.problem, self.scores, self.store, rule, self.seed)

    def work(
        self,
        trials: int,
        *,
        top: int = 0,
        finalists: int | None = None,
        recipe: Recipe | None = None,
        flow: Flow | None = None,
        start: str = DEFAULT_START,
        timeout: float | None = None,
        callbacks: Sequence[Callback] = (),
        device: str = "cpu",
        progress: bool = True,
    ) -> Front:
        """One worker of many: shares the search until it has `trials` trials, then shares the retraining.

        Args:
            trials: finished trials that all workers together are to reach.
            top: structures that all workers together retrain; 0 for none.
            finalists: out of how many they are chosen, as in `retrain`; the workers share every rung.
            recipe: how they are trained, as in `retrain`.
            flow: how pruning and training alternate, as in `retrain`.
            start: what the trainings start from, as in `retrain`.
            timeout: seconds after which no further trial is begun.
            callbacks: called with the study and each trial that this process finished.
            device: torch device on which this worker retrains.
            progress: show bars when standard error is a terminal.

        Returns:
            the front of what all workers found.
        """
        self.search(trials, timeout=timeout, callbacks=callbacks, progress=progress, shared=True)
        if top > 0 and len(self.store.finished) >= trials:
            how: dict[str, Any] = {"recipe": recipe, "flow": flow, "start": start, "device": device, "jobs": 1}
            return self.retrain(top, finalists=finalists, progress=progress, **how)
        return self.front()

    def fork(self, name: str, storage: str | None = None) -> ForkResult:
        """Takes over what another study of this network found out: call it before the first trial.

        Its trials whose structures lie inside this study's budget become trials of this one when both propose from the
        same space; all its scores are remembered, so that none of its structures is scored again.

        Args:
            name: the other study's name.
            storage: URL of the other study's storage; by default this study's.

        Returns:
            how many trials and how many scores were taken over.

        Raises:
            SecateurError: when there is no such study, its scores do not hold here (what differs is named), or this
                study has trials already.
        """
        return fork_study(self.store, self.problem, name, storage or self.store.url, self.scores)

    def candidates(self, *, retrained: bool = True) -> tuple[Candidate, ...]:
        """Every finished trial, with the results of its retrainings where there are any (and they are wanted)."""
        known = self._retrainer().retrainings() if retrained else {}
        confirmed = confirmed_scores(self.store.safely(lambda: self.store.study.user_attrs))
        done = sorted(self.store.finished, key=lambda trial: trial.number)
        return tuple(candidate_of(self.graph, trial, known, confirmed) for trial in done)

    def front(self, *, retrained: bool = True) -> Front:
        """The front of what is known so far, or as the search alone left it; dense as `dense_accuracy` says."""
        candidates = self.candidates(retrained=retrained)
        trained = any(one.retrainings for one in candidates)
        reaches = self.dense_accuracy() if trained else known_dense_accuracy(self.store)
        return Front(
            name=self.name,
            dense=dense_candidate(Structure.full(self.graph), self.problem.cost_model.dense, reaches),
            candidates=candidates,
            scorer=self.scorer,
            caps=self._caps,
            metric=self.data.task.spec,
        )

    def dense_accuracy(self, device: str | None = None) -> dict[str, float]:
        """What the dense network reaches by the task's metric: measured once a study, then read from its storage.

        Args:
            device: where it is measured; where the network is when not given.

        Returns:
            "validation" and "test" -> the metric (accuracy, with classes); a percentage is a fraction.
        """
        return known_dense_accuracy(self.store, lambda split: measure(self.model, self.data, split, device=device))

    @property
    def _caps(self) -> tuple[int, ...]:
        """The budget in MACs, one per target."""
        return tuple(int(b.high) for target in self.problem.targets for b in target.bounds if b.axis == "macs")

    def retrain(
        self,
        top: TrialChoice = 3,
        epochs: int | None = None,
        *,
        finalists: int | None = None,
        recipe: Recipe | None = None,
        flow: Flow | None = None,
        start: str = DEFAULT_START,
        device: str = "cpu",
        progress: bool = True,
        jobs: int | None = None,
    ) -> Front:
        """Retrains the most promising structures, spread over the front, and returns the front of accuracy.

        A finished retraining is not repeated, whatever else was retrained since; an interrupted one loses at most an
        epoch. Results by other recipes stay, and stand beside the new ones.

        Args:
            top: number of structures, or the trials themselves: candidates or the numbers of trials.
            epochs: number of epochs, in the place of the recipe's.
            finalists: so many structures compete for the `top` places in short trainings, by validation accuracy (see
                `search.study.finalists`); `study.finalists(top, finalists, epochs)` says beforehand what that costs.
            recipe: how they are trained; the default recipe distils from the dense network.
            flow: by default structures are cut, then trained; the others choose widths again and keep all layers.
            start: "cut" for the weights that the cut leaves, "reconstructed" for weights that are refitted first (see
                `reconstruct`), "auto" for refitted ones in trainings of up to 3 epochs; other flows train first.
            device: torch device for the training.
            progress: show bars when standard error is a terminal.
            jobs: structures trained at the same time, in processes that share torch's threads; by default as many as
                pay, 8 at most, where trainings on a CPU take about half a minute or more.

        Raises:
            SecateurError: when nothing feasible was found yet; for an unknown start, or fewer finalists than places.
        """
        check_count("jobs", 1 if jobs is None else jobs)
        recipe = recipe or Recipe()
        config = RetrainConfig(recipe if epochs is None else replace(recipe, epochs=epochs), flow or Flow(), start)
        chosen = self.finalists(top, finalists, config.recipe.epochs)
        self._retrainer().run(chosen, config, device=device, progress=progress, jobs=jobs)
        self.dense_accuracy(device)
        return self.front()

    def finalists(self, top: TrialChoice, finalists: int | None = None, epochs: int | None = None) -> Finalists:
        """The structures that `retrain` begins with; `print` says how many trainings of which length that makes.

        The best scores, at even steps in MACs over a band or several targets, and none that is nearly another one.
        Where the scorer refits networks the best are first looked at again, with more images to fit and on images that
        no trial saw (`Candidate.confirmed`), and these scores count. Arguments and errors as for `retrain`.
        """
        front, several = self.front(retrained=False), self.problem.objectives > 1
        epochs = (Recipe() if epochs is None else Recipe(epochs=epochs)).epochs
        if isinstance(top, Sequence):
            return given_finalists(front, top, epochs)
        check_finalists(top, finalists)
        if refits(self.scorer):
            fresh = confirming_task(self.problem.task, self.data, self.seed)
            front = confirm(front, self.scorer, fresh, self.store, finalists or top, spread=several)
        return finalists_of(front, self.problem, top, finalists, epochs)

    def reconstruct(self, what: Candidate | Structure | int) -> nn.Module:
        """A network that works before any training: what is left is refitted to what the dense network computes.

        The dense network runs once over training images, at the first call; labels are never looked at. `save` writes
        the network to a file, `secateur.reconstruct` takes images and settings of your own.

        Args:
            what: a candidate, a structure, or the number of a trial.

        Raises:
            SecateurError: for a candidate or trial without a structure, a structure of another network, too few images.
        """
        return self.refitter(self.structure(what) if isinstance(what, int) else given_structure(what))

    def retrained(
        self, recipe: Recipe, flow: Flow | None = None, start: str = DEFAULT_START
    ) -> dict[str, Mapping[str, Any]]:
        """Structure id -> what its retraining by one recipe gave: accuracy, test_accuracy, seconds, artefact.

        Where the flow chose again, "kept", "macs" and "params" describe the structure that it ended with.
        """
        return self._retrainer().results(RetrainConfig(recipe, flow or Flow(), start))

    def _retrainer(self) -> Retrainer:
        folder = self.folder / RETRAIN_FOLDER
        task = RetrainingTask(self.model, self.graph, self.data, folder, self.space, self.refitter)
        return Retrainer(self.store, task)

    def structure(self, number: int) -> Structure:
        """The structure of a finished trial, by the trial's number.

        Raises:
            SecateurError: when the trial found none.
        """
        for trial in self.store.finished:
            if trial.number == number and "kept" in trial.user_attrs:
                return unpack(self.graph, trial.user_attrs)
        raise SecateurError(f"study {self.name!r} has no trial {number} with a structure")

    def trials_dataframe(self) -> pandas.DataFrame:
        """All trials as a pandas data frame, which has to be installed."""
        return self.front().to_dataframe()
