"""``traces view --html`` in a real browser, opened from the disk: its numbers, its drawings, search, keys, a phone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.browser import SAFETY_NET_S, look
from support.cli import run_cli
from support.runs import lay, mark, span, traced_run

pytest.importorskip("plotly", reason="plotly is not installed")
WebDriverWait = pytest.importorskip(
    "selenium.webdriver.support.ui", reason="selenium is not installed"
).WebDriverWait

EVIL = "</script><img src=x onerror=alert(1)>\u2028<!--"


@pytest.mark.parametrize(("width", "dark"), [(360, True), (1280, False)])
def test_the_page_of_a_run(browser: Any, tmp_path: Path, width: int, dark: bool) -> None:
    spool = traced_run(tmp_path / "run", epochs=3, steps=25)
    page = tmp_path / "page.html"
    done = run_cli("traces", "view", "--dir", spool, "--html", page)
    assert (done.returncode, done.stdout) == (0, f"Success: The page is {page}.\n"), done.stderr
    viewed = json.loads(run_cli("traces", "view", "--dir", spool, "--json").stdout)["sessions"]
    look(browser, width=width, dark=dark)
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.drawn") == "1"
    data = browser.execute_script("return JSON.parse(document.getElementById('trace').textContent)")
    for ours, theirs in zip(data["sessions"], viewed, strict=True):
        assert {key: ours[key] for key in theirs} == theirs
    (session,) = data["sessions"]
    assert session["timeline"]["shown"] == session["spans"]
    bars = browser.execute_script("return document.querySelector('.chart').data[0].x")
    assert len(bars) == session["spans"]
    names = [each.text for each in browser.find_elements("css selector", ".tree .name")]
    assert names[:2] == ["cirron.session", "epoch 0"]
    browser.find_element("id", "search").send_keys("epoch")
    hits = "return document.getElementById('hits').textContent"
    found = WebDriverWait(browser, SAFETY_NET_S).until(lambda each: each.execute_script(hits))
    assert found == "3 lines of the tree"
    span_of = "const r = document.querySelector('.chart')._fullLayout.xaxis.range; return r[1] - r[0]"
    before = browser.execute_script(span_of)
    browser.find_element("css selector", ".chart").send_keys("+")
    assert browser.execute_script(span_of) == pytest.approx(before / 2)
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return document.querySelectorAll('details:not([open])').length") == 0
    card = "return getComputedStyle(document.querySelector('.chart')).backgroundColor"
    assert browser.execute_script(card) == "rgb(255, 255, 255)"
    browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert (browser.execute_script(card) == "rgb(255, 255, 255)") == (not dark)
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    assert browser.get_log("browser") == []


def test_a_cut_table_says_so_and_times_have_a_sign(browser: Any, tmp_path: Path) -> None:
    spans = [
        span("r", None, "cirron.session", 2_000_000_000, 9_000_000_000),
        span("b", "r", "early", 500_000_000, 600_000_000),
    ]
    spans += [
        span(f"s{number}", "r", f"step{number}", 3_000_000_000 + number, 3_000_000_000 + number)
        for number in range(600)
    ]
    spans += [
        span(f"e{number}", "r", "epoch", 5_000_000_000 + number, 5_000_000_000 + number)
        for number in range(310)
    ]
    marks = [mark(f"m{number}", "r", "loss", float(number), 3_000_000_000 + number) for number in range(501)]
    lay(tmp_path / "spool", 1, {"spans": spans, "marks": marks})
    page = tmp_path / "page.html"
    done = run_cli("traces", "view", "--dir", tmp_path / "spool", "--html", page)
    assert done.returncode == 0, done.stderr
    browser.get(page.as_uri())
    tables = browser.execute_script(
        "return [...document.querySelectorAll('details')]"
        ".filter((each) => each.querySelector(':scope > .wide table'))"
        ".map((each) => [each.querySelectorAll('tbody tr').length, each.querySelector('.note')?.textContent])"
    )
    assert tables == [
        [500, "Not in this table: the last 412 of 912 rows."],
        [500, "Not in this table: the last 103 of 603 rows."],
        [500, "Not in this table: the last 1 of 501 rows."],
    ]
    cells = browser.execute_script("return document.querySelector('tbody tr').textContent")
    assert "early" in cells
    assert "-1.5 s" in cells
    notes = browser.execute_script(
        "return [...document.querySelectorAll('.note')].map((each) => each.textContent).join(' ')"
    )
    assert "Later epochs have none: 10." in notes
    assert browser.get_log("browser") == []


def test_no_text_of_a_run_is_markup(browser: Any, tmp_path: Path) -> None:
    spans = [span("r", None, "cirron.session", 0, 9), span("e", "r", EVIL, 1, 5)]
    lay(
        tmp_path / EVIL.partition("/")[0] / "spool",
        1,
        {"spans": spans, "marks": [mark("m", "e", EVIL, 1.0, 2)]},
    )
    page = tmp_path / "page.html"
    done = run_cli("traces", "view", "--dir", tmp_path / EVIL.partition("/")[0] / "spool", "--html", page)
    assert done.returncode == 0, done.stderr
    browser.get(page.as_uri())
    names = [each.text for each in browser.find_elements("css selector", ".tree .name")]
    assert [name.replace("\u2028", "") for name in names][1].startswith("</script><img src=x")
    assert browser.find_elements("tag name", "img") == []
    assert browser.get_log("browser") == []


def test_wrong_arguments_are_one_line(tmp_path: Path) -> None:
    for args, line in (
        (("--json", "--html", "x.html"), "--json and --html exclude each other. Choose one."),
        (("--open",), "--open is for a page. Add --html FILE, or leave it out."),
        (("--open", "--html", "-"), "--open is for a page. Add --html FILE, or leave it out."),
    ):
        lay(tmp_path / "spool", 1, {"spans": [span("r", None, "cirron.session", 0, 9)]})
        done = run_cli("traces", "view", "--dir", "spool", *args, cwd=tmp_path)
        assert (done.returncode, f"Error: {line}\n" in done.stderr) == (2, True)


def test_a_page_on_standard_output(tmp_path: Path) -> None:
    lay(tmp_path / "spool", 1, {"spans": [span("r", None, "cirron.session", 0, 9)]})
    done = run_cli("traces", "view", "--dir", "spool", "--html", "-", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("<!doctype html>")
    assert done.stdout.endswith("</html>\n")
    assert [each.name for each in tmp_path.iterdir()] == ["spool"]
