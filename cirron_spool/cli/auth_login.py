"""``auth login``: the device flow, or a token from standard input."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cirron_spool.auth.answers import Identity
from cirron_spool.auth.device_flow import DeviceCode, DeviceFlow
from cirron_spool.auth.sign_in import verify_new_token
from cirron_spool.auth.token_store import set_login, set_token, update_locked
from cirron_spool.cli.account_view import identity_json
from cirron_spool.cli.console import Console, is_terminal
from cirron_spool.cli.signals import Signals
from cirron_spool.cli.stoppable import run_until_stopped
from cirron_spool.cli.token_input import read_token
from cirron_spool.concurrency.threads import in_daemon_thread
from cirron_spool.errors import EXIT_OK, ConfigError, NoThreadError
from cirron_spool.http.transport import Transport
from cirron_spool.settings import keyring_store
from cirron_spool.settings.files import Document, require_config
from cirron_spool.settings.load import load_settings
from cirron_spool.settings.model import Credentials, Settings
from cirron_spool.settings.sources import TOKEN
from cirron_spool.text import printable, reason, time_span

if TYPE_CHECKING:
    from webbrowser import BaseBrowser

# Longest line of a terminal in line mode, in bytes.
_LONGEST_LINE = 4096
_TERMINAL_BROWSERS = ("browsh", "elinks", "links", "links2", "lynx", "w3m", "www-browser")
_PIPE_IT = "Pipe it: cirron auth login --with-token < token.txt."
_WAYS = "Set HOME, or set CIRRON_API_KEY to a token in place of a login."


def login(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Sign in as the arguments say; return the exit code. The former login stays until the new one is saved."""
    settings = load_settings(
        os.environ,
        api_url=options.api_url,
        allow_http=options.allow_http,
        origins={"api_url": "--url"},
        credentials=False,
    )
    path = settings.config_path
    if str(path) == os.devnull:
        raise ConfigError(f"There is no home directory for the login. {_WAYS}")
    _check_store(path)
    for warning in (*settings.warnings, *_warnings_of_root(path)):
        console.warning(warning)
    if options.with_token:
        credentials = Credentials(read_token("-", remedy=_PIPE_IT))
        change = partial(set_token, token=credentials.token)
        identity = run_until_stopped(lambda: _verify(settings, credentials, console), signals)
    else:
        open_browser = not options.no_browser and is_terminal(sys.stdin) and not console.json
        credentials, identity = run_until_stopped(
            lambda: _sign_in(settings, console, open_browser=open_browser), signals
        )
        change = partial(set_login, credentials=credentials)

    def change_all(document: Document) -> None:
        change(document)
        if options.api_url is not None:
            document["apiUrl"] = settings.api_url
            if options.allow_http:
                document["allowHttp"] = True

    try:
        run_until_stopped(lambda: update_locked(path, change_all), signals)
    except OSError as error:
        raise ConfigError(f"Cannot save the login in {printable(str(path))}: {reason(error)}.") from None
    return _conclude(settings, identity, console)


def _conclude(settings: Settings, identity: Identity, console: Console) -> int:
    path = settings.config_path
    saved_in = keyring_store.place_of_tokens(require_config(path), path)
    if not console.json:
        console.line(f"Success: Signed in as {identity.with_organization} at {settings.api_url}.")
        console.line(f"The login is saved in {saved_in}.")
    if os.environ.get(TOKEN.variable):
        console.warning(f"{TOKEN.variable} is set and overrides this login. Unset it to use the login.")
    with suppress(ConfigError):  # the next command reports it
        following = load_settings(os.environ, credentials=False)
        if following.api_url != settings.api_url:
            place = following.origins["api_url"].place
            console.warning(
                f"{place} overrides this address with {following.api_url}. Unset it to use the login."
            )
    origin = settings.origins["api_url"]
    if origin.kind == "environment":
        console.warning(
            f"The login is for {settings.api_url}, which {origin.place} sets. "
            "Keep it set, or sign in with --url."
        )
    document = {"signedIn": True, "apiUrl": settings.api_url, **identity_json(identity), "savedIn": saved_in}
    return console.end(EXIT_OK, document)


