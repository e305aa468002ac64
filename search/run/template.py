"""The study files that `secateur init` writes: small studies that run as they are, every key explained."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from search.data.augment import Augment
from search.run.schema import attribute_texts, to_toml
from search.run.study_file import SECTIONS, StudyFile, entries, parse
from search.training.recipe import OPTIMISERS, SCHEDULES, Recipe

HEAD = """\
# A study: which network, which data, which budget, and how the search goes about it.
# Run it with `secateur run` and this file's name. Keys behind a # show their default, or an example where there is
# none. Relative paths start at this file's folder.
"""
ACTIVE: dict[str, object] = {
    "name": "digits",
    "[model] backbone": "resnet20",
    "[data] name": "digits",
    "[dense] epochs": 8,
    "[budget] macs": "30%",
    "[search] trials": 240,
    "[retrain] top": 3,
    "[retrain] epochs": 6,
}
EXAMPLE_FILES = {
    "classification": "classification_task.py",
    "segmentation": "segmentation_task.py",
    "regression": "regression_task.py",
}
"""Task -> the file with its network, data and loss, beside the study file."""
EXAMPLES: dict[str, object] = {
    "[model] factory": "package.module:function",
    "[model] num_classes": 10,
    "[model] in_channels": 3,
    "[model] checkpoint": "dense.safetensors",
    "[model] pretrained": "imagenet.pth",
    "[model] skip": ("classifier.*",),
    "[data] factory": "package.module:function",
    "[data] folder": "data/cifar-10-batches-bin",
    "[data] size": 64,
    "[data] grey": True,
    "[data] test": 0.2,
    "[data] per_class": 60,
    "[data] validation": 0.1,
    "[data] images": 10_000,
    "[task] factory": "package.module:function",
    "[task] loss": "package.module:function",
    "[task] metric": "torchmetrics:MeanAbsoluteError",
    "[task] name": "IoU",
    "[task] direction": "higher",
    "[task] unit": "%",
    "[task] distance": "package.module:function",
    "[task] classes": False,
    "[data] mean": (0.4914, 0.4822, 0.4465),
    "[data] std": (0.2470, 0.2435, 0.2616),
    "[budget] params": "50%",
    "[budget] latency": "60%",
    "[budget] memory": "2MB",
    "[budget] latency_batch": 1,
    "[dense] warmup": 0.05,
    "[dense] channels_last": True,
    "[dense] augment": Augment(crop=4, flip=True),
    "[dense] slim_layers": {"layer3.2.bn2": 10.0},
    "[evaluate] images": 20000,
    "[evaluate] scorers": ("params", "fidelity", "fidelity+params"),
    "[space] only": ("layer3.*",),
    "[space] ignore": ("conv1",),
    "[space] removal": "cosine",
    "[space] fixed": {"balance": 0.0},
    "[search] rule": "uniform",
    "[retrain] finalists": 8,
    "[space] removal_layers": ("layer3.*",),
}
SECTION_TEXTS = {
    "model": "Which network.",
    "data": "Which images, or samples of another form.",
    "task": "What the network is for, by what it learns and is judged; classification where nothing is given.",
    "dense": "How the dense network is trained when there is no checkpoint.",
    "budget": "What the pruned network may cost; at least one of the four.",
    "space": "Which structures are looked at.",
    "search": "How they are looked at.",
    "retrain": "How many of the best are retrained, and how: as [dense] says (optimiser, batch_size, lr for these "
    "epochs), or any key.",
    "sparsify": "What goes beside the filters in `secateur compare`; every key of [dense] can stand here too.",
    "compare": "What `secateur compare` does with variants of this study, [variants.name.section].",
    "evaluate": "What `secateur evaluate` does; every key of [dense] can stand here too.",
}
KEY_TEXTS = {
    "[dense] optimiser": f"{' or '.join(to_toml(name) for name in OPTIMISERS)}; sgd uses Nesterov momentum.",
    "[dense] lr": 'highest learning rate; "auto" goes by optimiser and epochs, for weights that work already.',
    "[dense] schedule": f"of the learning rate: {', '.join(to_toml(name) for name in SCHEDULES)}.",
    "[dense] slim_layers": "batch-norm layer = factor on slim; layers not named have factor 1.",
    "[dense] slim": "lambda of the L1 penalty on batch-norm gammas (network slimming); 0 for none.",
}
RECIPE = tuple(item.name for item in dataclasses.fields(Recipe))
SHORT = {
    "retrain": ("epochs", "lr", "batch_size", "distill"),
    "evaluate": ("epochs", "lr", "batch_size"),
    "sparsify": ("epochs", "lr", "batch_size"),
}


def example_file(task: str) -> str:
    """The text of the Python file with network, data and loss of an example.

    Args:
        task: a key of `EXAMPLE_FILES`.
    """
    return (files("search.run") / "examples" / f"{EXAMPLE_FILES[task]}.txt").read_text(encoding="utf-8")


def _active(task: str | None) -> dict[str, object]:
    """The settings that an example has, beside defaults."""
    if task is None:
        return ACTIVE
    module = EXAMPLE_FILES[task].removesuffix(".py")
    own = {"name": task, "[model] factory": f"{module}:network", "[data] factory": f"{module}:data"}
    if task != "classification":
        own["[task] factory"] = f"{module}:task"
    given = {key: value for key, value in ACTIVE.items() if key not in ("[model] backbone", "[data] name")}
    short: dict[str, object] = {"[dense] lr": 0.05, "[dense] batch_size": 32, "[budget] macs": "33%"}
    return {
        **given,
        **own,
        **short,
        "[search] trials": 60,
        "[retrain] top": 1,
        "[retrain] lr": 0.02,
        "[retrain] start": "reconstructed",
    }


def template(task: str | None = None) -> str:
    """The text of the file; `read_study` accepts it.

    Args:
        task: a key of `EXAMPLE_FILES`, for a study on network and data of a file beside it; by default one on digits.
    """
    active = _active(task)
    study = _example(active)
    lines = [HEAD]
    seen = ""
    for section, key, value in entries(study):
        if section != seen:
            lines += ["", f"# {SECTION_TEXTS[section]}", f"[{section}]"]
            seen = section
        lines += _entry(section, key, value, active)
    return "\n".join(lines) + "\n"


def _entry(section: str, key: str, value: object, active: Mapping[str, object]) -> list[str]:
    label = f"[{section}] {key}" if section else key
    if key not in SHORT.get(section, (key,)) and key in RECIPE:
        return []
    words = KEY_TEXTS.get(label) or attribute_texts(SECTIONS[section] if section else StudyFile).get(key, "")
    comment = textwrap.wrap(f"{key}: {words}", 118, initial_indent="# ", subsequent_indent="#   ") if words else []
    if label in active:
        return [*comment, f"{key} = {to_toml(value)}"]
    shown = EXAMPLES.get(label, value)
    return [*comment, f"# {key} =" + ("" if shown is None else f" {to_toml(shown)}")]


def _example(active: Mapping[str, object]) -> StudyFile:
    table: dict[str, object] = {}
    for label, value in active.items():
        section, _, key = label.rpartition("] ")
        if section:
            part = table.setdefault(section.removeprefix("["), {})
            assert isinstance(part, dict)
            part[key] = value
        else:
            table[key] = value
    return parse(table, Path())
