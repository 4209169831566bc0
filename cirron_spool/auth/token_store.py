"""Read, change and lock the file with the settings and the login."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Callable, Container
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import aiofiles
import aiofiles.os

from cirron_spool.concurrency.shield import complete
from cirron_spool.concurrency.threads import DISK_THREADS, in_thread
from cirron_spool.errors import ConfigError, SpoolBusyError
from cirron_spool.settings import keyring_store
from cirron_spool.settings.files import LARGEST_BYTES, Document, require_config
from cirron_spool.settings.model import Credentials
from cirron_spool.settings.sources import credentials_in
from cirron_spool.spool.lock import FileLock, HeldError, lock_file
from cirron_spool.text import printable

# The longest wait for another process. Without the lock, the token may be renewed twice.
_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.05

# The keys of a login below ``auth``.
_LOGIN_KEYS = ("accessToken", "refreshToken", "expiresAt")


def read_credentials(path: Path) -> Credentials | None:
    """Read the credentials in the file again; None without any. Blocking. Raises ConfigError."""
    return credentials_in(require_config(path), path)


async def save(path: Path, credentials: Credentials, *, replaces: Container[str]) -> bool:
    """Write a renewed login if the present access token is in ``replaces``; see :func:`update`.

    False if another program signed in or out. Its change stays.
    """
    saved = False

    def change(document: Document) -> None:
        nonlocal saved
        saved = _auth_in(document).get("accessToken") in replaces
        if saved:
            set_login(document, credentials)

    await update(path, change)
    return saved


async def update(path: Path, change: Callable[[Document], None], *, with_tokens: bool = True) -> None:
    """Change the configuration. ``change`` gets the object with all tokens, and changes it and its ``auth`` in place.

    Other keys stay. Tokens go to the place in ``auth.store`` after the change. Without ``with_tokens``, the keyring is
    neither read nor changed. The file is replaced atomically, with mode 0600. Raises OSError when it cannot be written,
    and ConfigError for an invalid content or a failed keyring. The file then stays.
    """
    before = await in_thread(require_config, path)
    had_keyring = with_tokens and keyring_store.is_used(before, path)
    kept = await in_thread(keyring_store.read_replaceable, path) if had_keyring else {}
    document = _merge_tokens(_copy(before), kept)
    change(document)
    has_keyring = with_tokens and keyring_store.is_used(document, path)
    if has_keyring:
        tokens = _take_tokens(document)
        if tokens != kept:
            await in_thread(keyring_store.write_tokens, path, tokens)
    # Compare the texts, since 1 == True.
    if (text := _to_text(document, path)) != _to_text(before, path):
        # Replace the target of a symbolic link, not the link.
        target = Path(await in_thread(os.path.realpath, path))
        await _write(target, text)
    if had_keyring and not has_keyring:
        await in_thread(keyring_store.write_tokens, path, {})


async def update_locked(
    path: Path, change: Callable[[Document], None], *, with_tokens: bool = True, lock_needed: bool = False
) -> None:
    """Change the configuration under the lock of all processes; see :func:`update`.

    After ten seconds without the lock, the change is made anyway, or SpoolBusyError is raised if ``lock_needed``. A
    cancellation is raised after the change. Raises OSError and ConfigError as ``update`` does.
    """
    # The lock file is in this folder, which may not exist yet.
    folder = os.path.dirname(await in_thread(os.path.realpath, path))
    with suppress(OSError):  # the read or the write reports it
        await aiofiles.os.makedirs(folder, mode=0o700, exist_ok=True, executor=DISK_THREADS)
    lock = None
    try:
        lock = await _wait_for_lock(path)
    except HeldError:
        if lock_needed:
            where = printable(str(path))
            raise SpoolBusyError(f"Another process is changing {where}. Run this again later.") from None
    except OSError:
        pass  # a file system without locks
    try:
        await complete(update(path, change, with_tokens=with_tokens))
    finally:
        if lock is not None:
            await in_thread(lock.release)


def set_login(document: Document, credentials: Credentials) -> None:
    """Set the login in ``document``, and keep every other key."""
    document["auth"] = {
        **_auth_in(document),
        "accessToken": credentials.token,
        "refreshToken": credentials.refresh_token,
        "expiresAt": _iso(credentials.expires_at),
    }


def set_token(document: Document, token: str) -> None:
    """Set a long-lived token in ``document``. It replaces a login, which would have priority."""
    remove_tokens(document)
    document["token"] = token


def remove_tokens(document: Document) -> bool:
    """Remove all tokens from ``document``, and keep all other keys. Returns whether there was a token.

    An ``auth`` of another type counts as a token, and is removed.
    """
    tokens = _take_tokens(document)
    if document.get("auth") is not None and not isinstance(document["auth"], dict):
        del document["auth"]
        return True
    return bool(
        tokens.get("token") or _auth_in(tokens).get("accessToken") or _auth_in(tokens).get("refreshToken")
    )


def _take_tokens(document: Document) -> Document:
    """Remove the tokens from ``document``; return them under the same keys."""
    tokens: Document = {}
    auth = _auth_in(document)
    if login := {key: auth.pop(key) for key in _LOGIN_KEYS if key in auth}:
        tokens["auth"] = login
        if not auth:
            del document["auth"]
    if "token" in document:
        tokens["token"] = document.pop("token")
    return tokens


def _merge_tokens(document: Document, tokens: Document) -> Document:
    """Replace the tokens in ``document`` by ``tokens``."""
    if tokens:
        _take_tokens(document)
        if login := _auth_in(tokens):
            document["auth"] = {**_auth_in(document), **login}
        if "token" in tokens:
            document["token"] = tokens["token"]
    return document


def _copy(document: Document) -> Document:
    """A copy that shares only values that are never changed."""
    auth = document.get("auth")
    return {**document, "auth": dict(auth)} if isinstance(auth, dict) else dict(document)


def _to_text(document: Document, path: Path) -> str:
    """The text of the file. Raises ConfigError for a text that :func:`require_config` could not read."""
    where = printable(str(path))
    try:
        # The indentation of a deeply nested document may be too long.
        for indent, separators in ((2, None), (None, (",", ":"))):
            text = json.dumps(document, indent=indent, separators=separators, ensure_ascii=False) + "\n"
            if len(text.encode(errors="backslashreplace")) <= LARGEST_BYTES:
                return text
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply to be changed. Correct it.") from None
    raise ConfigError(f"{where} would become too large for a configuration. Correct it.")


def _auth_in(document: Document) -> Document:
    auth = document.get("auth")
    return auth if isinstance(auth, dict) else {}


async def _write(target: Path, text: str) -> None:
    """Replace ``target`` by a private file with ``text``. Runs in threads, since the file system may be slow."""
    await aiofiles.os.makedirs(target.parent, mode=0o700, exist_ok=True, executor=DISK_THREADS)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        file = await aiofiles.open(
            temporary,
            "x",
            encoding="utf-8",
            errors="backslashreplace",  # JSON allows half a surrogate pair, UTF-8 does not
            opener=_private,
            executor=DISK_THREADS,
        )
        try:
            await file.write(text)
            await file.flush()
            await in_thread(_make_durable, file.fileno(), target)
        finally:
            await file.close()  # ``async with`` would use a thread that delays the end of the loop
        await aiofiles.os.replace(temporary, target, executor=DISK_THREADS)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _make_durable(fd: int, target: Path) -> None:
    os.fsync(fd)
    with suppress(OSError, AttributeError):  # root keeps the file's owner
        status = os.stat(target)
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, status.st_uid, status.st_gid)


async def acquire_lock(config_path: Path) -> FileLock | None:
    """Acquire the lock beside the configuration. None without a lock file, or after ten seconds."""
    try:
        return await _wait_for_lock(config_path)
    except (HeldError, OSError):
        return None


async def _wait_for_lock(config_path: Path) -> FileLock:
    """As :func:`acquire_lock`. Raises HeldError after ten seconds, and OSError without a lock file."""
    taken: list[FileLock] = []

    def take() -> None:
        taken.append(lock_file(f"{os.path.realpath(config_path)}.lock"))

    give_up = time.monotonic() + _LOCK_WAIT_S
    # Polled, since a thread that waits in the kernel cannot be cancelled.
    while True:
        try:
            await in_thread(take)
            return taken[0]
        except asyncio.CancelledError:
            for lock in taken:  # the thread acquired the lock after the cancellation
                await in_thread(lock.release)
            raise
        except HeldError:
            if time.monotonic() >= give_up:
                raise
            await asyncio.sleep(_LOCK_POLL_S)


def _iso(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z") if moment is not None else None
