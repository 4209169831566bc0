"""What every test has: an environment without this user's credentials, spool and proxies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support import ledger
from support.monitor import DeleteWatch, watch_deletes

# A shell starts its background jobs with SIGINT ignored, nohup with SIGHUP, and a command inherits that. The tests
# send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No example has a time limit: these tests run on busy machines. In CI the examples are the same at every
# run, so that a change is judged by what it changed; anywhere else they are new ones.
settings.register_profile("cirron-spool", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.register_profile(
    "quick", settings.get_profile("cirron-spool"), max_examples=20
)  # for bin/test --quick
settings.load_profile("cirron-spool")


@pytest.fixture(autouse=True, scope="session")
def isolated_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the tests, and the commands that they start, an empty home and none of our variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("CIRRON_") or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio: aiohttp knows nothing else."""
    return "asyncio"


@pytest.fixture(autouse=True)
def deletes() -> Iterator[DeleteWatch]:
    """In every test: the package deletes no batch without its own acknowledgement. See ``support.monitor``."""
    ledger.forget()
    with watch_deletes(package_only=True) as watch:
        yield watch


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Where a spool may be made."""
    return tmp_path / "spool"


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds in place of seconds between attempts: what they are, the events tell."""
    monkeypatch.setattr("cirron_spool.protocol.retry.FIRST_DELAY_S", 0.001)
    monkeypatch.setattr("cirron_spool.protocol.retry.SHORTEST_PAUSE_S", 0.001)
