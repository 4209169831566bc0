"""A flush in an application that uses OpenTelemetry has a span and metrics; in any other it costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from support.answers import Answer
from support.cli import clean_environment
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches

HERE = Path(__file__).parent


def run(*args: str, home: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *args],
        env=clean_environment(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(
    find_spec("opentelemetry.sdk") is None if find_spec("opentelemetry") else True, reason="no SDK"
)
def test_each_flush_has_a_span_and_is_counted(tmp_path: Path) -> None:
    spools = [tmp_path / name for name in ("good", "bad", "none")]
    for spool in spools:
        sdk_batches(spool, 2, spans=TINY)
    good, bad, none = map(str, spools)
    with ScriptedServer(Answer(503), Answer(200), Answer(200), Answer(200), Answer(418)) as server:
        port = int(server.url.rpartition(":")[2])
        shown = json.loads(run(str(HERE / "otel_flushes.py"), server.url, good, bad, none, home=tmp_path))
    spans = {
        span["attributes"]["file.directory"]: span for span in shown["spans"] if span["name"] == "flush spool"
    }
    assert {span["parent"] for span in spans.values()} == {"training"}

    attributes = spans[good]["attributes"]
    assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", port)
    assert (attributes["cirron.spool.batches.uploaded"], attributes["cirron.spool.exit_code"]) == (2, 0)
    assert "error.type" not in attributes
    assert [
        (event["name"], event["attributes"]["http.response.status_code"]) for event in spans[good]["events"]
    ] == [("cirron.spool.batch.retry", 503)]
    assert spans[good]["status"]["status_code"] == "UNSET"

    attributes = spans[bad]["attributes"]
    assert (attributes["error.type"], attributes["cirron.spool.batches.failed"]) == ("418", 1)
    assert spans[bad]["status"]["status_code"] == "ERROR"
    assert spans[bad]["status"]["description"].startswith("Unexpected HTTP 418 for ")

    assert spans[none]["attributes"]["error.type"] == "NotAuthenticatedError"
    assert spans[none]["status"]["status_code"] == "ERROR"
    assert "sk-otel-secret" not in json.dumps(shown)

    metrics = {
        metric["name"]: metric
        for resource in shown["metrics"]["resource_metrics"]
        for scope in resource["scope_metrics"]
        if scope["scope"]["name"] == "cirron_spool"
        for metric in scope["metrics"]
    }
    units = {name: metric["unit"] for name, metric in metrics.items()}
    assert units == {
        "cirron.spool.batches": "{batch}",
        "cirron.spool.uploaded": "By",
        "cirron.spool.sent": "By",
        "cirron.spool.retries": "{retry}",
        "cirron.spool.flush.duration": "s",
    }
    outcomes = {
        point["attributes"]["cirron.spool.outcome"]: point["value"]
        for point in points(metrics["cirron.spool.batches"])
    }
    assert outcomes == {"uploaded": 3, "failed": 1}
    assert [point["value"] for point in points(metrics["cirron.spool.retries"])] == [1]
    assert sum(point["count"] for point in points(metrics["cirron.spool.flush.duration"])) == 3


@pytest.mark.skipif(
    find_spec("opentelemetry.sdk") is None if find_spec("opentelemetry") else True, reason="no SDK"
)
@pytest.mark.parametrize("broken", ["on_start", "on_end", "should_sample", "get_meter", "add", ""])
def test_a_broken_telemetry_ends_no_flush(tmp_path: Path, broken: str) -> None:
    sdk_batches(tmp_path / "spool", 2, spans=TINY)
    with ScriptedServer() as platform:
        done = subprocess.run(
            [sys.executable, HERE / "otel_broken.py", platform.url, tmp_path / "spool", broken],
            env=clean_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "2 uploaded, then SpoolError\n"), done.stderr
    # One warning for each flush with a failure.
    assert done.stderr.count("OpenTelemetry failed") == {"": 0, "add": 1}.get(broken, 2), done.stderr


def points(metric: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = metric["data"]["data_points"]
    return found


def test_a_flush_does_not_import_opentelemetry(tmp_path: Path) -> None:
    """Its import takes a tenth of a second, and most applications do not use it."""
    (tmp_path / "spool").mkdir()
    program = (
        "import asyncio, sys, cirron_spool; "
        f"asyncio.run(cirron_spool.flush_spool({str(tmp_path / 'spool')!r})); "
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus_client'))])"
    )
    assert run("-c", program, home=tmp_path) == "[]\n"
