"""``inspect --html`` in a real browser, opened from the disk: its figures, a phone's width, a clean console."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.browser import look
from support.cli import run_cli
from support.spools import TINY, sdk_batches


@pytest.mark.parametrize(("width", "dark"), [(360, True), (1280, False)])
def test_the_page_of_a_spool(browser: Any, tmp_path: Path, width: int, dark: bool) -> None:
    spool = tmp_path / "<b>run</b>" / "spool"
    batches = sdk_batches(spool, 5, spans=TINY)
    page = tmp_path / "page.html"
    done = run_cli("inspect", "--dir", spool, "--html", page)
    assert (done.returncode, done.stdout) == (0, f"Success: The page is {page}.\n")
    figures = json.loads(run_cli("inspect", "--dir", spool, "--summary", "--json").stdout)["summary"]
    look(browser, width=width, dark=dark)
    browser.get(page.as_uri())
    assert str(spool) in browser.find_element("tag name", "main").text
    rows = browser.find_elements("css selector", "tbody td:last-child")
    assert [row.text for row in rows] == [batch.name for batch in batches]
    bars = browser.find_elements("tag name", "rect")
    assert len(bars) == len(figures["bytesOverTime"])
    highest = max(range(len(bars)), key=lambda number: float(bars[number].get_attribute("height")))
    assert figures["bytesOverTime"][highest] == max(figures["bytesOverTime"])
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    assert browser.get_log("browser") == []
