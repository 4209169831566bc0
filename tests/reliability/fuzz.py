"""Fuzzing of what comes from outside: names, configuration files, Retry-After, answers. Nothing uncaught.

Each target is a Hypothesis test; where atheris is installed, ``--engine atheris`` drives the same targets by coverage.
The last target sends its bytes through a real socket into a real flush, and what that took for an acknowledgement the
standard library's own HTTP client must take for a success as well.

    python tests/reliability/fuzz.py --examples 100000
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import io
import json
import math
import random
import re
import subprocess
import sys
import types
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import answers
from harness import SAFETY_NET_S, Answer, Clock, Producer, Vault, arguments, scratch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from cirron_spool import (
    CirronSpoolError,
    ConfigError,
    flush_spool,
)
from cirron_spool import text as shown_text
from cirron_spool.protocol import http_date, retry, verdict
from cirron_spool.protocol.answer import Answer as Judged
from cirron_spool.protocol.answer import NoAnswer
from cirron_spool.protocol.retry import parse_retry_after
from cirron_spool.protocol.verdict import Action, judge
from cirron_spool.settings import load, sources
from cirron_spool.settings import urls as addresses
from cirron_spool.settings.load import load_settings
from cirron_spool.spool import names

NOW = datetime(2026, 4, 18, 4, 29, 58, tzinfo=UTC)
NAME = "01776486598051509000-ab12.json"
ACKNOWLEDGING = (200, 201, 202, 204)

# -- what to try: near misses of the real thing as well as anything at all

file_names = st.one_of(
    st.text(),
    st.from_regex(r"[0-9]+-[0-9a-f]+\.json", fullmatch=True),
    st.from_regex(r"[0-9]{1,40}-[0-9a-fA-F]{1,70}\.json(\.tmp|\n)?"),
    st.builds("{:020d}-{:032x}.json".format, st.integers(0, 2**70), st.integers(0, 2**140)),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(("apiUrl", "timeout", "retries", "token", "auth", "allowHttp", "other"))
urls = st.one_of(
    st.text(),
    st.from_regex(r"https?://[a-z\[\]:@?#%/.0-9-]*", fullmatch=True),
    st.sampled_from(
        ("https://api.cirron.com", "http://127.0.0.1:1/", "http://h", "https://u:p@h", "https://[::1]:99999")
    ),
)
logins = st.dictionaries(
    st.sampled_from(("accessToken", "refreshToken", "expiresAt")), json_values | st.text()
)
configurations = st.one_of(
    st.binary(),
    st.dictionaries(keys, json_values | urls | logins).map(lambda document: json.dumps(document).encode()),
    st.text().map(str.encode),
)
moments = st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
retry_afters = st.one_of(
    st.text(),
    st.integers().map(str),
    st.floats().map(str),
    moments,
    st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,2} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,12} [A-Z+0-9-]{0,6}"),
)
field_values = st.text(st.characters(codec="latin-1"), max_size=30)
headers = st.dictionaries(
    st.sampled_from(("Content-Type", "Retry-After", "Location", "Content-Encoding", "Set-Cookie")),
    field_values | retry_afters | st.sampled_from(("application/json", "text/html", "text/plain", "gzip")),
)
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.integers(0, 5000).map(lambda depth: b"[" * depth),
)


@st.composite
def broken_answers(draw: st.DrawFn) -> bytes:
    """A real answer with some bytes replaced, dropped, doubled, or put in."""
    raw = bytearray(draw(st.sampled_from(answers.TEMPLATES)).raw)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        until = min(len(raw), at + draw(st.integers(0, 4)))
        raw[at:until] = draw(st.binary(max_size=4) | st.just(bytes(raw[at:until]) * 2))
    return bytes(raw)


raw_answers = st.binary(max_size=200) | broken_answers()

# -- targets


def try_name(name: str) -> None:
    """A name is a batch's exactly when the whole of it matches; what is shown of it drives no terminal."""
    parsed = names.parse_batch_name(name) if len(name) < 4000 else None
    is_batch = re.fullmatch(r"[0-9]+-[0-9a-f]+\.json", name, re.ASCII) is not None
    assert names.is_batch_name(name) is is_batch
    if len(name) < 4000:
        assert (parsed is not None) is is_batch
    if parsed is not None:
        digits, _, rest = name.partition("-")
        assert parsed.created_ns == int(digits)
        assert names.batch_id_of(name) == parsed.batch_id == rest.removesuffix(".json")
        assert shown_text.iso_utc(parsed.created_ns).endswith("Z")
    shown = shown_text.printable(name)
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)
    shown.encode()


def try_configuration(path: Path, data: bytes, endpoint: str | None, key: str | None) -> None:
    """Settings or a ConfigError; never a token in what is said."""
    path.write_bytes(data)
    path.chmod(0o600)
    environ = {"CIRRON_API_ENDPOINT": endpoint, "CIRRON_API_KEY": key}
    try:
        loaded = load_settings({k: v for k, v in environ.items() if v is not None}, config_path=path)
    except ConfigError as error:
        said = str(error)
    else:
        assert loaded.api_url.startswith(("http://", "https://"))
        assert loaded.timeout_ms >= 1 and loaded.retries >= 0
        said = repr(loaded)
        if loaded.credentials is not None:
            _keeps_to_itself(
                loaded.credentials.token, said, loaded.api_url + str(path) + loaded.ingest_origin
            )
    if key is not None:
        _keeps_to_itself(key, said, f"{endpoint} {data!r} {path}")
    assert "\x1b" not in said and "\n" not in said


def _keeps_to_itself(token: str, said: str, innocent: str) -> None:
    """A token is never shown; one so short, or so like what is shown anyway, that chance may have put it there is."""
    assert len(token) < 12 or token in innocent or token not in said


