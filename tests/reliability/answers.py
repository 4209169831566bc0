"""Answers that are cut, reset or stalled after every one of their bytes: no false acknowledgement, no hang.

A case is one of the answers below, of which the server sends the first n bytes and then closes the connection (FIN),
resets it (RST) or says no more. Two batches are in the spool; the first gets that answer, the second, if it comes to
it, a healthy one. Then a flush with a healthy server must deliver what is left.

A cut answer may acknowledge in one place only, where HTTP gives nobody a chance to see the cut: the body's end is
marked by the end of the connection alone, the connection ended in order (FIN), and what had come by then is an
acknowledgement by itself. A body of JSON is not one before its last brace; plain text is one at every length.

    python tests/reliability/answers.py --cases 5000
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness import (
    SAFETY_NET_S,
    Answer,
    Clock,
    Gate,
    Producer,
    Request,
    Vault,
    arguments,
    batch_id,
    read,
    scratch,
)

from cirron_spool import CirronSpoolError, flush_spool
from support.monitor import watch_deletes

# Only for cases in which nothing more comes: all others have all the time in the world.
STALL_LIMIT_MS = 120
AT_ONCE = 8
ENDINGS = ("cut", "reset", "stalled")


@dataclass(frozen=True)
class Template:
    """One whole answer on the wire.

    ``acknowledges`` is the contract's word on it; ``until_close`` says that only the connection's end delimits its
    body; ``any_length`` that each beginning of its body means the same as the whole.
    """

    name: str
    raw: bytes
    acknowledges: bool
    until_close: bool = False
    any_length: bool = False

    @property
    def body_at(self) -> int:
        """Bytes before the final answer's body."""
        return self.raw.rindex(b"\r\n\r\n", 0, self.raw.rindex(b"HTTP/") + self._head()) + 4

    def _head(self) -> int:
        final = self.raw[self.raw.rindex(b"HTTP/") :]
        return final.index(b"\r\n\r\n") + 4


JSON_TYPE = "Content-Type: application/json"
TEXT_TYPE = "Content-Type: text/plain; charset=utf-8"
SUCCESS = b'{"success":true,"traceCount":12}'


def _http(
    status: str,
    *fields: str,
    body: bytes = b"",
    version: str = "1.1",
    length: bool = True,
    before: bytes = b"",
) -> bytes:
    lines = [f"HTTP/{version} {status}", *fields, *([f"Content-Length: {len(body)}"] if length else [])]
    return before + "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _chunks(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


_CHUNKED = ("Transfer-Encoding: chunked", JSON_TYPE)
_CLOSE = "Connection: close"

