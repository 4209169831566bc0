"""One spool as a task: a synchronous function and picklable values, for Dask, Ray, joblib or a Slurm array."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cirron_spool.cluster.secret import Secret
from cirron_spool.errors import EXIT_ATTENTION, CirronSpoolError, ConfigError
from cirron_spool.events import FlushEvent, FlushResult
from cirron_spool.sync import run_in_new_loop
from cirron_spool.text import printable

if TYPE_CHECKING:
    from cirron_spool.http.attempts import Throttle
    from cirron_spool.pipeline.deadline import StopSignal

# Options that belong to one process.
_NOT_PICKLABLE = ("session", "client", "on_event", "stop", "watch")


@dataclass(frozen=True, slots=True)
class SpoolTask:
    """A spool to flush. ``options`` are those of :func:`~cirron_spool.flush_spool` that can be pickled.

    ``token`` is the token to use; without one, the machine that runs the task uses its own configuration. Raises
    ConfigError for an option that belongs to one process, and for a bare token.
    """

    directory: str
    token: Secret | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option in _NOT_PICKLABLE:
            if self.options.get(option) is not None:
                raise ConfigError(f"{option} belongs to one process. A task cannot have it.")
        if self.options.get("token") is not None:
            raise ConfigError("The token of a task is a Secret: SpoolTask(directory, token=Secret(…)).")


@dataclass(frozen=True, slots=True)
class SpoolReport:
    """The result of one task.

    ``where`` is the host and the process that flushed, or the address of the worker. ``error`` is the error that ended
    the flush, or None; its counts are in ``result``.
    """

    directory: str
    result: FlushResult
    error: CirronSpoolError | None = None
    where: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code of the command for this spool; 1 where it is missing."""
        if self.is_missing:
            return EXIT_ATTENTION
        return self.result.exit_code if self.error is None else self.error.exit_code

    @property
    def is_missing(self) -> bool:
        """Whether the machine of the task has no such directory."""
        return self.error is None and not self.result.exists

    @property
    def message(self) -> str:
        """The reason why batches are left, in one line; empty if none are left."""
        if self.error is not None:
            return str(self.error)
        if self.is_missing:
            return f"{printable(self.directory)} does not exist on {self.where}."
        if self.result.failures:
            return self.result.failures[-1].message
        return self.result.warnings[-1] if self.exit_code and self.result.warnings else ""


class Control(Protocol):
    """The engine's control of a running task."""

    @property
    def stop(self) -> StopSignal:
        """Ends the flush gracefully."""

    def throttle(self) -> Throttle:
        """A throttle that other tasks share. Called in the event loop of the flush."""

    def show(self, event: FlushEvent) -> None:
        """Take an event of the flush. Called in its event loop."""


def flush_one(task: SpoolTask, control: Control | None = None) -> SpoolReport:
    """Flush the spool of ``task`` in a new event loop, and return a report.

    The report has the error of the flush. Other exceptions are raised. An engine gives ``control``.
    """
    where = f"{socket.gethostname()}:{os.getpid()}"
    flush: Callable[..., Any] = partial(_flush, task) if control is None else partial(_steered, task, control)
    try:
        result = run_in_new_loop(flush)
    except CirronSpoolError as error:
        so_far = error.result or FlushResult(Path(task.directory), exit_code=error.exit_code)
        return SpoolReport(task.directory, so_far, error, where)
    return SpoolReport(task.directory, result, None, where)


async def _flush(task: SpoolTask) -> FlushResult:
    from cirron_spool.flush import flush_spool

    return await flush_spool(task.directory, token=_token_of(task), **task.options)


async def _steered(task: SpoolTask, control: Control) -> FlushResult:
    """As :func:`_flush`, with the engine's stop signal, throttle and events."""
    from cirron_spool.flush import flush_spool
    from cirron_spool.pipeline.client import Client

    options = dict(task.options)
    of_client = {name: options.pop(name) for name in signature(Client).parameters if name in options}
    async with Client(token=_token_of(task), **of_client) as client:
        client.platform.throttle = control.throttle()
        return await flush_spool(
            task.directory, client=client, stop=control.stop, on_event=control.show, **options
        )


def _token_of(task: SpoolTask) -> str | None:
    return None if task.token is None else task.token.reveal()
