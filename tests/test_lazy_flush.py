"""The first flush of a process, in a running event loop: a thread imports the HTTP client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import clean_environment
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

TOKEN = "sk-first"
# Prints the heavy modules that the event loop's own thread has imported.
PROGRAM = """
import asyncio, sys, threading
import cirron_spool

imported = []

def note(event, args):
    if event == "import" and threading.current_thread() is threading.main_thread():
        imported.append(args[0])

async def main():
    sys.addaudithook(note)
    {call}
    print(sorted({{"aiohttp", "ssl", "anyio._backends._asyncio", "cirron_spool.flush"}} & set(imported)))

options = {{"directory": sys.argv[1], "api_url": sys.argv[2], "token": sys.argv[3]}}
asyncio.run(main())
"""
CALLS = {
    "attribute": "print((await cirron_spool.flush_spool(**options)).uploaded)",
    "name": "from cirron_spool import flush_spool; print((await flush_spool(**options)).uploaded)",
    "task": "print((await asyncio.create_task(cirron_spool.flush_spool(**options))).uploaded)",
    "twice": (
        "await cirron_spool.flush_spool(options['directory'] + '/none'); "
        "print((await cirron_spool.flush_spool(**options)).uploaded)"
    ),
    "client": (
        "client = cirron_spool.Client(api_url=options.pop('api_url'), token=options.pop('token')); "
        "await client.__aenter__(); "
        "print((await cirron_spool.flush_spool(**options, client=client)).uploaded); "
        "await client.__aexit__(None, None, None)"
    ),
}


def run(call: str, spool: Path, url: str, token: str = TOKEN) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=call), str(spool), url, token],
        env=clean_environment(spool.parent),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_loop_imports_nothing_heavy(tmp_path: Path, call: str) -> None:
    spool = tmp_path / "spool"
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server:
        assert run(call, spool, server.url) == (0, "2\n[]\n", "")
    assert snapshot(spool) == []


def test_errors_are_the_flushs_own(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    sdk_batches(spool, 1, spans=TINY)
    call = (
        "try: await cirron_spool.flush_spool(**options)\n"
        "    except cirron_spool.ConfigError as error: print(type(error).__name__)"
    )
    assert run(call, spool, "http://127.0.0.1:9", "sk a") == (0, "ConfigError\n[]\n", "")


def test_outside_of_a_loop_it_is_the_function_itself() -> None:
    program = "import cirron_spool; print(cirron_spool.flush_spool.__module__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "cirron_spool.flush\n"
