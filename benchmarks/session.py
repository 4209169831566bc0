"""One invocation: its options, its workspace, its output, and the figures so far."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from benchmarks import compare, spools
from benchmarks.compare import Cell, Contender
from benchmarks.errors import BenchmarkError
from benchmarks.sink_client import Network
from benchmarks.spools import Shape, Spool, Workspace


class Session:
    """The state of one invocation.

    ``figures`` maps the names of figures to values; :mod:`benchmarks.goals` has limits for some. ``cells`` and
    ``details`` are for ``--json``. ``failed`` is set by a contender without a figure.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.figures: dict[str, float] = {}
        self.cells: list[dict[str, Any]] = []
        self.details: dict[str, Any] = {}
        self.failed = False
        self._stack = ExitStack()
        self._workspaces: dict[str, Workspace] = {}
        # With JSON on stdout, the text goes to stderr.
        self._out = sys.stderr if options.json == "-" else sys.stdout
        self._shows_progress = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.say("")
        self._stack.close()

    @property
    def workspace(self) -> Workspace:
        """The workspace on ``--where``, removed at the end of the session."""
        where = self.options.where
        if where not in self._workspaces:
            self._workspaces[where] = self._stack.enter_context(spools.temporary_workspace(where))
        return self._workspaces[where]

    def say(self, text: str) -> None:
        """Replace the progress line of a terminal."""
        if self._shows_progress:
            sys.stderr.write(f"\r\x1b[K{text[:150]}")
            sys.stderr.flush()

    def show(self, text: str) -> None:
        """Print a result."""
        self.say("")
        print(text, file=self._out, flush=True)

    def spools(self) -> Iterator[Spool]:
        """The spools of ``--spool``, each generated or copied at its turn."""
        names: list[str] = self.options.spool
        batches: list[int | None] = self.options.batches or [None]
        if len(batches) == 1:
            batches = batches * len(names)
        if len(batches) != len(names):
            raise BenchmarkError("--batches needs one number, or one for each of --spool.")
        for name, count in zip(names, batches, strict=True):
            if name in spools.SHAPES:
                shape = spools.SHAPES[name]
                yield self.generate(replace(shape, batches=count or shape.batches))
            elif Path(name).is_dir():
                yield self.workspace.adopt(Path(name))
            else:
                raise BenchmarkError(
                    f"No such spool: {name} (neither {', '.join(spools.SHAPES)} nor a folder)"
                )

    def generate(self, shape: Shape) -> Spool:
        """The spool of ``shape``."""
        self.say(f"generating {shape.batches:,} {shape.name} batches")
        return self.workspace.generate(shape)

    def networks(self) -> list[Network]:
        """The networks of ``--latency-ms`` and ``--bandwidth``."""
        return [Network(latency, self.options.bandwidth) for latency in self.options.latency_ms]

    def compare(
        self,
        spool: Spool,
        contenders: list[Contender],
        network: Network | None = None,
        *,
        proof: bool = True,
    ) -> Cell:
        """Run the contenders and keep the cell."""
        cell = compare.compare(
            self.workspace,
            spool,
            network or Network(),
            contenders,
            self.options.repeat,
            self.say,
            proof=proof,
        )
        self.cells.append(cell.as_json())
        self.failed |= any(each.error for each in cell.results)
        return cell

    def record(self, name: str, value: float | None) -> None:
        """Record a figure on tmpfs without a bandwidth limit: the goals are set for these."""
        limited = getattr(self.options, "bandwidth", None) is not None
        if value is not None and not limited and self.workspace.file_system == "tmpfs":
            self.figures[name] = value