async def _verify(settings: Settings, credentials: Credentials, console: Console) -> Identity:
    async with Transport(timeout_ms=settings.timeout_ms) as transport:
        return await verify_new_token(settings, credentials, transport, console.warning)


async def _sign_in(
    settings: Settings, console: Console, *, open_browser: bool
) -> tuple[Credentials, Identity]:
    """Run the device flow, and verify its token."""
    async with Transport(timeout_ms=settings.timeout_ms) as transport:
        flow = DeviceFlow(settings, transport)
        code = await flow.begin(console.warning)
        show = console.say if console.json else console.line
        show(f"Code: {code.user_code}")
        show(f"Open {code.address} in a browser on any machine, and enter the code there.")
        if code.complete_address != code.address:
            show(f"This address has the code filled in: {code.complete_address}")
        browser = Browser(code, console) if open_browser else None
        try:
            if browser is not None:
                browser.offer()
            show(f"Waiting for the approval, {time_span(code.lifetime_s)} at most. Ctrl-C ends the wait.")
            credentials = await flow.wait(code, console.warning)
        finally:
            if browser is not None:
                browser.close()
        return credentials, await verify_new_token(settings, credentials, transport, console.warning)


class Browser:
    """Opens the address of ``code`` when a person at the terminal presses Enter. Nothing waits for the browser."""

    def __init__(self, code: DeviceCode, console: Console) -> None:
        self._address = code.complete_address
        self._console = console
        self._browser = _find_browser()
        self._opening: asyncio.Task[None] | None = None
        self._waits_for_enter = False

    def offer(self) -> None:
        """Ask for Enter, if there is a browser and the event loop can wait for a terminal."""
        if self._browser is None:
            return
        with suppress(NotImplementedError, OSError, ValueError):
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._entered)
            self._waits_for_enter = True
            self._console.line("Press Enter to open it in the browser of this machine.")

    def close(self) -> None:
        """Stop waiting for Enter. The start of a browser continues."""
        if self._waits_for_enter:
            self._waits_for_enter = False
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        if self._opening is not None:
            self._opening.cancel()

    def _entered(self) -> None:
        with suppress(OSError):
            os.read(sys.stdin.fileno(), _LONGEST_LINE)
        self._waits_for_enter = False
        loop = asyncio.get_running_loop()
        loop.remove_reader(sys.stdin.fileno())
        self._opening = loop.create_task(self._open())

    async def _open(self) -> None:
        opened = False
        if self._browser is not None:
            # The start of some browsers blocks until they are closed.
            with suppress(OSError, NoThreadError):
                opened = await in_daemon_thread(
                    partial(self._browser.open, self._address), "cirron-spool browser"
                )
        if not opened:
            self._console.warning("No browser could be opened. Open the address by hand.")


def _find_browser() -> BaseBrowser | None:
    """The graphical browser of this machine. None for a browser in the terminal."""
    has_display = sys.platform in ("darwin", "win32") and not os.environ.get("SSH_CONNECTION")
    if not (has_display or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))):
        return None
    import webbrowser

    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return None
    return None if os.path.basename(browser.name) in _TERMINAL_BROWSERS else browser


def _warnings_of_root(path: Path) -> list[str]:
    """A warning where ``sudo`` makes a file that the user of this home directory cannot read."""
    target = Path(os.path.realpath(path))
    if getattr(os, "geteuid", lambda: -1)() != 0 or os.path.lexists(target):
        return []
    folder = next(above for above in target.parents if os.path.lexists(above))
    if os.stat(folder).st_uid == 0:
        return []
    where = printable(str(path))
    return [
        f"{where} will belong to root, and the user of this home directory cannot read it. Leave out sudo."
    ]


def _check_store(path: Path) -> None:
    """Raise ConfigError if the login could not be saved. Called before the approval."""
    if keyring_store.is_used(require_config(path), path):
        keyring_store.read_replaceable(path)
    target = Path(os.path.realpath(path))
    folder = next(above for above in target.parents if os.path.lexists(above))
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        where = printable(str(path))
        raise ConfigError(f"A login cannot be saved in {where}: {printable(str(folder))} is not writable.")