def try_retry_after(value: str) -> None:
    """Seconds that are not negative and are a number, or None."""
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or (seconds >= 0 and not math.isnan(seconds))


def try_verdict(
    status: int, fields: dict[str, str], body: bytes, complete: bool, early: bool, reason: str
) -> None:
    """A verdict on anything; an acknowledgement only of a whole success after the body."""
    outcome = Judged(status, reason, CIMultiDict(fields), body, complete, True, early)
    judged = judge(outcome, name=NAME, origin="https://app.cirron.com", now=NOW)
    if judged.action is Action.ACKNOWLEDGED:
        assert status in ACKNOWLEDGING and complete and not early
    shown = f"{judged.message}{judged.hint}"
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown), shown
    assert len(shown) < 2000
    assert judge(NoAnswer(reason), name=NAME, origin="", now=NOW).action is Action.RETRY


class Wire:
    """A server that answers an upload with given bytes, and a flush of one batch against it."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self._folder = folder
        self._vault = vault
        self._spool = folder / "spool"
        self._producer = Producer(self._spool, random.Random(0), shapes=(0,))

    def try_answer(self, raw: bytes, reset: bool) -> None:
        """No exception but the documented ones, no hang; acknowledged only what others call a success, too."""
        (path,) = self._producer.write(1)
        self._vault.plan = lambda _: Answer(raw=raw, drop=True, reset=reset)

        async def flush() -> None:
            async with asyncio.timeout(SAFETY_NET_S):
                await flush_spool(
                    self._spool,
                    api_url=self._vault.url,
                    token="sk-test",
                    config_path=self._folder / "none.json",
                    verify=False,
                    retries=0,
                )

        try:
            asyncio.run(flush())
        except CirronSpoolError as error:
            assert error.exit_code in (1, 3, 4)  # noqa: PT017  # raising at all is fine, too
        gone = not path.exists()
        path.unlink(missing_ok=True)
        assert not gone or _others_say(raw), f"acknowledged by {raw!r}"


def _others_say(raw: bytes) -> bool:
    """Whether the standard library's client takes ``raw`` for a success."""
    stream = _Kept(raw)

    class Connection:
        def makefile(self, *_: Any) -> io.BytesIO:
            return stream

    try:
        while (
            True
        ):  # each round reads a line at least; the library skips no interim answer but a 100 by itself
            response = http.client.HTTPResponse(Connection(), method="POST")  # type: ignore[arg-type]
            response.begin()
            if response.status >= 200:
                return response.status in ACKNOWLEDGING
    except (http.client.HTTPException, OSError, ValueError):
        return False


class _Kept(io.BytesIO):
    """A stream that a response which is let go does not close."""

    def close(self) -> None:
        pass


Target = Callable[..., None]


def targets(folder: Path, vault: Vault) -> dict[str, Target]:
    """The targets as Hypothesis tests without settings."""
    wire = Wire(folder, vault)
    path = folder / "config.json"
    return {
        "names": given(file_names)(try_name),
        "configuration": given(configurations, st.none() | urls, st.none() | st.text(min_size=1))(
            lambda data, endpoint, key: try_configuration(path, data, endpoint, key)
        ),
        "retry-after": given(retry_afters)(try_retry_after),
        "verdict": given(
            st.integers(100, 999) | st.sampled_from(ACKNOWLEDGING),
            headers,
            bodies,
            st.booleans(),
            st.booleans(),
            field_values,
        )(try_verdict),
        "answers": given(raw_answers, st.booleans())(wire.try_answer),
    }


# How many examples of a target go with 1,000: a flush through sockets is dearer than a pure function.
SHARE = {"answers": 0.3}


def run(folder: Path, examples: int) -> dict[str, int]:
    """Try ``examples`` inputs of each target, a part of them where each is a flush; how many there were."""
    tried: dict[str, int] = {}
    with Vault() as vault:
        for name, target in targets(folder, vault).items():
            tried[name] = max(1, round(examples * SHARE.get(name, 1)))
            settings(
                max_examples=tried[name],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            )(target)()
    return tried


def _by_coverage(name: str, folder: Path, examples: int) -> None:
    """Drive one target with atheris, which ends this process."""
    atheris: Any = importlib.import_module("atheris")
    for module in (names, shown_text, load, sources, addresses, http_date, retry, verdict):
        for value in vars(module).values():
            if isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
                atheris.instrument_func(value)  # in place
    with Vault() as vault:
        target: Any = targets(folder, vault)[name]
        atheris.Setup(
            [sys.argv[0], f"-runs={examples}", "-max_len=2000", "-len_control=0"],
            target.hypothesis.fuzz_one_input,
        )
        atheris.Fuzz()


def main() -> int:
    """Run as the command line says."""
    if len(sys.argv) == 4 and sys.argv[1] == "--by-coverage":
        with scratch() as folder:
            _by_coverage(sys.argv[2], folder, int(sys.argv[3]))
        return 0
    options = arguments(__doc__, examples=2000)
    clock = Clock(options.examples, "examples")
    if importlib.util.find_spec("atheris") is not None:
        for name in ("names", "configuration", "retry-after", "verdict", "answers"):
            runs = max(1, round(options.examples * SHARE.get(name, 1)))
            argv = [sys.executable, __file__, "--by-coverage", name, str(runs)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
        print(f"atheris: {options.examples} runs a target in {clock.seconds:.0f} s, 0 uncaught")
        return 0
    with scratch(options.directory) as folder:
        tried = run(folder, options.examples)
    shown = ", ".join(f"{count} {name}" for name, count in tried.items())
    print(f"hypothesis: {shown} in {clock.seconds:.0f} s, 0 uncaught")
    return 0


if __name__ == "__main__":
    sys.exit(main())
