"""Several flushes share one ``TokenManager``: one request for all callers that wait for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cirron_spool import AuthInvalidError, Client, TokenRenewalError, flush_spool
from cirron_spool.auth.single_flight import SingleFlight
from cirron_spool.auth.token_manager import TokenManager
from cirron_spool.http.transport import Transport
from cirron_spool.settings.load import load_settings
from support.answers import Answer, Gate, json_answer
from support.background import SAFETY_NET
from support.scripted import Request, ScriptedServer
from support.spools import write_batch

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

STATUS = ("GET", "/api/cli/status")
REFRESH = ("POST", "/api/cli/auth/refresh")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A login whose token does not expire soon."""
    return write_login(tmp_path / "config.json", minutes=60)


def write_login(config: Path, *, minutes: float) -> Path:
    expires = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
    auth = {"accessToken": "access-0", "refreshToken": "refresh-0", "expiresAt": expires}
    config.write_text(json.dumps({"auth": auth}))
    config.chmod(0o600)
    return config


def put(path: Path, text: bytes) -> None:
    path.write_bytes(text)


def content(path: Path) -> bytes:
    return path.read_bytes()


@asynccontextmanager
async def manager_of(
    server: ScriptedServer, config: Path | None, *, token: str | None = None, retries: int = 3
) -> AsyncIterator[TokenManager]:
    settings = load_settings({}, config_path=config, api_url=server.url, token=token, retries=retries)
    assert settings.credentials is not None
    async with Transport(timeout_ms=int(SAFETY_NET * 1000)) as transport:
        yield TokenManager(settings, settings.credentials, transport)


# -- the requests ------------------------------------------------------------------------------------------------


async def test_callers_that_wait_share_the_outcome_and_later_ones_do_not() -> None:
    flight: SingleFlight[int] = SingleFlight()
    started, release = asyncio.Event(), asyncio.Event()
    requests: list[str] = []

    async def request() -> int:
        requests.append("request")
        started.set()
        await release.wait()
        return len(requests)

    callers = [asyncio.ensure_future(flight.run("a", request)) for _ in range(3)]
    other = asyncio.ensure_future(flight.run("b", request))
    await started.wait()
    release.set()
    assert await asyncio.gather(*callers) == [1, 1, 1]
    assert await other == 2  # another subject has another outcome
    assert await flight.run("a", request) == 3


@pytest.mark.parametrize("how", ["cancelled", "raised"])
async def test_the_next_caller_repeats_a_request_without_an_outcome(how: str) -> None:
    flight: SingleFlight[str] = SingleFlight()
    started, release = asyncio.Event(), asyncio.Event()

    async def no_outcome() -> str:
        started.set()
        await release.wait()
        raise OSError

    async def outcome() -> str:
        return "outcome"

    first = asyncio.ensure_future(flight.run("a", no_outcome))
    await started.wait()
    rest = [asyncio.ensure_future(flight.run("a", outcome)) for _ in range(2)]
    await asyncio.sleep(0)
    if how == "cancelled":
        first.cancel()
    else:
        release.set()
    with pytest.raises(asyncio.CancelledError if how == "cancelled" else OSError):
        await first
    assert await asyncio.gather(*rest) == ["outcome", "outcome"]


# -- verification ------------------------------------------------------------------------------------------------


async def test_a_valid_token_is_verified_once(config: Path) -> None:
    with ScriptedServer() as server:
        async with manager_of(server, config) as tokens:
            await asyncio.gather(*(tokens.verify(pytest.fail) for _ in range(3)))
            await tokens.verify(pytest.fail)
    assert [request.path for request in server.requests] == [STATUS[1]]


async def test_a_verification_that_fails_warns_each_waiting_flush_and_is_repeated_by_the_next(
    config: Path,
) -> None:
    warnings: list[list[str]] = [[], [], []]
    with ScriptedServer() as server:
        server.on(*STATUS, Answer(500))
        async with manager_of(server, config) as tokens:
            await asyncio.gather(tokens.verify(warnings[0].append), tokens.verify(warnings[1].append))
            assert len(server.requests) == 1
            await tokens.verify(warnings[2].append)
            assert len(server.requests) == 2
    said = "Could not verify auth before flush: HTTP 500 Internal Server Error. Proceeding anyway."
    assert warnings == [[said], [said], []]


@pytest.mark.parametrize("answer", [Answer(401), Answer(403), json_answer({"valid": False})])
async def test_a_refused_token_is_refused_for_each_waiting_flush(answer: Answer) -> None:
    with ScriptedServer() as server:
        server.on(*STATUS, answer)
        async with manager_of(server, None, token="sk-secret-token") as tokens:
            outcomes = await asyncio.gather(
                *(tokens.verify(pytest.fail) for _ in range(3)), return_exceptions=True
            )
    assert len(server.requests) == 1
    for outcome in outcomes:
        assert isinstance(outcome, AuthInvalidError)
        assert "token argument" in outcome.hint


