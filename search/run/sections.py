"""The sections of a study file, as frozen dataclasses that check themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from backbones.errors import SecateurError
from backbones.errors import check_name as known_name
from scoring.channel_weights import FEATURES
from scoring.clusters import LINKAGES
from scoring.criteria import CRITERIA, REDUCTIONS
from scoring.essentiality import ESSENTIALITY
from scoring.limits import Limits
from scoring.scorers import DEFAULT_SCORER, check_scorer
from search.checks import check_range
from search.space.budget import Amount, Budget
from search.space.layer_removal import CHOICES, Removal
from search.space.space import AUTO, KINDS, Space
from search.study.finalists import check_finalists
from search.study.retraining_task import DEFAULT_START, STARTS, RetrainConfig
from search.study.rules import BASELINES
from search.study.samplers import DEFAULT_SAMPLER, SAMPLERS
from search.study.warm_start import RULES
from search.training.flows import Flow
from search.training.masks import Scope
from search.training.recipe import Recipe

NO_REMOVAL = "none"
"""What a study file says where no layers may go."""


@dataclass(frozen=True, slots=True)
class ModelSection:
    """Which network.

    Attributes:
        backbone: a built-in architecture, such as "resnet20" or "vgg16_bn_cifar".
        factory: instead: your own, "package.module:function", called with num_classes and in_channels if it takes them.
        num_classes: outputs; by default what the data has.
        in_channels: colour channels of the input; by default what the data has.
        checkpoint: weights to start from (.safetensors, or .pt/.th holding tensors only); without one the dense
            network is trained first, as [dense] says.
        pretrained: instead: weights that [dense] begins from, such as those of another data set.
        skip: parameters that pretrained leaves as they are, by name or pattern: ["classifier.*"] for a new head.
    """

    backbone: str | None = None
    factory: str | None = None
    num_classes: int | None = None
    in_channels: int | None = None
    checkpoint: Path | None = None
    pretrained: Path | None = None
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _exactly_one("backbone", self.backbone, "factory", self.factory)
        if self.checkpoint is not None and self.pretrained is not None:
            raise SecateurError("takes checkpoint (trained for this data) or pretrained (to begin from), but got both")
        check_range("num_classes", self.num_classes, 2, 10**6)
        check_range("in_channels", self.in_channels, 1, 10**4)


@dataclass(frozen=True, slots=True)
class DataSection:
    """Which images, or samples of another form.

    Attributes:
        name: a built-in data set: "digits", "cifar10", "cifar100", "tiny-imagenet", "caltech256", "cub200", "aircraft",
            "cars", "fer2013", or "folder" for pictures of your own in one folder a class.
        factory: instead: your own, "package.module:function", returning a secateur.Data; called with seed, and with
            task where [task] is given, if it takes them.
        folder: where the files are; by default under $SECATEUR_DATA.
        size: side in pixels that images are resized to, where they come in many sizes; by default the data set's own,
            of "folder" the pictures' own, at most 224.
        grey: of "folder": one colour channel instead of three.
        test: of "folder": fraction of the images that is set aside for the test, where there is no test folder.
        per_class: of "caltech256": training images a class; all others are for the test.
        validation: fraction of the training images that is set aside to rank structures; by default the data set's own.
        images: training samples that are used, drawn once with the classes in proportion; all by default.
        mean: per channel, of pixels scaled to [0, 1]; by default the data set's own.
        std: per channel, likewise.
    """

    name: str | None = None
    factory: str | None = None
    folder: Path | None = None
    size: int | None = None
    grey: bool | None = None
    test: float | None = None
    per_class: int | None = None
    validation: float | None = None
    images: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _exactly_one("name", self.name, "factory", self.factory)
        check_range("validation", self.validation, 0, 1, above=True, below=True)
        check_range("test", self.test, 0, 1, above=True, below=True)
        check_range("size", self.size, 1, 4096)
        check_range("per_class", self.per_class, 2)
        check_range("images", self.images, 1)

    def options(self) -> dict[str, object]:
        """What is given of that which readers take, by the names that they have for it."""
        offered = {key: getattr(self, key) for key in ("folder", "size", "grey", "test", "per_class", "validation")}
        return {key: value for key, value in offered.items() if value is not None}


@dataclass(frozen=True, slots=True)
class TaskSection:
    """What the network is for; classification where nothing is given.

    Attributes:
        factory: your own, "package.module:function", returning a secateur.Task.
        loss: instead: a function of (outputs, targets), "package.module:function".
        metric: beside loss: a function of (outputs, targets), or a class with update, compute and reset, such as
            "torchmetrics:MeanAbsoluteError".
        name: what the metric is called; by default as its function or class.
        direction: which values are better, "higher" or "lower"; by default what the metric says itself.
        unit: "%" for a fraction that is shown as a percentage, else what stands behind the number.
        distance: function of (outputs, outputs of the teacher) that distillation minimises, "package.module:function".
        classes: outputs are logits of classes, targets numbers of classes: scores that need classes may be used.
    """

    factory: str | None = None
    loss: str | None = None
    metric: str | None = None
    name: str | None = None
    direction: Literal["higher", "lower"] | None = None
    unit: str | None = None
    distance: str | None = None
    classes: bool | None = None

    def __post_init__(self) -> None:
        given = [name for name in TASK_KEYS if name != "factory" and getattr(self, name) is not None]
        if self.factory is not None and given:
            raise SecateurError(f"takes factory or the parts of a task, but got factory and {given[0]}")
        if given and (self.loss is None or self.metric is None):
            missing = "loss" if self.loss is None else "metric"
            raise SecateurError(f"needs loss and metric, but got {given[0]} without {missing}")

    @property
    def given(self) -> bool:
        """Whether there is another task than classification."""
        return self.factory is not None or self.loss is not None


TASK_KEYS = tuple(one.name for one in fields(TaskSection))


@dataclass(frozen=True, slots=True)
class BudgetSection:
    """What the pruned network may cost; at least one of the four, several hold together.

    Attributes:
        macs: multiply-adds of one image: a fraction "30%" or 0.3 of the dense network, an absolute "25M", a band
            "20%..30%", or a list of targets ["20%", "35%", "50%"].
        params: parameters, in the same forms.
        latency: seconds a batch on this machine, "60%" or "20ms", predicted from a calibration and then measured.
        memory: peak bytes of activations for one image, "50%" or "2MB".
        engine: what runs networks where their time is measured: "eager", "compiled" (torch.compile) or "onnxruntime".
        latency_batch: samples in the batch that latency is of; [search] batch of them by default.
    """

    macs: Amount | tuple[Amount, ...] | None = None
    params: Amount | tuple[Amount, ...] | None = None
    latency: Amount | tuple[Amount, ...] | None = None
    memory: Amount | tuple[Amount, ...] | None = None
    engine: str = "eager"
    latency_batch: int | None = None

    def __post_init__(self) -> None:
        if all(amount is None for amount in (self.macs, self.params, self.latency, self.memory)):
            raise SecateurError('needs macs or params (or latency, memory), such as macs = "30%"')
        try:
            self.budget()
        except SecateurError as error:
            raise SecateurError(str(error).removeprefix("budget ")) from None

    def budget(self) -> Budget:
        """The value that a study takes."""
        return Budget(self.macs, self.params, self.latency, self.memory, self.engine, self.latency_batch)


@dataclass(frozen=True, slots=True)
class SpaceSection:
    """Which structures are looked at.

    Attributes:
        kind: "ratios" (a keep ratio per group), "hybrid" (one norm and one distance threshold and one cap on what goes
            for all layers), "hybrid+ratios" (the thresholds, and a cap per group), or "global" (one threshold for the
            worth of all filters: network slimming with criterion "bn_gamma").
        criterion: how much a filter is worth: "reconstruction" (how little the others can stand in for it), "l2", "l1",
            ...; "auto" is "reconstruction", and "l2" where that cannot be measured or layers go in order.
        linkage: how clusters of similar filters grow: "average", "complete", ...
        features: what filters are compared by: "fan_in", "fan_out" or "both".
        reduction: how the worth of a filter in several coupled layers becomes one: "sum", "mean", "max", "first".
        max_rate: at most this fraction of a group's channels goes.
        min_channels: at least so many stay.
        divisor: widths are multiples of it, 8 say: kernels compute in blocks. Thinner groups stay whole.
        ignore: layers that are never pruned, by name or pattern, ["conv1", "layer3.*"].
        only: if given, only these layers are pruned.
        removal: whole layers go too; how essential each is say "cosine", "accuracy" or "score". "auto": each residual
            block may go where the sampler is "evolution" and scores are of refitted networks; "none": none go.
        removal_most: at most so many; below 1 a share of those that may.
        removal_least: at least so many go.
        removal_layers: which may go, by name or pattern; by default the residual blocks, or single layers without any.
        removal_choice: "order": the least essential first, so many as a trial proposes; "each": any of them.
        fixed: parameters of the space that are held instead of proposed: {balance = 0} of "hybrid" uses the norm alone,
            {balance = 1} the distance alone; "rate" of "hybrid" and "exponent" of "global" can be held, too.
    """

    kind: str = "ratios"
    criterion: str = AUTO
    linkage: str = "average"
    features: str = "fan_in"
    reduction: str = "sum"
    max_rate: float = 0.9
    min_channels: int = 1
    divisor: int = 1
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    removal: str = AUTO
    removal_most: float = 0.5
    removal_least: int = 0
    removal_layers: tuple[str, ...] = ()
    removal_choice: str = "order"
    fixed: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known_name("kind", self.kind, KINDS)
        known_name("criterion", self.criterion, (*CRITERIA, AUTO))
        known_name("linkage", self.linkage, LINKAGES)
        known_name("features", self.features, FEATURES)
        known_name("reduction", self.reduction, REDUCTIONS)
        known_name("removal", self.removal, (*ESSENTIALITY, AUTO, NO_REMOVAL))
        known_name("removal_choice", self.removal_choice, CHOICES)
        for item in fields(self):
            if self.removal == AUTO and item.name.startswith("removal_") and getattr(self, item.name) != item.default:
                raise SecateurError(
                    f"{item.name} needs a removal that is not {AUTO!r}: {', '.join(map(repr, ESSENTIALITY))}"
                )
        try:
            self.space()
        except SecateurError as error:
            raise SecateurError(re.sub(r"\b(most|least)(?= must| <=|=)", r"removal_\1", str(error))) from None

    def space(self) -> Space:
        """The value that a study takes."""
        limits = Limits(self.max_rate, self.min_channels, self.divisor)
        removal: Removal | str | None = None if self.removal == NO_REMOVAL else AUTO
        if self.removal in ESSENTIALITY:
            removal = Removal(
                self.removal, self.removal_most, self.removal_layers, self.removal_least, self.removal_choice
            )
        fixed = tuple(sorted(self.fixed.items()))
        return Space(self.kind, self.criterion, self.linkage, limits, self.features, self.reduction, removal, fixed)


@dataclass(frozen=True, slots=True)
class SearchSection:
    """How they are looked at.

    Attributes:
        trials: structures to score; raise it later and run again to continue.
        sampler: who proposes: "evolution" (local moves from the best), "tpe", "nsga2", "gp", "qmc", "random".
        warm_start: what the first trials are: rules, as for `rule`, and structures made elsewhere, each a .json file.
        scorer: what a structure is worth before any training: "reconstruction" (how near refitted networks come to the
            dense one), "naswot", ..., "refitted:naswot" (of the refitted network), or a rank sum, "naswot+params".
        batch: images the scorer looks at.
        statistics: images for the batch-norm statistics of pruned networks; 0 for the scoring batch itself.
        rule: instead of a search: the structure of a simple rule, "uniform" (one keep ratio), "global" (one threshold),
            "sensitivity" (the same loss allowed everywhere) or "random".
        structure: instead: a structure that was made elsewhere, as `Structure.to_json` writes it.
    """

    trials: int = 200
    sampler: str = DEFAULT_SAMPLER
    warm_start: tuple[str, ...] = RULES
    scorer: str = DEFAULT_SCORER
    batch: int = 128
    statistics: int = 0
    rule: str | None = None
    structure: Path | None = None

    def __post_init__(self) -> None:
        if self.rule is not None:
            known_name("rule", self.rule, BASELINES)
            if self.structure is not None:
                raise SecateurError("takes rule or structure in the place of a search, but got both")
        known_name("sampler", self.sampler, SAMPLERS)
        for one in self.warm_start:
            if not one.endswith(".json"):
                known_name("warm_start", one, BASELINES)
        check_scorer(self.scorer)
        check_range("trials", self.trials, 1)
        check_range("batch", self.batch, 2)
        check_range("statistics", self.statistics, 0)

    @property
    def searches(self) -> bool:
        """Whether structures are looked for at all."""
        return self.rule is None and self.structure is None


@dataclass(frozen=True, slots=True)
class RetrainSection:
    """How many of the best are retrained, and how.

    Attributes:
        top: number of structures.
        finalists: so many compete for the places in short trainings, by validation accuracy: all train for a sixteenth
            of the epochs, the better half for a quarter, `top` to the end; by default none do. 8 for one place cost 2.5
            whole trainings.
        flow: how pruning and training alternate: "one-shot" (cut, then train), "iterative" (in steps, trained between),
            "soft" (silenced channels may win their place back in every epoch) or "asymptotic" (softly, more and more).
        steps: of "iterative"; each is a training with the whole recipe.
        start: of "one-shot": "cut" (the weights that the cut leaves), "reconstructed" (refitted before the training),
            "auto" (refitted for up to 3 epochs). The other flows train before they cut, and start as they always do.
        recipe: the rest of the section.
    """

    top: int = 3
    finalists: int | None = None
    flow: str = "one-shot"
    steps: int = 3
    start: str = DEFAULT_START
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        check_finalists(self.top, self.finalists)
        Flow(self.flow, self.steps)
        known_name("start", self.start, STARTS)

    @property
    def way(self) -> Flow:
        """The flow with its steps."""
        return Flow(self.flow, self.steps)

    @property
    def config(self) -> RetrainConfig:
        """How each structure is retrained."""
        return RetrainConfig(self.recipe, self.way, self.start)


@dataclass(frozen=True, slots=True)
class SparsifySection:
    """Double pruning: in `secateur compare` single weights go after the filters have gone (Lee et al. 2020).

    Attributes:
        amount: share of the weights of convolutions and linear layers that goes, the smallest; 0 for none.
        scope: "global" compares weights over all layers, "layer" takes the same share of each.
        spare: layers that are left alone, by name.
        recipe: the rest of the section: how the others are tuned.
    """

    amount: float = 0.0
    scope: Scope = "global"
    spare: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=10, lr=0.01))

    def __post_init__(self) -> None:
        check_range("amount", self.amount, 0, 1, below=True)


@dataclass(frozen=True, slots=True)
class CompareSection:
    """What `secateur compare` does with every variant of a study.

    Attributes:
        seeds: retrainings of each structure, with [retrain] seed, + 1, ...; raise it later to go on.
    """

    seeds: int = 3

    def __post_init__(self) -> None:
        check_range("seeds", self.seeds, 1)


def _exactly_one(first: str, one: object, second: str, other: object) -> None:
    if (one is None) == (other is None):
        state = "neither" if one is None else "both"
        raise SecateurError(f"needs exactly one of {first} and {second}, but got {state}")
