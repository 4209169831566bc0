"""The real commands in forked processes: for tests of their texts, their files and their requests.

A Python that starts takes 0.3 s to import what a flush needs, and hundreds of tests run a command. One warm process
a worker has imported it and forks a process for each command. Tests of the process itself (its signals, its streams,
its start) and of the main job use ``support.cli``. Run as a script this file is the warm process.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from socket import recv_fds, send_fds
from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cli import CliResult, Prog

# What a command reads when it runs. Python, OpenSSL, aiohttp or the loader may read any other variable at their start:
# another value of one needs a process of its own. FS_* is read by filesystem.c.
_READ_LATE = ("HOME", "PATH", "COLUMNS", "LINES")
_READ_LATE_PREFIXES = ("CIRRON_", "FS_")


def run_cli(
    *args: str | os.PathLike[str],
    cwd: Path | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str | bytes | None = None,  # noqa: A002 - the name that subprocess.run has for it
    closed_stdout: bool = False,
    prog: Prog = "cirron-spool",
) -> CliResult:
    """Run ``prog args`` to its end in a pipe, as ``support.cli.run_cli`` does; without `input`, on an empty one.

    A Python starts where no fork does: see `_server_for`.
    """
    from . import cli

    with ExitStack() as keep:
        server = None
        if not closed_stdout and _in_use.acquire(blocking=False):
            keep.callback(_in_use.release)
            server = _server_for(env or {})
        if server is None:
            more: dict[str, Any] = {"input": input, "closed_stdout": closed_stdout, "prog": prog}
            return cli.run_cli(*args, cwd=cwd, home=home, env=env, **more)
        if home is None or cwd is None:
            spare = Path(keep.enter_context(tempfile.TemporaryDirectory()))
            home, cwd = home or spare, cwd or spare
        order = {
            "prog": prog,
            "args": [os.fspath(arg) for arg in args],
            "cwd": str(cwd),
            "env": cli.clean_environment(home, env),
        }
        data = input.encode() if isinstance(input, str) else input or b""
        return server.run(order, data, cli.SAFETY_NET)


_in_use = threading.Lock()  # a command that another thread starts meanwhile gets a Python of its own
_servers: dict[tuple[int, frozenset[tuple[str, str]]], _ForkServer] = {}
_asked_for: set[frozenset[tuple[str, str]]] = set()


def _server_for(env: Mapping[str, str]) -> _ForkServer | None:
    """The process that was started with what `env` has of the variables that are read at a start.

    There is none for variables that are asked for the first time, and where no process forks.
    """
    early = {
        name: value
        for name, value in env.items()
        if not (name in _READ_LATE or name.startswith(_READ_LATE_PREFIXES) or name.lower().endswith("_proxy"))
    }
    if not hasattr(os, "fork"):
        return None
    variables = frozenset(early.items())
    if early and variables not in _asked_for:
        _asked_for.add(variables)
        return None
    key = (os.getpid(), variables)  # a fork of this process has no part in its connections
    if key not in _servers:
        _servers[key] = _ForkServer(early)
        atexit.register(_servers[key].close)
    return _servers[key]


class _ForkServer:
    """The owner's handle of the warm process, which ends when its owner does."""

    def __init__(self, env: Mapping[str, str]) -> None:
        from .cli import clean_environment

        self._home = tempfile.TemporaryDirectory()
        self._channel, theirs = socket.socketpair()
        with theirs:
            # -P: this folder has modules with names of the standard library's.
            argv = [sys.executable, "-P", __file__, str(theirs.fileno())]
            environment = clean_environment(Path(self._home.name), env)
            self._process = subprocess.Popen(
                argv,
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def close(self) -> None:
        """End the process: it has nothing to do without its channel."""
        self._channel.close()
        self._process.wait()
        self._home.cleanup()

    def run(self, order: dict[str, Any], data: bytes, safety_net_s: float) -> CliResult:
        """Have the command of `order` forked, with `data` as its standard input; return how it ended."""
        from .cli import CliResult

        argv = [order["prog"], *order["args"]]
        (their_in, stdin), (stdout, their_out), (stderr, their_err) = (os.pipe() for _ in range(3))
        with ThreadPoolExecutor(3) as pool:
            try:
                send_fds(
                    self._channel, [json.dumps(order).encode() + b"\n"], [their_in, their_out, their_err]
                )
            finally:
                for number in (their_in, their_out, their_err):
                    os.close(number)
            pool.submit(_write_all, stdin, data)
            out, err = pool.submit(_read_all, stdout), pool.submit(_read_all, stderr)
            pid, hung = self._receive(None), False
            try:
                code = self._receive(safety_net_s)
            except TimeoutError:
                hung = True
                os.kill(pid, signal.SIGKILL)
                code = self._receive(None)
            # A process that the command left running may hold its output open.
            done = CliResult(argv, code, out.result(safety_net_s), err.result(safety_net_s))
        said = f"stdout {done.out[-2000:]!r}, stderr {done.err[-2000:]!r}"
        assert not hung, f"{argv} still runs after {safety_net_s:g} s; {said}"
        return done

    def _receive(self, timeout_s: float | None) -> int:
        self._channel.settimeout(timeout_s)
        data = self._channel.recv(_NUMBER.size)
        self._channel.settimeout(None)
        assert data, f"the fork server ended with code {self._process.wait()}"
        return int(_NUMBER.unpack(data)[0])


def _read_all(number: int) -> bytes:
    with open(number, "rb") as stream:
        return stream.read()


def _write_all(number: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(number, "wb") as stream:
        stream.write(data)


# -- the warm process ----------------------------------------------------------------------------------------------

_NUMBER = Struct("=i")  # a process id, then that process's exit code


def _next_order(channel: socket.socket) -> dict[str, Any] | None:
    """Fork at each order. Returns the order in the forked process, and None when the owner has gone."""
    while True:
        line, numbers, _, _ = recv_fds(channel, 65536, 3)
        if not line:
            return None
        while not line.endswith(b"\n"):
            line += channel.recv(65536)
        pid = os.fork()
        if not pid:
            channel.close()
            for standard, number in enumerate(numbers):
                os.dup2(number, standard)
        for number in numbers:
            os.close(number)
        if not pid:
            return dict(json.loads(line))
        channel.sendall(_NUMBER.pack(pid))
        _, status = os.waitpid(pid, 0)
        channel.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _become(order: dict[str, Any]) -> int:
    """Run the command of `order` as a process that has just started; return its exit code."""
    import cirron_spool.cli.main as programs

    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.argv = [order["prog"], *order["args"]]
    return programs.cirron() if order["prog"] == "cirron" else programs.cirron_spool()


_STARTING_THREADS = ("cirron_spool.cluster.", "cirron_spool.integrations.")


def _import_all() -> None:
    import cirron_spool

    for module in pkgutil.walk_packages(cirron_spool.__path__, "cirron_spool."):
        # The libraries of these folders may start threads, which no fork survives.
        if module.name.endswith("__main__") or module.name.startswith(_STARTING_THREADS):
            continue
        try:
            import_module(module.name)
        except ModuleNotFoundError as error:  # of an extra that is not installed
            if (error.name or "").startswith("cirron_spool"):
                raise


class _Leave:
    """Ends a forked process after its exit functions, without the deallocation of all that the warm process imported.

    That deallocation takes 35 ms, twice the time of a short command. The ends of processes are tests of `support.cli`.
    """

    code: int | None = None  # without one Python ends by itself: a traceback, or the end of the warm process

    def __call__(self) -> None:
        if self.code is None:
            return
        logging.shutdown()  # an exit function of an earlier import
        gc.collect()  # what is left says so on stderr
        with suppress(OSError, ValueError, AttributeError):  # Python's own end reports these
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)


def _main() -> int:
    leave = _Leave()
    atexit.register(leave)  # the first, so that it runs after all that the imports and the command register
    channel = socket.socket(fileno=int(sys.argv[1]))
    _import_all()
    gc.freeze()  # a fork shares these objects, and looks for garbage among its own
    order = _next_order(channel)
    if order is None:
        return 0
    try:
        leave.code = _become(order)
    except SystemExit as end:
        leave.code = end.code if isinstance(end.code, int) else None
        raise
    return leave.code


if __name__ == "__main__":
    sys.exit(_main())
