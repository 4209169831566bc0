"""The corpus of raw answers against real flushes, with both of aiohttp's parsers; the oracle against plain cases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from answer_corpus import CHUNKED, HTML, JSON, TEXT, YES, chunks, corpus, http, sized
from answer_oracle import allowed
from client_answers import runs

HERE = Path(__file__).parent
# Each of the 1,093 answers whole, then others. The parser in Python serves only where aiohttp has no wheel.
RUNS = {"C": 1500, "Python": 1100}


@pytest.mark.parametrize("parser", ["C", "Python"])
def test_no_answer_deletes_a_batch_that_may_not(parser: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "AIOHTTP_NO_EXTENSIONS"}
    if parser == "Python":
        environment["AIOHTTP_NO_EXTENSIONS"] = "1"
    done = subprocess.run(
        [sys.executable, str(HERE / "client_answers.py"), "--runs", str(RUNS[parser])],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    print(done.stdout)
    assert f"{RUNS[parser]} runs of " in done.stdout
    assert f"aiohttp's parser in {parser}," in done.stdout
    assert "0 problems" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_the_corpus_is_large_and_every_answer_in_it_another() -> None:
    cases = corpus()
    assert len(cases) > 1000
    assert len({case.name for case in cases}) == len({case.raw for case in cases}) == len(cases)
    assert sum(allowed(case.raw, "close").must for case in cases) > 200
    assert sum(not allowed(case.raw, "close").may for case in cases) > 500
    assert sum(len(list(runs(case))) for case in cases) > 100_000


MUST, MAY, NO = (True, True), (True, False), (False, False)


@pytest.mark.parametrize(
    ("raw", "opened", "closed", "reset"),
    [
        (sized(JSON), MUST, MUST, MAY),
        (http(line="HTTP/1.1 204 No Content"), MUST, MUST, MAY),
        (http(CHUNKED, body=chunks(YES)), MUST, MUST, MAY),
        (sized(HTML, body=b""), MUST, MUST, MAY),
        (http(TEXT, body=b"accep"), NO, MUST, NO),
        (http(JSON, body=YES[:-1]), NO, NO, NO),
        (sized(JSON)[:-1], NO, NO, NO),
        (sized(JSON).replace(b"\r\n", b"\n"), MAY, MAY, MAY),
        (sized(JSON) + sized(JSON), MAY, MAY, MAY),
        (sized(HTML), NO, NO, NO),
        (sized(line="RTSP/1.0 200 OK"), NO, NO, NO),
        (http(CHUNKED, body=b"11\r\n" + YES + b"\r\n0\r\n\r\n"), NO, NO, NO),
        (http("Transfer-Encoding: identity", TEXT, body=b"accepted"), NO, NO, NO),
        (http("Content-Length: 16", "Content-Length: 16", body=YES), NO, NO, NO),
        (sized(body=b'{"error":"disk full"}'), NO, NO, NO),
        (sized(line="HTTP/1.1 503 Busy"), NO, NO, NO),
    ],
)
def test_the_oracle_on_plain_cases(
    raw: bytes, opened: tuple[bool, bool], closed: tuple[bool, bool], reset: tuple[bool, bool]
) -> None:
    assert [allowed(raw, ending) for ending in ("open", "close", "reset")] == [opened, closed, reset]
