"""The scope tree of a session, folded to a readable size.

Siblings of one name are folded into one node if they are many, shorter than the limit, or below the chosen depth. The
node has count, total, median and 95th percentile. Its children are the folds of their children. The largest spans are
unfolded first, up to the limit of nodes.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from typing import NamedTuple

from cirron_spool.traces.forest import NO_INDEX, OPEN, Forest
from cirron_spool.traces.statistics import Statistics, summarize

# The SDK nests at most 64 spans in a thread. JSON readers take some hundreds of levels.
DEEPEST = 100
MOST_NODES = 5000
MOST_SIBLINGS = 20


class Folding(NamedTuple):
    """The limits of a tree: levels below the session, shortest duration in ns, siblings, and nodes in total.

    ``name`` is a span name or a shell pattern. It limits the tree to these spans, their ancestors and descendants.
    """

    depth: int = DEEPEST
    min_wall_ns: int = 0
    name: str | None = None
    siblings: int = MOST_SIBLINGS
    nodes: int = MOST_NODES


@dataclass(slots=True)
class Node:
    """A span, or a fold of siblings with one name. ``spans`` are their numbers in the forest.

    ``fold`` is the reason of a fold (siblings, minWall, depth), or empty. ``times`` are those of the closed spans.
    ``open`` counts the open spans. ``hidden`` counts the descendants without a node.
    """

    number: int
    name: str
    level: int
    fold: str
    spans: array[int]
    times: Statistics
    open: int
    hidden: int = 0
    children: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Tree:
    """The nodes of a session. ``node_of`` has the node number of each span, or -1 without a node.

    ``left_out`` counts the spans whose name excludes them.
    """

    root: Node
    nodes: list[Node]
    node_of: array[int]
    left_out: int

    @property
    def shown(self) -> int:
        """The number of spans with their own line."""
        return sum(not node.fold for node in self.nodes)

    @property
    def folded(self) -> int:
        """The number of spans in folds."""
        return sum(len(node.spans) for node in self.nodes if node.fold)

    @property
    def hidden(self) -> int:
        """The number of spans that are neither shown nor in a fold."""
        return sum(node.hidden for node in self.nodes)


def fold(forest: Forest, folding: Folding = Folding()) -> Tree:  # noqa: B008  # it cannot be changed
    """The tree of a session."""
    return _Folder(forest, folding).tree()


class _Folder:
    def __init__(self, forest: Forest, folding: Folding) -> None:
        self._forest = forest
        self._folding = folding
        self._kept = _named(forest, folding.name) if folding.name is not None else None
        self._nodes: list[Node] = []
        self._node_of = array("i", [-1]) * len(forest)

    def tree(self) -> Tree:
        root = self._make([0], 0, "")
        waiting = [(0, 0, root)]
        order = count(1)
        while waiting:
            *_, node = heapq.heappop(waiting)
            for child in self._unfold(node):
                heapq.heappush(waiting, (-child.times.total, next(order), child))
        left_out = 0 if self._kept is None else self._kept.count(0)
        return Tree(root, self._nodes, self._node_of, left_out)

    def _unfold(self, node: Node) -> list[Node]:
        """Create the nodes below a node. Returns those that can also be unfolded."""
        groups = self._groups(node)
        level = node.level + 1
        parts: list[tuple[list[int], str]] = []
        for spans in groups:
            short: list[int] = []
            rest: list[int] = []
            for each in spans:
                is_short = 0 <= self._forest.duration(each) < self._folding.min_wall_ns
                (short if is_short else rest).append(each)
            if short:
                parts.append((short, "minWall"))
            if level > self._folding.depth:
                parts += [(rest, "depth")] if rest else []
            elif len(rest) > (1 if node.fold else self._folding.siblings):
                parts.append((rest, "siblings"))
            else:
                parts += [([each], "") for each in rest]
        if len(self._nodes) + len(parts) > self._folding.nodes:
            node.hidden = sum(self._below(each) for each in node.spans)
            return []
        parts.sort(key=lambda part: self._forest.start[part[0][0]])
        below: list[Node] = []
        for spans, why in parts:
            child = self._make(spans, level, why)
            node.children.append(child)
            if why in ("minWall", "depth"):
                child.hidden = sum(self._below(each) for each in spans)
            else:
                below.append(child)
        return below

    def _groups(self, node: Node) -> Iterable[list[int]]:
        """The spans below a node by their names, each group by start."""
        groups: dict[int, list[int]] = {}
        for each in node.spans:
            for child in self._forest.children(each):
                if self._kept is None or self._kept[child]:
                    groups.setdefault(self._forest.name[child], []).append(child)
        return groups.values()

    def _below(self, number: int) -> int:
        """The number of descendants of a span, without those whose name excludes them."""
        if self._kept is None:
            return self._forest.below[number]
        total, pending = 0, [number]
        while pending:
            children = [child for child in self._forest.children(pending.pop()) if self._kept[child]]
            total += len(children)
            pending += children
        return total

    def _make(self, spans: list[int], level: int, why: str) -> Node:
        durations = [self._forest.duration(each) for each in spans]
        closed = [duration for duration in durations if duration != OPEN]
        number = len(self._nodes)
        name = self._forest.names[self._forest.name[spans[0]]]
        node = Node(number, name, level, why, array("i", spans), summarize(closed), len(spans) - len(closed))
        self._nodes.append(node)
        for each in spans:
            self._node_of[each] = number
        return node


def _named(forest: Forest, pattern: str) -> bytearray:
    """1 for each span with a matching name, for its ancestors and descendants, and for the session."""
    fits = [name == pattern or fnmatchcase(name, pattern) for name in forest.names]
    kept = bytearray(len(forest))
    kept[0] = 1
    pending = [number for number in range(len(forest)) if fits[forest.name[number]]]
    for number in pending:
        above = number
        while not kept[above]:
            kept[above] = 1
            above = forest.parent[above]
    below = bytearray(len(forest))
    while pending:
        number = pending.pop()
        if not below[number]:
            below[number] = kept[number] = 1
            pending.extend(forest.children(number))
    return kept


def label(forest: Forest, node: Node) -> str:
    """``epoch[3]`` for a span with an index, else the name."""
    index = forest.index[node.spans[0]]
    return node.name if node.fold or index == NO_INDEX else f"{node.name}[{index}]"
