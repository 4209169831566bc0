"""One invocation: where it works, what it says while it works, and what it has to show at its end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from benchmarks import report, spools
from benchmarks.errors import BenchmarkError
from benchmarks.goals import Goal
from benchmarks.measure import Cell
from benchmarks.spools import Shape, Spool, Workspace


@dataclass
class Findings:
    """What a command found: figures for ``--json``, goals, and the cells."""

    body: dict[str, Any] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    failed: bool = False

    def add(self, cells: list[Cell]) -> None:
        """Take cells in, with what they say of themselves: an error of one contender fails the command."""
        self.cells += cells
        self.body["cells"] = [report.cell_json(cell) for cell in self.cells]
        self.failed |= any(each.error for cell in cells for each in cell.results)


class Session:
    """The options, the workspaces (made at first use, removed at the end) and the streams."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._stack = ExitStack()
        self._workspaces: dict[str, Workspace] = {}
        # With the JSON on stdout, everything that is for a person moves to stderr.
        self._out = sys.stderr if options.json == "-" else sys.stdout
        self._shows_progress = sys.stderr.isatty() and not options.quiet
        self._line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.say("")
        self._stack.close()

    def workspace(self, where: str) -> Workspace:
        """The workspace on ``where``."""
        if where not in self._workspaces:
            self._workspaces[where] = self._stack.enter_context(spools.workspace(where))
        return self._workspaces[where]

    def say(self, text: str) -> None:
        """What is being done, on a line that the next one replaces; only to a terminal."""
        if self._shows_progress and text != self._line:
            sys.stderr.write(f"\r\x1b[K{text[:150]}")
            sys.stderr.flush()
            self._line = text

    def show(self, text: str) -> None:
        """A result, on a line or lines of its own."""
        if text:
            self.say("")
            print(text, file=self._out, flush=True)

    def spools(self, workspace: Workspace) -> Iterator[Spool]:
        """The spools that ``--spool`` asks for, each made when it is its turn."""
        names: list[str] = self.options.spool
        batches: list[int | None] = self.options.batches or [None]
        if len(batches) == 1:
            batches = batches * len(names)
        if len(batches) != len(names):
            raise BenchmarkError("--batches needs one number, or one for each of --spool")
        for name, count in zip(names, batches, strict=True):
            yield self._spool(workspace, name, count)

    def generated(self, workspace: Workspace, shape: Shape) -> Spool:
        """A spool of ``shape``, generated or generated before."""
        size = f"{shape.batches:,} x {shape.mean_bytes / 1e3:,.1f} KB"
        self.say(f"generating {shape.name}: {size}")
        return workspace.generate(shape)

    def _spool(self, workspace: Workspace, name: str, batches: int | None) -> Spool:
        if name in spools.SHAPES:
            return self.generated(workspace, self._sized(spools.SHAPES[name], batches))
        directory = Path(name)
        if not directory.is_dir():
            raise BenchmarkError(f"No such spool: {name} (neither {', '.join(spools.SHAPES)} nor a folder)")
        self.say("copying the spool")
        return workspace.adopt(directory.absolute())

    def _sized(self, shape: Shape, batches: int | None) -> Shape:
        """``shape`` with ``--min-kb`` and ``--max-kb`` applied; one alone moves the other when it has to."""
        low, high = (
            None if kilobytes is None else int(kilobytes * spools.KB)
            for kilobytes in (self.options.min_kb, self.options.max_kb)
        )
        if low is not None and high is not None and low > high:
            raise BenchmarkError("--min-kb is more than --max-kb")
        if low is None:
            low = shape.low_bytes if high is None else min(shape.low_bytes, high)
        if high is None:
            high = max(shape.high_bytes, low)
        return replace(shape, batches=batches or shape.batches, low_bytes=low, high_bytes=high)


Command = Callable[[Session], Findings]
