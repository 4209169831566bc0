"""``!cirron-spool flush`` in a cell of a real Jupyter kernel, which gives its commands a pseudo-terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

from support.answers import Answer
from support.cli import clean_environment, command_line
from support.scripted import ScriptedServer

client = pytest.importorskip("jupyter_client", reason="no Jupyter client is installed")
pytest.importorskip("ipykernel", reason="no Jupyter kernel is installed")


@contextmanager
def kernel(home: Path) -> Iterator[Any]:
    manager, channels = client.manager.start_new_kernel(env=clean_environment(home))
    try:
        yield channels
    finally:
        channels.stop_channels()
        manager.shutdown_kernel(now=True)


def run_cell(channels: Any, code: str) -> str:
    """The text output of a cell."""
    texts: list[str] = []

    def collect(message: dict[str, Any]) -> None:
        assert message["header"]["msg_type"] != "error", message["content"]
        if message["header"]["msg_type"] == "stream":
            texts.append(message["content"]["text"])

    channels.execute_interactive(code, output_hook=collect, timeout=60)
    return "".join(texts)


@pytest.mark.filterwarnings("ignore")  # of the kernel's libraries
def test_a_cell_gets_lines_and_no_control_sequences(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    for digit in "abc":
        (spool / f"{1776486598051509000:020d}-{digit * 32}.json").write_text("{}", encoding="utf-8")
    command = " ".join(
        map(quote, command_line(["flush", "--dir", spool, "--token-file", tmp_path / "token"]))
    )
    (tmp_path / "token").write_text("sk-try-it", encoding="utf-8")
    with ScriptedServer(Answer(503), Answer()) as platform, kernel(tmp_path) as channels:
        shown = run_cell(channels, f"!{command} --api-url {platform.url}")
    assert "Uploaded: 3  Failed: 0  Skipped: 0" in shown
    assert "\x1b" not in shown
    assert "━" not in shown
