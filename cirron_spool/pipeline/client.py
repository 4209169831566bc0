"""A client that several flushes share.

This module does not import the HTTP library, which would block the event loop. A thread imports it when the client is
entered.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import ConfigError

if TYPE_CHECKING:
    import aiohttp

    from cirron_spool.http.route import Route
    from cirron_spool.pipeline.platform import Platform
    from cirron_spool.settings.model import Settings


class Client:
    """A connection pool, a token, a throttle and a bandwidth limit that several flushes share.

    ``async with Client(token=…) as client: await flush_spool(directory, client=client)``. The options are the platform
    options of :func:`~cirron_spool.flush_spool`. A flush without a client makes its own. A client belongs to one event
    loop.

    ``bandwidth`` bounds all flushes together, in bytes a second. Raises ConfigError unless it is a whole number above
    0.

    Entering the client reads the settings. It raises ConfigError for unusable settings, and NotAuthenticatedError
    without a token.
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
        bandwidth: int | None = None,
    ) -> None:
        _check_bandwidth(bandwidth)
        self._options: dict[str, Any] = {
            "config_path": config_path,
            "api_url": api_url,
            "token": token,
            "timeout_ms": timeout_ms,
            "retries": retries,
            "allow_http": allow_http,
            "origins": origins,
        }
        self.session = session
        self.bandwidth = bandwidth
        self._platform: Platform | None = None
        self._is_entered = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise RuntimeError("The client is open already. Make another Client, or share this one.")
        self._is_entered = True
        self._loop = asyncio.get_running_loop()
        try:
            kind, settings, route = await in_thread(self._prepare)
            self._platform = await kind(settings, self.session, route, self.bandwidth).__aenter__()
        except BaseException:
            self._is_entered = False
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        platform, self._platform, self._is_entered = self._platform, None, False
        if platform is not None:
            await platform.__aexit__(kind, error, trace)

    @property
    def platform(self) -> Platform:
        """The open platform, for a flush. Raises RuntimeError outside ``async with`` and in another event loop."""
        if self._platform is None:
            raise RuntimeError("The client is not open. Use it within: async with Client() as client.")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("The client belongs to another event loop. Make a Client in this one.")
        return self._platform

    @property
    def given(self) -> list[str]:
        """The names of the options that are not None."""
        options = {**self._options, "session": self.session, "bandwidth": self.bandwidth}
        return [name for name, value in options.items() if value is not None]

    def load_settings(self) -> Settings:
        """The settings of the open platform, or of the options. Blocking. Raises ConfigError."""
        return self._platform.settings if self._platform is not None else self.read_settings()

    def read_settings(self) -> Settings:
        """The settings of the options, read anew. Blocking. Raises ConfigError."""
        from cirron_spool.settings.load import load_settings

        return load_settings(os.environ, **self._options)

    def _prepare(self) -> tuple[type[Platform], Settings, Route | None]:
        """Import the HTTP library, load the settings, and find the route. Blocking."""
        from cirron_spool.http.route import find_route
        from cirron_spool.pipeline.platform import Platform

        settings = self.load_settings()
        return Platform, settings, find_route(settings.api_url) if self.session is None else None


def _check_bandwidth(bandwidth: object) -> None:
    if bandwidth is not None and (
        not isinstance(bandwidth, int) or isinstance(bandwidth, bool) or bandwidth < 1
    ):
        raise ConfigError("bandwidth must be a whole number of bytes a second above 0, or None.")