async def test_a_token_that_was_refused_or_renewed_is_verified_again(config: Path) -> None:
    with ScriptedServer() as server:
        async with manager_of(server, config) as tokens:
            await tokens.verify(pytest.fail)
            assert await tokens.renew("access-0", pytest.fail)
            await tokens.verify(pytest.fail)
    seen = [request.token for request in server.seen(STATUS[1])]
    assert seen == ["access-0", "access-1"]
    with ScriptedServer() as server:
        server.on(*REFRESH, default=Answer(400))
        async with manager_of(server, config) as tokens:
            await tokens.verify(pytest.fail)
            assert not await tokens.renew("access-1", pytest.fail)
            await tokens.verify(pytest.fail)
    assert len(server.seen(STATUS[1])) == 2


# -- renewal -----------------------------------------------------------------------------------------------------


async def test_flushes_that_begin_at_once_wait_for_one_renewal(config: Path) -> None:
    write_login(config, minutes=1)
    with ScriptedServer(check_auth=True) as server:
        async with manager_of(server, config) as tokens:

            async def begin() -> None:
                await tokens.renew_if_due(pytest.fail)
                await tokens.verify(pytest.fail)

            await asyncio.gather(*(begin() for _ in range(3)))
    assert [(request.path, request.token) for request in server.requests] == [
        (REFRESH[1], None),
        (STATUS[1], "access-1"),
    ]


async def test_a_renewal_that_fails_fails_for_each_waiting_flush_and_is_repeated_by_the_next(
    config: Path,
) -> None:
    with ScriptedServer(check_auth=True) as server:
        server.on(*REFRESH, *[Answer(503)] * 2)
        async with manager_of(server, config, retries=1) as tokens:
            warnings: list[str] = []
            outcomes = await asyncio.gather(
                *(tokens.renew("access-0", warnings.append) for _ in range(3)), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes] == [TokenRenewalError] * 3
            assert (len(server.requests), len(warnings)) == (2, 1)
            # The platform works again.
            assert await tokens.renew("access-0", pytest.fail)
    assert server.platform.rotations == 1


async def test_a_renewal_goes_on_though_the_flush_that_began_it_is_cancelled(config: Path) -> None:
    gate = Gate()
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    with ScriptedServer(check_auth=True) as server:

        def stalled(request: Request) -> Answer:
            loop.call_soon_threadsafe(asked.set)
            return Answer(503, stall_before=gate)

        server.on(*REFRESH, Answer(late=stalled))
        async with manager_of(server, config) as tokens:
            first = asyncio.ensure_future(tokens.renew("access-0", pytest.fail))
            await asked.wait()
            second = asyncio.ensure_future(tokens.renew("access-0", pytest.fail))
            await asyncio.sleep(0)
            first.cancel()
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert await second
    assert server.platform.rotations == 1


async def test_each_flush_of_a_client_says_that_the_token_is_not_saved(tmp_path: Path, config: Path) -> None:
    directories = [tmp_path / name for name in "ab"]
    for index, directory in enumerate(directories):
        write_batch(directory, 1, f"a{index}")

    def spoil(request: Request) -> Answer:
        put(config, b"{")
        return server.platform._refresh(request)

    with ScriptedServer(Answer(401), check_auth=True) as server:
        server.on(*REFRESH, Answer(late=spoil))
        async with Client(api_url=server.url, config_path=config) as client:
            results = [await flush_spool(directory, client=client) for directory in directories]
    for result in results:
        [warning] = result.warnings
        assert warning.startswith(f"The token was renewed but could not be saved in {config}: ")
        assert (result.uploaded, result.exit_code) == (1, 1)


async def test_the_replaced_token_in_the_file_is_not_used_again(config: Path) -> None:
    """The renewed token could not be saved: the file holds the used-up one when the renewed one is refused."""
    before = content(config)

    def spoil(request: Request) -> Answer:
        put(config, b"{")
        return server.platform._refresh(request)

    with ScriptedServer(check_auth=True) as server:
        server.on(*REFRESH, Answer(late=spoil))
        async with manager_of(server, config) as tokens:
            assert await tokens.renew("access-0", pytest.fail)
            assert tokens.unsaved
            put(config, before)
            assert await tokens.renew("access-1", pytest.fail)
            assert (tokens.token, tokens.unsaved) == ("access-2", "")
    assert server.platform.rotations == 2
    assert json.loads(content(config))["auth"]["accessToken"] == "access-2"
