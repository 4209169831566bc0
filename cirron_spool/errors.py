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
EXIT_TEMPFAIL = 4  # running it again later is right


class CirronSpoolError(Exception):
    """The base of all errors that this package raises on purpose.

    ``exit_code`` is the exit code of the command line (see the README's table). ``hint`` is one more line for a
    person, or empty. ``result`` is the :class:`~cirron_spool.FlushResult` so far when a flush had begun, else None;
    its ``exit_code`` is the error's. ``spools`` is the :class:`~cirron_spool.FlushSpoolsResult` so far, where
    a flush of several spools has raised the error.
    """

    exit_code = EXIT_ATTENTION
    hint: str = ""
    result: FlushResult | None = None
    spools: FlushSpoolsResult | None = None

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    # Exception's own way calls __init__ with ``args``, which a subclass may not accept.
    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args), self.__dict__


class ConfigError(CirronSpoolError):
    """Arguments, environment or ``~/.cirron/config.json`` cannot be used (exit code 2)."""

    exit_code = EXIT_USAGE


class SpoolError(CirronSpoolError):
    """The spool directory cannot be used as one: a file, unreadable, not writable."""

    def __init__(self, message: str, exit_code: int = EXIT_USAGE, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class ResourceError(CirronSpoolError):
    """The system has no thread, no file descriptor or no memory for this (exit code 4: later is right)."""

    exit_code = EXIT_TEMPFAIL


class SpoolBusyError(CirronSpoolError):
    """Another process holds the lock of the spool or of the configuration (exit code 4: later is right)."""

    exit_code = EXIT_TEMPFAIL


class AuthError(CirronSpoolError):
    """Not authenticated, or the platform does not accept the credentials (exit code 3)."""

    exit_code = EXIT_AUTH


class NotAuthenticatedError(AuthError):
    """There is no token at all. ``hint`` says where one was looked for."""

    def __init__(self, *, hint: str = "") -> None:
        super().__init__("Not authenticated. Run cirron auth login first.", hint=hint)


class SignInError(CirronSpoolError):
    """A sign-in ended without a token; the former login is kept.

    Exit code 3: denied, expired or refused. Exit code 4: the platform is away, later is right. Exit code 1 where
    a person must look first.
    """

    def __init__(self, message: str, exit_code: int = EXIT_AUTH, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class AuthInvalidError(AuthError):
    """Verification before the flush was refused and no refresh helped. ``hint`` names the token's source."""

    def __init__(self, *, hint: str = "") -> None:
        super().__init__("Authentication invalid. Run cirron auth login first.", hint=hint)


class AuthRejectedError(AuthError):
    """A batch was answered with 401 or 403 during the flush; the batch and those behind it are kept.

    ``hint`` names the token's source.
    """


class TokenRenewalError(CirronSpoolError):
    """The token has to be renewed, and the platform cannot do it now.

    Exit code 4: later is right. Exit code 1 where a person must look first, as at a proxy or a certificate.
    """

    def __init__(self, message: str, exit_code: int = EXIT_TEMPFAIL, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class ClusterError(CirronSpoolError):
    """The engine that was to run the tasks cannot do so.

    Exit code 4: later is right. Exit code 1 where a person must look first, as at workers of another version.
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
    """The error of a program that cannot go on without a further thread."""
    return ResourceError(_NO_THREAD)


def resource_error(error: BaseException) -> ResourceError | None:
    """The ResourceError that says of ``error`` which resource is lacking; None when none is."""
    if isinstance(error, NoThreadError):
        return no_thread()
    if isinstance(error, MemoryError):
        return ResourceError(_LACKING[errno.ENOMEM])
    lacking = _LACKING.get(error.errno or 0) if isinstance(error, OSError) else None
    return ResourceError(lacking) if lacking else None


def out_of_files(error: OSError | None) -> ResourceError | None:
    """The ResourceError for ``error`` if it means that no further file can be opened, else None."""
    if error is None or error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    return resource_error(error)


@contextmanager
def resource_errors() -> Iterator[None]:
    """Raise a ResourceError in place of an error of the block that means one."""
    try:
        yield
    except (OSError, MemoryError) as error:
        if lacking := resource_error(error):
            raise lacking from None
        raise


def _rebuild(kind: type[CirronSpoolError], arguments: tuple[object, ...]) -> CirronSpoolError:
    """An error with ``arguments``, whose attributes pickle and copy set afterwards."""
    return kind.__new__(kind, *arguments)


def sole(group: BaseExceptionGroup) -> BaseException:
    """The one error that a caller can act on: the first of ours, else the first, out of a task group's wrapping."""
    errors: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending = [*error.exceptions, *pending]
        else:
            errors.append(error)
    return next((error for error in errors if isinstance(error, CirronSpoolError)), errors[0])
