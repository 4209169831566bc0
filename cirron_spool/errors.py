"""The errors that reach a caller, and the exit codes. Each message is one line that names the next step."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cirron_spool.events import FlushResult, FlushSpoolsResult


EXIT_OK = 0  # nothing is left to do
EXIT_ATTENTION = 1  # a person must look
EXIT_USAGE = 2  # wrong usage, or an unusable configuration
EXIT_AUTH = 3  # not authenticated
EXIT_TEMPFAIL = 4  # a later run may succeed


class CirronSpoolError(Exception):
    """The base of all errors that this package raises on purpose.

    ``exit_code`` is the exit code of the command (docs/configuration.md has the table). ``hint`` is one more line for a
    person, or empty. ``result`` is the :class:`~cirron_spool.FlushResult` so far, or None before the start of a flush.
    Its ``exit_code`` is that of the error. ``spools`` is the :class:`~cirron_spool.FlushSpoolsResult` so far, if a
    flush of several spools raised the error.
    """

    exit_code = EXIT_ATTENTION
    hint: str = ""
    result: FlushResult | None = None
    spools: FlushSpoolsResult | None = None

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    # Exception.__reduce__ calls __init__ with ``args``, which a subclass may not accept.
    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args), self.__dict__


class ConfigError(CirronSpoolError):
    """Arguments, environment or ``~/.cirron/config.json`` cannot be used (exit code 2)."""

    exit_code = EXIT_USAGE


class SpoolError(CirronSpoolError):
    """The path is not a usable spool directory: a file, unreadable, or not writable."""

    def __init__(self, message: str, exit_code: int = EXIT_USAGE, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class ResourceError(CirronSpoolError):
    """The system has no free thread, file descriptor or memory (exit code 4: a later run may succeed)."""

    exit_code = EXIT_TEMPFAIL


class SpoolBusyError(CirronSpoolError):
    """Another process holds the lock of the spool or of the configuration (exit code 4: a later run may succeed)."""

    exit_code = EXIT_TEMPFAIL


class AuthError(CirronSpoolError):
    """Not authenticated, or the platform does not accept the credentials (exit code 3)."""

    exit_code = EXIT_AUTH


class NotAuthenticatedError(AuthError):
    """There is no token. ``hint`` names the places that were searched."""

    def __init__(self, *, hint: str = "") -> None:
        super().__init__("Not authenticated. Run cirron auth login first.", hint=hint)


class SignInError(CirronSpoolError):
    """A sign-in ended without a token; the former login is kept.

    Exit code 3: denied, expired or refused. Exit code 4: the platform cannot be reached now. Exit code 1: a person must
    look first.
    """

    def __init__(self, message: str, exit_code: int = EXIT_AUTH, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class AuthInvalidError(AuthError):
    """The platform refused the token before the flush, and no renewal helped. ``hint`` names the token's origin."""

    def __init__(self, *, hint: str = "") -> None:
        super().__init__("Authentication invalid. Run cirron auth login first.", hint=hint)


class AuthRejectedError(AuthError):
    """The answer to a batch was 401 or 403. This batch and all later ones stay in the spool.

    ``hint`` names the token's origin.
    """


class TokenRenewalError(CirronSpoolError):
    """The token must be renewed, and the platform cannot renew it now.

    Exit code 4: a later run may succeed. Exit code 1: a person must look first, for example at a proxy.
    """

    def __init__(self, message: str, exit_code: int = EXIT_TEMPFAIL, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class ClusterError(CirronSpoolError):
    """The cluster engine cannot run the tasks.

    Exit code 4: a later run may succeed. Exit code 1: a person must look first, for example at workers of another
    version.
    """

    def __init__(self, message: str, exit_code: int = EXIT_TEMPFAIL, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class NoThreadError(OSError):
    """The system or the interpreter starts no further thread."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "no further thread can be started")


_LACKING = {
    errno.EMFILE: "This process may open no further file. Raise its limit (ulimit -n), then run this again.",
    errno.ENFILE: "The system can open no further file. Close other programs, then run this again.",
    errno.ENOMEM: "There is not enough memory. Free some or raise the limit, then run this again.",
}
_NO_THREAD = (
    "No further thread can be started. Raise the limit of processes (ulimit -u, or the container's) or of memory "
    "(ulimit -v), then run this again."
)


def no_thread() -> ResourceError:
    """The error for a program that needs a further thread."""
    return ResourceError(_NO_THREAD)


def resource_error(error: BaseException) -> ResourceError | None:
    """The ResourceError for the missing resource that ``error`` reports; None for another error."""
    if isinstance(error, NoThreadError):
        return no_thread()
    if isinstance(error, MemoryError):
        return ResourceError(_LACKING[errno.ENOMEM])
    lacking = _LACKING.get(error.errno or 0) if isinstance(error, OSError) else None
    return ResourceError(lacking) if lacking else None


def out_of_files(error: OSError | None) -> ResourceError | None:
    """The ResourceError for ``error`` if no further file can be opened; None for another error."""
    if error is None or error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    return resource_error(error)


@contextmanager
def resource_errors() -> Iterator[None]:
    """Translate errors of the block that report a missing resource into ResourceError."""
    try:
        yield
    except (OSError, MemoryError) as error:
        if lacking := resource_error(error):
            raise lacking from None
        raise


def _rebuild(kind: type[CirronSpoolError], arguments: tuple[object, ...]) -> CirronSpoolError:
    """An error with ``arguments``. pickle and copy set its attributes afterwards."""
    return kind.__new__(kind, *arguments)


def first_cause(group: BaseExceptionGroup) -> BaseException:
    """The error of a task group that a caller can act on: the first CirronSpoolError, else the first error."""
    errors: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending = [*error.exceptions, *pending]
        else:
            errors.append(error)
    return next((error for error in errors if isinstance(error, CirronSpoolError)), errors[0])
