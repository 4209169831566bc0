"""The platform as one or several flushes use it: connections, trust, token, and its last word about waiting."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cirron_spool.auth.token_manager import TokenManager
from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import NotAuthenticatedError
from cirron_spool.http.attempts import Throttle
from cirron_spool.http.route import Route, find_route
from cirron_spool.http.transport import Transport
from cirron_spool.pipeline.ingest import Ingest
from cirron_spool.settings.load import Settings, load_settings

if TYPE_CHECKING:
    import aiohttp


class Client:
    """One connection pool, one token and one throttle for the flushes that share it.

    ``async with Client(token=…) as client: await flush_spool(directory, client=client)``. The options are those of
    :func:`~cirron_spool.flush_spool` about the platform. A flush without a client makes one of its own. Not to be
    shared between event loops, threads or processes.

    Entering reads the settings. Raises ConfigError for settings that cannot be used, NotAuthenticatedError without
    a token.
    """

    def __init__(
        self,
        *,
        api_url: str | None = None,
        token: str | None = None,
        config_path: str | os.PathLike[str] | None = None,
        timeout_ms: int | None = None,
        retries: int | None = None,
        allow_http: bool | None = None,
        origins: Mapping[str, str] | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._load = partial(
            load_settings,
            os.environ,
            config_path=config_path,
            api_url=api_url,
            token=token,
            timeout_ms=timeout_ms,
            retries=retries,
            allow_http=allow_http,
            origins=origins,
        )
        self._session = session
        self._platform: Platform | None = None

    async def __aenter__(self) -> Self:
        settings, route = await in_thread(self._prepare)
        self._platform = await Platform(settings, self._session, route).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        platform, self._platform = self._platform, None
        if platform is not None:
            await platform.__aexit__(kind, error, trace)

    @property
    def platform(self) -> Platform:
        """The open platform, for a flush. Raises RuntimeError outside of ``async with``."""
        if self._platform is None:
            raise RuntimeError("The client is not open. Use it within: async with Client() as client.")
        return self._platform

    def _prepare(self) -> tuple[Settings, Route | None]:
        settings = self._load()
        return settings, find_route(settings.api_url) if self._session is None else None


class Platform:
    """The open connections to one platform, with the settings they follow. A context manager.

    Raises NotAuthenticatedError when ``settings`` have no credentials. ``session`` is used in place of an own session,
    and stays open. ``route`` is the known route to the platform.
    """

    def __init__(
        self, settings: Settings, session: aiohttp.ClientSession | None, route: Route | None
    ) -> None:
        if settings.credentials is None:
            raise NotAuthenticatedError(hint=settings.missing_hint)
        self.settings = settings
        self._transport = Transport(timeout_ms=settings.timeout_ms, session=session, route=route)
        self.tokens = TokenManager(settings, settings.credentials, self._transport)
        self.ingest = Ingest(self._transport, settings.ingest_origin, settings.ingest_path)
        self.throttle = Throttle()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)
