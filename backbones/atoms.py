"""The book of channel atoms: who is united with whom, where they live, what is frozen and why."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from backbones.graph import Role
from backbones.labels import NONE, compact, compress, varying
from backbones.program import Step

Atoms = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Binding:
    """One dimension of one tensor: the atom of each position (negative: always stays)."""

    tensor: str
    dim: int
    role: Role
    atoms: Atoms


@dataclass(frozen=True, slots=True)
class Ban:
    """Atoms that may not be pruned, and the step that says so."""

    atoms: Atoms
    step: Step
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """Labels that change along several dimensions of one tensor: only one of them may shrink, settled at the end."""

    labels: Tensor
    shrinks: int
    step: Step


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """A parameter combined element by element with labels of the same number of dimensions; bound at the end."""

    tensor: str
    shape: tuple[int, ...]
    labels: Tensor
    step: Step


@dataclass(slots=True, eq=False)
class Book:
    """Everything an interpretation writes down."""

    atoms: int = 0
    pairs: list[tuple[Atoms, Atoms]] = field(default_factory=list)
    bindings: dict[tuple[str, int], Binding] = field(default_factory=dict)
    bans: list[Ban] = field(default_factory=list)
    joints: list[Joint] = field(default_factory=list)
    spreads: list[Spread] = field(default_factory=list)
    mixed: list[Atoms] = field(default_factory=list)
    summed: list[Atoms] = field(default_factory=list)
    sized: dict[str, Atoms] = field(default_factory=dict)
    macs: list[tuple[int, tuple[tuple[str, int] | Atoms, ...], Step]] = field(default_factory=list)
    assumed: list[tuple[int, Atoms]] = field(default_factory=list)

    def fresh(self, count: int) -> Tensor:
        """(count,) new atoms."""
        start, self.atoms = self.atoms, self.atoms + count
        return torch.arange(start, start + count)

    def freeze(self, labels: Tensor, step: Step, reason: str) -> None:
        """Bans every atom among the labels."""
        atoms = np.unique(compact(labels).numpy())
        atoms = atoms[atoms >= 0]
        if len(atoms):
            self.bans.append(Ban(atoms, step, reason))

    def assume(self, number: int, labels: Tensor) -> None:
        """Notes that step `number` was read in a way that its code need not mean; a trial pruning decides."""
        atoms = np.unique(compact(labels).numpy())
        self.assumed.append((number, atoms[atoms >= 0]))

    def mixing(self, labels: Tensor) -> None:
        """Notes that layer or group statistics mix these channels: dropping some changes the values of the others."""
        atoms = np.unique(compact(labels).numpy())
        self.mixed.append(atoms[atoms >= 0])

    def summing(self, labels: Tensor) -> None:
        """Notes that something without weights sums over these channels: dropping one counts as zero there."""
        atoms = np.unique(compact(labels).numpy())
        self.summed.append(atoms[atoms >= 0])

    def tie(self, left: Tensor, right: Tensor, step: Step) -> None:
        """Unites labels of equal shape position by position. An atom that meets an element without one is frozen."""
        pair = np.stack([left.reshape(-1).numpy(), right.reshape(-1).numpy()])
        pair = pair[:, pair[0] != pair[1]]
        both = (pair >= 0).all(0)
        if both.any():
            self.pairs.append((pair[0, both], pair[1, both]))
        fixed = pair[:, (pair == NONE).any(0)].max(0, initial=NONE)
        if (fixed >= 0).any():
            self.freeze(torch.from_numpy(fixed), step, "coupled with values that always stay (input, constant)")

    def channels(self, labels: Tensor, dim: int, step: Step) -> Tensor:
        """(size of dim,) one label per position along `dim`; labels that share a position are united."""
        dim %= labels.ndim
        rows = compact(compress(labels)).movedim(dim, 0)
        rows = rows.reshape(rows.shape[0], -1)
        first = rows[:, 0]
        for column in torch.unique(rows[:, 1:], dim=1).T if rows.shape[1] > 1 else ():
            self.tie(first, column, step)
        return first.expand(labels.shape[dim]).contiguous()

    def bind(self, tensor: str, dim: int, role: Role, atoms: Tensor, step: Step) -> Tensor:
        """Says which atom owns each position of a tensor's dimension; returns the labels to go on with.

        A dimension bound before (shared modules, tied weights) unites the old atoms with the new.
        """
        known = self.bindings.get((tensor, dim))
        if known is None:
            self.bindings[tensor, dim] = Binding(tensor, dim, role, atoms.numpy().copy())
            return atoms
        before = torch.from_numpy(known.atoms)
        self.tie(before, atoms, step)
        if {role, known.role} >= {"filter", "input"} or "both" in (role, known.role):
            known.role = "both"
        elif role == "filter":
            known.role = "filter"
        return before

    def components(self) -> Atoms:
        """(atoms,) the smallest atom united with each."""
        if not self.pairs:
            return np.arange(self.atoms)
        left = np.concatenate([pair[0] for pair in self.pairs])
        right = np.concatenate([pair[1] for pair in self.pairs])
        links = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(self.atoms, self.atoms))
        count, component = connected_components(links, directed=False)
        smallest = np.full(count, self.atoms, dtype=np.int64)
        np.minimum.at(smallest, component, np.arange(self.atoms))
        found: Atoms = smallest[component]
        return found

    def settle(self) -> None:
        """Resolves what could only be known once every union is: joint dimensions and parameters used as values."""
        roots, changed = self.components(), True
        while changed:
            changed = False
            for joint in self.joints:
                labels = compress(_rooted(joint.labels, roots))
                if len(varying(labels)) > 1:
                    before = len(self.pairs)
                    self.channels(labels, joint.shrinks, joint.step)
                    if len(self.pairs) > before:
                        roots, changed = self.components(), True
        for spread in self.spreads:
            labels = compress(_rooted(spread.labels, roots))
            moving = varying(labels)
            if len(moving) > 1:
                self.freeze(labels, spread.step, f"parameter {spread.tensor} mixes channels along several dimensions")
            for dim in moving:
                position = dim - (labels.ndim - len(spread.shape))
                if len(moving) == 1 and position >= 0 and spread.shape[position] > 1:
                    vector = compact(labels).reshape(-1)
                    self.bind(spread.tensor, position, "vector", vector, spread.step)


def _rooted(labels: Tensor, roots: Atoms) -> Tensor:
    small = compact(labels)
    values = torch.from_numpy(np.append(roots, [0, 0]))[small.clamp(min=-1)]
    return torch.where(small >= 0, values, small).expand(labels.shape)
