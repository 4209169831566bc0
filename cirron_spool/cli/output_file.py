"""Write the output of a command to a file atomically."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress

from cirron_spool.errors import ConfigError
from cirron_spool.text import printable, reason


def write_file(path: str, parts: Iterable[bytes], *, option: str) -> None:
    """Replace the file ``path`` by ``parts``. A device or a named pipe is written to in place.

    After a failure or a cancellation the former file stays. Raises ConfigError, which names ``option``, for a path that
    cannot be written. Also raises the errors of ``parts``.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(
            path
        ):  # /dev/stdout; a folder is the error that open() has
            with open(path, "wb") as stream:
                stream.writelines(parts)
            return
        target = os.path.realpath(path)
        temporary = os.path.join(
            os.path.dirname(target), f".{os.path.basename(target)[:100]}.{secrets.token_hex(8)}"
        )
        try:
            with open(temporary, "xb") as file:
                file.writelines(parts)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is not a path"
        raise ConfigError(f"Cannot write {printable(path)}: {why}. Correct {option}.") from None
