"""The study file: everything a run depends on, as TOML for people and as frozen dataclasses for the code."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.arguments import explained
from backbones.errors import SecateurError, one_line
from scoring.scorers import REPLACED
from search.checks import check_study_name
from search.run.evaluation_plan import Plan
from search.run.schema import Tables, at_scale, read_table, to_toml, unknown_key, with_variant
from search.run.sections import (
    NO_REMOVAL,
    TASK_KEYS,
    BudgetSection,
    CompareSection,
    DataSection,
    ModelSection,
    RetrainSection,
    SearchSection,
    SpaceSection,
    SparsifySection,
    TaskSection,
)
from search.study.warm_start import RULES
from search.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class StudyFile:
    """One study.

    Attributes:
        name: names the run folder runs/<name>; letters, digits, ".", "_" and "-".
        seed: of everything that is drawn at random.
    """

    name: str
    model: ModelSection
    data: DataSection
    budget: BudgetSection
    seed: int = 0
    task: TaskSection = field(default_factory=TaskSection)
    dense: Recipe = field(default_factory=lambda: _from_scratch(Recipe()))
    space: SpaceSection = field(default_factory=SpaceSection)
    search: SearchSection = field(default_factory=SearchSection)
    retrain: RetrainSection = field(default_factory=RetrainSection)
    sparsify: SparsifySection = field(default_factory=SparsifySection)
    compare: CompareSection = field(default_factory=CompareSection)
    evaluate: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        check_study_name(self.name)
        if not 0 <= self.seed < 2**31:
            raise SecateurError(f"0 <= seed < 2**31 must hold, but got seed={self.seed}")
        if not self.search.searches and self.retrain.flow != "one-shot":
            given = "rule" if self.search.structure is None else "structure"
            raise SecateurError(
                f'[search] {given} needs [retrain] flow = "one-shot", but got flow={self.retrain.flow!r}'
            )

    def at_rates_of(self, other: StudyFile) -> StudyFile:
        """This study; where it leaves a rate to the length, `RATE_BEFORE` if the other has that at the same length."""
        parts: dict[str, Any] = {}
        for name in WITH_RECIPE:
            part, theirs = getattr(self, name), getattr(other, name).recipe
            own = part.recipe
            noted = (theirs.lr, theirs.epochs, theirs.optimiser)
            if own.lr == "auto" and noted == (RATE_BEFORE, own.epochs, own.optimiser):
                parts[name] = dataclasses.replace(part, recipe=dataclasses.replace(own, lr=RATE_BEFORE))
        return dataclasses.replace(self, **parts)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over every setting that a result of the study depends on."""
        kept = {"[space] removal": None} if self.space.removal == NO_REMOVAL else {}  # as it was written before
        known = (settings(self) | kept).items()
        settled = {k: value for k, value in known if not k.startswith(AMOUNTS) and (k, value) not in ONCE.items()}
        return hashlib.sha256(repr(sorted(settled.items())).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Top:
    """The keys above all sections.

    Attributes:
        name: every study has one; it names the run folder
        seed: of everything that is drawn at random
    """

    name: str
    seed: int = 0


SECTIONS: dict[str, type] = {
    "model": ModelSection,
    "data": DataSection,
    "task": TaskSection,
    "dense": Recipe,
    "budget": BudgetSection,
    "space": SpaceSection,
    "search": SearchSection,
    "retrain": RetrainSection,
    "sparsify": SparsifySection,
    "compare": CompareSection,
    "evaluate": Plan,
}
WITH_RECIPE = ("retrain", "sparsify", "evaluate")
"""Sections in which the keys of a recipe stand beside their own."""
RATE_BEFORE = 0.1
"""The default learning rate of every training before it went by the length."""
REQUIRED = ("model", "data", "budget")
MAY_CHANGE = ("[search] trials", "[dense] compile", "[retrain] ", "[sparsify] ", "[compare] ", "[evaluate] ")
"""How the settings begin that do not make another study: its trials are the same, and every result knows its recipe."""
AMOUNTS = (
    "[search] trials", "[dense] compile", "[retrain] top", "[retrain] finalists", "[retrain] compile", "[sparsify] ",
    "[compare] ", "[evaluate] ",
)  # fmt: skip
"""How the settings begin that change how much is done, and none of the results."""
ONCE = {
    "[retrain] start": "cut", "[search] warm_start": RULES, "[budget] engine": "eager", "[budget] latency_batch": None,
    "[space] removal": NO_REMOVAL, "[space] removal_choice": "order",
    **{f"[task] {key}": None for key in TASK_KEYS},
}  # fmt: skip
"""What held before there was a setting: it is meant where a file of before lacks it, and is no part of fingerprints."""


@explained
def read_study(path: str | os.PathLike[str], scale: str | None = None) -> StudyFile:
    """Reads a study file. Relative paths in it start at the file's own folder.

    Args:
        path: the study file.
        scale: name of one of the file's [scales]; by default the one that its key `scale` names.

    Raises:
        SecateurError: when the file is missing or not TOML, or a key is unknown, missing, of the wrong type or out of
            range: one line naming file, section and key.
    """
    path = Path(path)
    whole = _table(path)
    with _naming(path):
        table, _ = at_scale(whole, scale, tuple(SECTIONS))
        return parse(table, path.resolve().parent)


def read_written_study(path: Path) -> StudyFile:
    """Reads the `study.toml` of a run folder, which an older version may have written.

    It lists all scorers of its day under [evaluate]; those that are no longer offered are left out. A setting that it
    lacks was not there yet, and has the value of `ONCE`.

    Raises:
        SecateurError: as `read_study`.
    """
    table = _table(path)
    for label, value in ONCE.items():
        section, _, key = label.removeprefix("[").partition("] ")
        if value is not None and isinstance(table.get(section, {}), dict):
            plain = list(value) if isinstance(value, tuple) else value
            table = {**table, section: {key: plain, **table.get(section, {})}}
    plan = table.get("evaluate")
    if isinstance(plan, dict) and isinstance(plan.get("scorers"), list):
        offered = [name for name in plan["scorers"] if not REPLACED.keys() & set(str(name).split("+"))]
        table = {**table, "evaluate": {**plan, "scorers": offered}}
    with _naming(path):
        return parse(table, path.resolve().parent)


def read_variants(path: str | os.PathLike[str], scale: str | None = None) -> dict[str, StudyFile]:
    """The studies that a file's [variants] describe, by name; each has its variant's name.

    Args:
        path: the study file.
        scale: as in `read_study`.

    Raises:
        SecateurError: as `read_study`; the variant is named.
    """
    path = Path(path)
    whole = _table(path)
    with _naming(path):
        table, variants = at_scale(whole, scale, tuple(SECTIONS))
        found = {}
        for name, changes in variants.items():
            try:
                check_study_name(name)
                found[name] = parse(with_variant(table, name, changes), path.resolve().parent)
            except SecateurError as error:
                raise SecateurError(f"variant {name!r}: {error}") from None
        return found


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file's name in front of what is wrong with it."""
    try:
        yield
    except SecateurError as error:
        raise SecateurError(f"{path}: {error}") from None
    except (ArithmeticError, RecursionError) as error:  # numbers beyond all bounds, tables a thousand levels deep
        raise SecateurError(f"{path} holds what no study file holds: {one_line(error)}") from None


def _table(path: Path) -> Tables:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SecateurError(f"{path} does not exist; `secateur init {path}` writes one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SecateurError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise SecateurError(f"{path} is not TOML: {one_line(error)}") from None


def parse(table: Mapping[str, Any], folder: Path) -> StudyFile:
    """A study from parsed TOML; relative paths start at `folder`.

    Raises:
        SecateurError: as `read_study`.
    """
    known = [*(item.name for item in dataclasses.fields(_Top)), *SECTIONS]
    for name in table:
        if name not in known:
            raise SecateurError(unknown_key("", name, known))
    top = read_table(_Top, {key: value for key, value in table.items() if key not in SECTIONS}, "", folder)
    for name in REQUIRED:
        if name not in table:
            raise SecateurError(f"section [{name}] is missing; `secateur init` writes a study file to start from")
    parts: dict[str, Any] = {}
    given, dense = table.get("retrain", {}), table.get("dense", {})
    table = {**table, "retrain": _as_dense(given, dense)}
    for name, cls in SECTIONS.items():
        reader = _read_with_recipe if name in WITH_RECIPE else read_table
        parts[name] = reader(cls, _seeded(name, table.get(name, {}), top.seed), f"[{name}]", folder)
    if "lr" not in dense:
        parts["dense"] = _from_scratch(parts["dense"])
    elif not {"lr", "optimiser"} & given.keys():
        parts["retrain"] = _rate_as_dense(parts["retrain"], parts["dense"])
    search = parts["search"]
    sources = tuple(str(folder / one) if one.endswith(".json") else one for one in search.warm_start)
    parts["search"] = dataclasses.replace(search, warm_start=sources)
    return StudyFile(name=top.name, seed=top.seed, **parts)


def settings(study: StudyFile) -> dict[str, object]:
    """Every setting by the name that messages use: `seed`, `[search] trials`; rates as numbers."""
    found = {f"[{section}] {key}" if section else key: value for section, key, value in entries(study)}
    recipes = {"dense": study.dense, **{name: getattr(study, name).recipe for name in WITH_RECIPE}}
    return found | {f"[{section}] lr": recipe.highest_rate for section, recipe in recipes.items()}


def entries(study: StudyFile) -> Iterator[tuple[str, str, object]]:
    """(section, key, value) of every setting, in the order of the file; the top level's section is empty."""
    yield "", "name", study.name
    yield "", "seed", study.seed
    for section in SECTIONS:
        part = getattr(study, section)
        for key in _fields(part):
            value = getattr(part, key)
            if isinstance(value, Recipe):
                yield from ((section, name, getattr(value, name)) for name in _fields(value))
            else:
                yield section, key, value


def study_toml(study: StudyFile) -> str:
    """The study as TOML with every setting written out, defaults too; `read_study` reads it to an equal study."""
    lines: list[str] = []
    current = ""
    for section, key, value in entries(study):
        if section != current:
            lines += ["", f"[{section}]"]
            current = section
        if value is not None:
            lines.append(f"{key} = {to_toml(value)}")
    return "\n".join(lines) + "\n"


def differences(here: StudyFile, there: StudyFile) -> list[str]:
    """What makes two studies different ones, one text per setting, `[search] sampler is 'tpe', not 'nsga2'`."""
    other = settings(there)
    return [
        f"{key} is {_shown(value)}, not {_shown(other[key])}"
        for key, value in settings(here).items()
        if not key.startswith(MAY_CHANGE) and value != other[key]
    ]


def _seeded(section: str, table: object, seed: int) -> object:
    """Trainings take the study's seed unless they name their own."""
    if section in ("dense", *WITH_RECIPE) and isinstance(table, Mapping):
        return {"seed": seed, **table}
    return table


def _as_dense(retrain: object, dense: object) -> object:
    """Retraining has the batch size and the optimiser of [dense] unless it has its own."""
    if not (isinstance(retrain, Mapping) and isinstance(dense, Mapping)):
        return retrain
    return {**{name: dense[name] for name in ("batch_size", "optimiser") if name in dense}, **retrain}


def _from_scratch(dense: Recipe) -> Recipe:
    """The dense network begins from random weights, which want the rate of a long training in a short one too."""
    return dataclasses.replace(dense, lr=dense.in_epochs(Recipe().epochs).highest_rate)


def _rate_as_dense(retrain: RetrainSection, dense: Recipe) -> RetrainSection:
    """Retraining has the rate of [dense], in its own length, where neither rate nor optimiser is its own."""
    lr = dense.in_epochs(retrain.recipe.epochs).lr
    return dataclasses.replace(retrain, recipe=dataclasses.replace(retrain.recipe, lr=lr))


def _read_with_recipe(cls: type[Any], table: object, section: str, folder: Path) -> Any:
    """The section's own keys and those of a recipe stand side by side; what is left out is as in its default recipe."""
    if not isinstance(table, Mapping):
        return read_table(cls, table, section, folder)
    own_keys = [key for key in _fields(cls) if key != "recipe"]
    known = [*own_keys, *_fields(Recipe)]
    for name in table:
        if name not in known:
            raise SecateurError(unknown_key(section, name, known))
    own = read_table(cls, {key: value for key, value in table.items() if key in own_keys}, section, folder)
    given = {key: value for key, value in table.items() if key not in own_keys}
    read = read_table(Recipe, given, section, folder)
    return dataclasses.replace(
        own, recipe=dataclasses.replace(own.recipe, **{key: getattr(read, key) for key in given})
    )


def _fields(value: Any) -> list[str]:
    return [item.name for item in dataclasses.fields(value)]


def _shown(value: object) -> str:
    return "not given" if value is None else to_toml(value)
