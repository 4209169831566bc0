"""The cells of a real Jupyter kernel: the command, the library with its display, and the notebook of the docs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

from support.answers import Answer
from support.cli import clean_environment, command_line
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches

client = pytest.importorskip("jupyter_client", reason="no Jupyter client is installed")
pytest.importorskip("ipykernel", reason="no Jupyter kernel is installed")


NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"


@contextmanager
def kernel(home: Path, **env: str) -> Iterator[Any]:
    manager, channels = client.manager.start_new_kernel(env=clean_environment(home) | env, cwd=str(home))
    try:
        yield channels
    finally:
        channels.stop_channels()
        manager.shutdown_kernel(now=True)


class Cell:
    """The outputs of a cell: printed ``text``, ``shown`` displays as they are at the end, and the ``value``."""

    def __init__(self, channels: Any, code: str) -> None:
        self.text = ""
        self.shown: dict[str, dict[str, str]] = {}
        self.updates = 0
        self.value: dict[str, str] = {}
        channels.execute_interactive(code, output_hook=self._collect, timeout=60)

    def _collect(self, message: dict[str, Any]) -> None:
        kind, content = message["header"]["msg_type"], message["content"]
        assert kind != "error", content
        if kind == "stream":
            self.text += content["text"]
        elif kind in ("display_data", "update_display_data"):
            self.updates += kind == "update_display_data"
            self.shown[content["transient"]["display_id"]] = content["data"]
        elif kind == "execute_result":
            self.value = content["data"]


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
        shown = Cell(channels, f"!{command} --api-url {platform.url}").text
    assert "Uploaded: 3  Failed: 0  Skipped: 0" in shown
    assert "\x1b" not in shown
    assert "━" not in shown


@pytest.mark.filterwarnings("ignore")  # of the kernel's libraries
def test_the_notebook_of_the_docs(tmp_path: Path) -> None:
    batches = sdk_batches(tmp_path / ".cirron" / "spool", 3, spans=TINY)
    cells = [
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    with ScriptedServer() as platform:
        env = {"CIRRON_API_ENDPOINT": platform.url, "CIRRON_API_KEY": "sk-try-it"}
        with kernel(tmp_path, **env) as channels:
            look, seen, part, rest = (Cell(channels, code) for code in cells)
    assert all(f"<td>{batch.name}</td>" in look.value["text/html"] for batch in batches)
    assert (look.shown, look.text) == ({}, "")
    assert "<caption" in seen.value["text/html"]
    assert "<details><summary>" in seen.value["text/html"]
    # One display, which was drawn again, and the result behind it.
    (display,) = part.shown.values()
    assert part.updates >= 1
    assert '<progress max="' in display["text/html"]
    assert "1/1 batches" in display["text/plain"]
    assert "Ended after " in display["text/plain"]
    assert "<th scope=row>Uploaded</th><td>1</td>" in part.value["text/html"]
    (display,) = rest.shown.values()
    assert "2/2 batches" in display["text/plain"]
    assert rest.text == "2 uploaded, 0 left\n"


@pytest.mark.filterwarnings("ignore")
def test_a_cell_shows_the_warnings_and_a_listener_replaces_the_display(tmp_path: Path) -> None:
    (batch,) = sdk_batches(tmp_path / ".cirron" / "spool", 1, spans=TINY)
    rejected = Answer(422, json.dumps({"error": "<b>no</b>"}))
    with ScriptedServer(rejected) as platform:
        env = {"CIRRON_API_ENDPOINT": platform.url, "CIRRON_API_KEY": "sk-try-it"}
        with kernel(tmp_path, **env) as channels:
            Cell(channels, "from cirron_spool import flush_spool")
            failed = Cell(channels, "result = await flush_spool()")
            own = Cell(channels, "await flush_spool(on_event=lambda event: print(type(event).__name__))")
    (display,) = failed.shown.values()
    assert "&lt;b&gt;no&lt;/b&gt;" in display["text/html"]
    assert "<b>" not in display["text/html"]
    assert batch.name not in failed.value.get("text/html", "")
    assert own.shown == {}
    assert own.text.splitlines()[0] == "Started"
