"""The open connections to one platform, with the token and the throttle of the flushes that use them."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from cirron_spool.auth.token_manager import TokenManager
from cirron_spool.errors import NotAuthenticatedError
from cirron_spool.http.attempts import Throttle
from cirron_spool.http.route import Route
from cirron_spool.http.transport import Transport
from cirron_spool.pipeline.ingest import Ingest
from cirron_spool.pipeline.window_size import WindowSize
from cirron_spool.settings.model import Settings

if TYPE_CHECKING:
    import aiohttp


class Platform:
    """The open connections to one platform, and their settings. A context manager.

    Raises NotAuthenticatedError when ``settings`` have no credentials. A given ``session`` sends the requests, and
    stays open. ``route`` is a known route to the platform. ``bandwidth`` is in bytes a second.
    """

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession | None,
        route: Route | None,
        bandwidth: int | None = None,
    ) -> None:
        if settings.credentials is None:
            raise NotAuthenticatedError(hint=settings.missing_hint)
        self.settings = settings
        self._transport = Transport(
            timeout_ms=settings.timeout_ms, session=session, route=route, bandwidth=bandwidth
        )
        self.tokens = TokenManager(settings, settings.credentials, self._transport)
        self.ingest = Ingest(self._transport, settings.ingest_origin, settings.ingest_path)
        self.throttle = Throttle()
        # The window sizes of all flushes to the platform. Each gets the refusals of all.
        self.window_sizes: WeakSet[WindowSize] = WeakSet()

    def refused(self, in_flight: int, *, too_many: bool) -> None:
        """Report to all window sizes that an attempt with ``in_flight`` batches in flight was refused for now."""
        for window_size in self.window_sizes:
            window_size.refused(in_flight, too_many=too_many)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)