TEMPLATES = (
    Template("200 JSON", _http("200 OK", JSON_TYPE, body=SUCCESS), True),
    Template("200 empty", _http("200 OK"), True),
    Template("200 empty JSON", _http("200 OK", JSON_TYPE), True),
    Template("200 text", _http("200 OK", TEXT_TYPE, body=b"accepted"), True),
    Template("201 JSON", _http("201 Created", JSON_TYPE, body=b'{"id": "\xc3\xa9"}'), True),
    Template("202 list", _http("202 Accepted", JSON_TYPE, body=b"[1, 2, 3]"), True),
    Template("204", _http("204 No Content", length=False), True),
    Template("204 HTTP/1.0", _http("204 No Content", length=False, version="1.0"), True),
    Template(
        "chunked", _http("200 OK", *_CHUNKED, length=False, body=_chunks(SUCCESS[:7], SUCCESS[7:])), True
    ),
    Template(
        "chunked text", _http("200 OK", _CHUNKED[0], TEXT_TYPE, length=False, body=_chunks(b"o", b"k")), True
    ),
    Template("chunked empty", _http("200 OK", _CHUNKED[0], length=False, body=_chunks()), True),
    Template(
        "chunked, trailers",
        _http("200 OK", *_CHUNKED, length=False, body=_chunks(SUCCESS, end=b"0\r\nX-Checksum: 12\r\n\r\n")),
        True,
    ),
    Template(
        "100 first", _http("200 OK", JSON_TYPE, body=SUCCESS, before=b"HTTP/1.1 100 Continue\r\n\r\n"), True
    ),
    Template(
        "103 first",
        _http("204 No Content", length=False, before=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        True,
    ),
    Template("HTTP/1.0 with length", _http("200 OK", JSON_TYPE, body=SUCCESS, version="1.0"), True),
    Template(
        "HTTP/1.0 JSON until close",
        _http("200 OK", JSON_TYPE, body=SUCCESS, version="1.0", length=False),
        True,
        True,
    ),
    Template(
        "HTTP/1.0 text until close",
        _http("200 OK", TEXT_TYPE, body=b"accepted", version="1.0", length=False),
        True,
        True,
        True,
    ),
    Template("JSON until close", _http("200 OK", JSON_TYPE, _CLOSE, body=SUCCESS, length=False), True, True),
    Template("nothing until close", _http("200 OK", _CLOSE, length=False), True, True, True),
    Template(
        "many fields",
        _http(
            "200 OK",
            *(f"X-Field-{n}: {'v' * n}" for n in range(40)),
            "Set-Cookie: a=b",
            JSON_TYPE,
            body=SUCCESS,
        ),
        True,
    ),
    Template("long JSON", _http("200 OK", JSON_TYPE, body=b'{"ids": [' + b"7, " * 900 + b"7]}"), True),
    Template("success false", _http("200 OK", JSON_TYPE, body=b'{"success": false}'), False),
    Template(
        "an error in 200", _http("200 OK", JSON_TYPE, body=b'{"ok":true,"error":{"message":"no"}}'), False
    ),
    Template("not the JSON it says", _http("200 OK", JSON_TYPE, body=b'{"success": true'), False),
    Template("a page", _http("200 OK", "Content-Type: text/html", body=b"<!doctype html><p>Log in"), False),
    Template(
        "compressed",
        _http("200 OK", JSON_TYPE, "Content-Encoding: gzip", body=b"\x1f\x8b\x08\x00abcdef"),
        False,
    ),
    Template("206", _http("206 Partial Content", JSON_TYPE, body=SUCCESS), False),
    Template("302", _http("302 Found", "Location: /login"), False),
    Template("304", _http("304 Not Modified", length=False), False),
    Template("400", _http("400 Bad Request", JSON_TYPE, body=b'{"error":"schema"}'), False),
    Template("401", _http("401 Unauthorized", body=b"no"), False),
    Template("404", _http("404 Not Found", "Content-Type: text/html", body=b"<html>no</html>"), False),
    Template("409", _http("409 Conflict", JSON_TYPE, body=b'{"error":"duplicate"}'), False),
    Template("429", _http("429 Too Many Requests", "Retry-After: 0", body=b"slow down"), False),
    Template("500", _http("500 Internal Server Error", TEXT_TYPE, body=b"oops"), False),
    Template(
        "503 chunked", _http("503 Service Unavailable", *_CHUNKED, length=False, body=_chunks(b"{}")), False
    ),
    Template("garbage", b"SSH-2.0-OpenSSH_9.6\r\nHTTP/1.1 200 OK\r\n\r\n", False),
)


@dataclass(frozen=True)
class Case:
    """``template``, of which the first ``sent`` bytes come before ``ending``."""

    template: Template
    sent: int
    ending: str

    def __str__(self) -> str:
        return f"{self.template.name!r} {self.ending} after {self.sent} of {len(self.template.raw)} bytes"

    @property
    def whole(self) -> bool:
        """Whether all of it is sent, and its end is to be seen."""
        if self.sent < len(self.template.raw):
            return False
        # A reset, unlike an orderly end, says that something may be missing; silence says nothing at all.
        return not self.template.until_close or self.ending == "cut"

    @property
    def invisible(self) -> bool:
        """Whether it is cut where nobody can see it, and says yes so far."""
        template = self.template
        return (
            template.any_length and self.ending == "cut" and template.body_at <= self.sent < len(template.raw)
        )

    @property
    def may_acknowledge(self) -> bool:
        """Whether the batch may be deleted."""
        return self.template.acknowledges and (self.whole or self.invisible)

    @property
    def must_acknowledge(self) -> bool:
        """Whether it must: a reset may overtake the answer that it follows."""
        return self.template.acknowledges and self.whole and self.ending != "reset"

    @property
    def ends_in_silence(self) -> bool:
        """Whether only the silence limit ends it."""
        return self.ending == "stalled" and not self.whole


def cases() -> list[Case]:
    """All of them."""
    return [
        Case(template, sent, ending)
        for template in TEMPLATES
        for ending in ENDINGS
        for sent in range(len(template.raw) + 1)
    ]


@dataclass
class Report:
    """The figures of a run."""

    seed: int
    run: int = 0
    of: int = 0
    seconds: float = 0.0
    by_ending: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    invisible: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        endings = ", ".join(f"{count} {ending}" for ending, count in sorted(self.by_ending.items()))
        return (
            f"{self.run} of {self.of} answers ({endings}) in {self.seconds:.0f} s, seed {self.seed}\n"
            f"  0 false acknowledgements, 0 hangs; {self.acknowledged} acknowledged, of those {self.invisible} cut "
            "where HTTP shows nothing of it"
        )


class Answers:
    """A vault that answers each first batch by its case."""

    def __init__(self, folder: Path, vault: Vault, seed: int) -> None:
        self._folder = folder
        self._vault = vault
        self._producer = Producer(folder / "first", random.Random(seed), shapes=(0, 1))
        self._planned: dict[str, Answer] = {}
        self._allowed: set[str] = set()
        self.report = Report(seed)
        vault.plan = self._plan

    def run(self, sample: Iterable[Case], clock: Clock) -> None:
        """Every case of ``sample``, some at a time."""

        async def worker(waiting: Iterable[tuple[int, Case]]) -> None:
            for number, case in waiting:
                await self._one(number, case)
                self.report.run += 1
                clock.tick(self.report.run)

        async def all_of_them() -> None:
            waiting = enumerate(sample)
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(worker(waiting))

        try:
            with watch_deletes(acknowledged=lambda name: name in self._allowed):
                asyncio.run(all_of_them())
        finally:  # the monitor's word is worth having, but these say which answers it was
            problems = self.report.problems
            assert not problems, f"{len(problems)} problems, seed {self.report.seed}:\n" + "\n".join(problems)

    def _plan(self, request: Request) -> Answer:
        return self._planned.get(request.batch_id or "", Answer(204))

    async def _one(self, number: int, case: Case) -> None:
        spool = self._folder / str(number)
        self._producer.move(spool)
        first, second = self._producer.write(2)
        before = {path.name: path.read_bytes() for path in (first, second)}
        key, gate = batch_id(first.name), Gate()
        raw, short = case.template.raw, case.sent < len(case.template.raw)
        if case.ending == "stalled":
            stall = case.sent if short else None
            answer = Answer(
                raw=raw, stall_after_bytes=stall, stall_gate=gate, acknowledges=case.may_acknowledge
            )
        else:
            answer = Answer(
                raw=raw,
                cut_after=case.sent,
                drop=True,
                reset=case.ending == "reset",
                acknowledges=case.may_acknowledge,
            )
        self._planned[key] = answer
        if case.invisible:
            self._allowed.add(first.name)
        await self._flush(spool, case, STALL_LIMIT_MS if case.ends_in_silence else 30_000)
        gate.open()
        gone = not first.exists()
        self._claim(not gone or case.may_acknowledge, f"a false acknowledgement: {case}")
        self._claim(gone or not case.must_acknowledge, f"an acknowledgement was not understood: {case}")
        # The connection that the first one's answer ended on may fail the second one, whose turn is in the next flush.
        self._claim(gone or second.exists(), f"the second batch overtook the first: {case}")
        if case.ending == "stalled":
            self._claim(second.exists() != gone, f"the second batch is not as the first: {case}")
        for path in (first, second):
            self._claim(read(path) in (None, before[path.name]), f"{path.name} was changed: {case}")
        del self._planned[key]
        self._claim(await self._flush(spool, case, 30_000) == 0, f"the flush after it failed: {case}")
        self._claim(not list(spool.iterdir()), f"something is left: {case}")
        spool.rmdir()
        self.report.by_ending[case.ending] += 1
        self.report.acknowledged += gone
        self.report.invisible += gone and case.invisible

    def _claim(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.report.problems.append(otherwise)

    async def _flush(self, spool: Path, case: Case, timeout_ms: int) -> int:
        flush = flush_spool(
            spool,
            api_url=self._vault.url,
            token="sk-test",
            config_path=self._folder / "none.json",
            verify=False,
            retries=0,
            timeout_ms=timeout_ms,
        )
        try:
            async with asyncio.timeout(SAFETY_NET_S):
                return (await flush).exit_code
        except TimeoutError:
            self._claim(False, f"a hang: {case}")
            return -1
        except CirronSpoolError as error:
            return error.exit_code


def run(folder: Path, count: int, seed: int) -> Report:
    """``count`` cases, up to half of them at turning points, the others drawn from all; or all."""
    everything, rng = cases(), random.Random(seed)
    sample = everything
    if count < len(everything):
        turning = edges()
        turning = rng.sample(turning, min(len(turning), count // 2))
        sample = turning + rng.sample(everything, count - len(turning))
    clock = Clock(len(sample), "answers")
    with Vault() as vault:
        answers = Answers(folder, vault, seed)
        answers.run(sample, clock)
    answers.report.of, answers.report.seconds = len(everything), clock.seconds
    return answers.report


def edges() -> list[Case]:
    """The cases around each template's turning points, which no sample should miss."""
    return [
        Case(template, sent, ending)
        for template, ending in itertools.product(TEMPLATES, ENDINGS)
        for sent in sorted({template.body_at - 1, template.body_at, len(template.raw) - 1, len(template.raw)})
        if template.name != "garbage"
    ]


def main() -> int:
    """Run as the command line says."""
    options = arguments(__doc__, cases=500)
    with scratch(options.directory) as folder:
        print(run(folder, options.cases, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
