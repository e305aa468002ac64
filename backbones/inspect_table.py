"""What a trace found, as text: the groups, what stays and why, and how far the cost can fall."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from backbones.arguments import explained
from backbones.cost_table import Cost
from backbones.graph import ChannelGraph, Frozen

NAMED_LAYERS = 4
"""So many member layers of a group are named, the others counted."""
TERMINAL_WIDTH = 80
"""Columns of a terminal. What is longer goes on in the next line; no name is cut."""
LONGEST = 34
"""A name longer than this stands on a line of its own, above the rest of its row."""


def mac_shares(graph: ChannelGraph) -> Mapping[str, float]:
    """Group name -> share of the dense MACs that its channels take part in (shares overlap: a layer has two sides)."""
    dense = graph.costs.dense
    found = {}
    for number, group in enumerate(graph.groups):
        kept = graph.costs.dense_kept.copy()
        kept[number] = 0
        found[group.name] = (dense.macs - graph.costs.evaluate(kept).macs) / max(1, dense.macs)
    return found


def minimum(graph: ChannelGraph) -> Cost:
    """The cost with one channel kept in every group."""
    return graph.costs.evaluate(np.ones(len(graph.groups), dtype=np.int64))


@explained
def describe(graph: ChannelGraph) -> str:
    """Everything `secateur inspect` prints about a traced network.

    Returns:
        Several lines: dense cost and reachable minimum, the groups (name, size, share of MACs, member layers), the
        frozen channels with their reasons, and the parameters that the forward pass never uses.
    """
    dense, least = graph.costs.dense, minimum(graph)
    lines = [
        f"dense              {dense.macs:>15,} MACs  {dense.params:>13,} parameters",
        f"reachable minimum  {least.macs:>15,} MACs  {least.params:>13,} parameters",
        f"                   {least.macs / max(1, dense.macs):>15.2%} of the MACs, one channel a group",
        "",
        f"{len(graph.groups)} prunable groups, {graph.channels} channels",
    ]
    share = mac_shares(graph)
    rows = [["group", "size", "share", "layers"]]
    for group in graph.groups:
        mark = " (values of kept channels change: shared statistics)" if group.name in graph.mixed else ""
        mark = " (attention heads)" if group.name in graph.heads else mark
        layers = dict.fromkeys(member.layer or member.tensor for member in group.members)
        rows.append([group.name, str(group.size), f"{share[group.name]:.1%}", _listed(list(layers)) + mark])
    lines += _table(rows, right=(1, 2))
    lines += ["share: of the MACs, that the channels take part in; layers have two sides, so", "shares overlap"]
    if graph.frozen:
        lines += ["", f"{sum(len(record.channels) for record in graph.frozen)} channels stay"]
        rows = [["layer", "channels", "reason"]]
        rows += [[record.layer, str(len(record.channels)), _why(record)] for record in graph.frozen]
        lines += _table(rows, right=(1,))
    if graph.unreached:
        unused = f"never used by the traced forward pass (eval mode): {_listed(graph.unreached)}"
        lines += ["", *_wrapped(unused, TERMINAL_WIDTH - 2)]
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_LAYERS} more" if len(names) > NAMED_LAYERS else ""
    return ", ".join(names[:NAMED_LAYERS]) + more


def _why(record: Frozen) -> str:
    place = [f"in {record.module}" if record.module and record.module != record.layer else "", record.line]
    where = ", ".join(part for part in place if part)
    op = "" if record.op in ("output", "ignore", "only") else f" [{record.op}]"
    return f"{record.reason}{op}" + (f" ({where})" if where else "")


def _table(rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    """Columns of equal width, two spaces apart; the last one goes on below itself where it is too long."""
    short = [row for row in rows if len(row[0]) <= LONGEST]
    sizes = [max(len(row[column]) for row in (short if column == 0 else rows)) for column in range(len(rows[0]) - 1)]
    start = 2 + sum(sizes) + 2 * len(sizes)
    lines = []
    for row in rows:
        first, *cells = row[:-1]
        if len(first) > LONGEST:
            lines.append(f"  {first}")
            first = ""
        cells = [
            cell.rjust(size) if column in right else cell.ljust(size)
            for column, (cell, size) in enumerate(zip([first, *cells], sizes, strict=True))
        ]
        head, *more = _wrapped(row[-1], TERMINAL_WIDTH - start)
        lines += ["  " + "  ".join([*cells, head]).rstrip(), *(" " * start + line for line in more)]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """At least one line; a word longer than `width` stays whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
