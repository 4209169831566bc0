"""The receiver's page in a real browser: by keyboard, on a phone's width, in the dark, and against other sites."""

from __future__ import annotations

import http.client
import json
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.answers import html
from support.browser import SAFETY_NET_S, look
from support.cli import Running, run_cli, spawn_cli
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches

TOKEN = "sk-of-the-page"
TAB, ENTER, SPACE = "\ue004", "\ue007", "\ue00d"

# WCAG 2.2, AA: the contrast of text, and the height that a finger hits.
CONTRAST = 4.5
FINGER_PX = 44

_TEXTS = """
const rgb = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const back = el => { for (; el; el = el.parentElement) {
  const c = rgb(getComputedStyle(el).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
  return [255, 255, 255]; };
return [...document.querySelectorAll("h1, p, label, input, button, a")].map(el => {
  const [a, b] = [light(rgb(getComputedStyle(el).color)), light(back(el))];
  return [el.outerHTML.slice(0, 60), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)]; });
"""


class Place:
    """A receiver in a process of its own."""

    def __init__(self, running: Running) -> None:
        self.running = running
        found = re.match(r"Receiving on (http://\S+:\d+),", running.wait_for_text("\n"))
        assert found is not None
        self.url = found[1]

    def call(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        with closing(http.client.HTTPConnection(self.url.removeprefix("http://"))) as client:
            client.request(method, path)
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())

    def begin(self) -> dict[str, Any]:
        return self.call("POST", "/api/cli/auth/device")[1]

    def poll(self, code: dict[str, Any]) -> tuple[int, object]:
        status, body = self.call("GET", f"/api/cli/auth/device?device_code={code['deviceCode']}")
        return status, body.get("error")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with spawn_cli("receive", "--store", tmp_path / "store", "--port", "0", "--token", TOKEN) as running:
        yield Place(running)
        running.send_signal(signal.SIGTERM)
        assert running.finish().returncode == 0


@pytest.fixture
def page(browser: Any) -> Any:
    return browser


def press(page: Any, *keys: str) -> None:
    """Press keys where the focus is."""
    page.switch_to.active_element.send_keys(*keys)


def focused(page: Any) -> str:
    element = page.switch_to.active_element
    return str(element.get_attribute("id") or element.text or element.tag_name)


def title(page: Any, begin: str) -> str:
    """Wait for the page whose title begins so; its text."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, SAFETY_NET_S).until(lambda page: page.title.startswith(begin))
    return str(page.find_element("tag name", "main").text)


def faults(page: Any) -> list[str]:
    """What the browser complains of, but for statuses: a blocked style, an icon that it looked for."""
    return [entry["message"] for entry in page.get_log("browser") if "status of 4" not in entry["message"]]


def test_sign_in_from_the_command_approve_by_keyboard_and_flush(
    place: Place, page: Any, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    sdk_batches(home / ".cirron/spool", 2, spans=TINY)
    with spawn_cli("auth", "login", "--url", place.url, "--no-browser", cwd=home, home=home) as login:
        found = re.search(r"Code: (\S+)\nOpen (\S+) ", login.wait_for_text("Waiting"))
        assert found is not None
        page.get(found[2])
        assert focused(page) == "user_code"
        # As it is typed by somebody who reads it off another screen.
        press(page, found[1].lower().replace("-", " "), TAB)
        assert focused(page) == "token"
        press(page, TOKEN, TAB)
        assert focused(page) == "Approve"
        press(page, SPACE)
        assert "You can close this page." in title(page, "Approved")
        assert faults(page) == []
        signed_in = login.finish()
        assert signed_in.returncode == 0, signed_in.stderr
    flushed = run_cli("flush", cwd=home, home=home)
    assert flushed.stdout == "Uploaded: 2  Failed: 0  Skipped: 0\n"


def test_enter_approves_and_deny_needs_no_token(place: Place, page: Any) -> None:
    code = place.begin()
    page.get(code["verificationUrlComplete"])
    assert focused(page) == "token"
    press(page, TOKEN, ENTER)
    title(page, "Approved")
    assert place.poll(code) == (200, None)
    code = place.begin()
    page.get(code["verificationUrlComplete"])
    press(page, TAB)
    press(page, TAB)
    assert focused(page) == "Deny"
    press(page, ENTER)
    assert "You can close this page." in title(page, "Denied")
    assert place.poll(code) == (400, "access_denied")


def test_what_is_wrong_has_the_focus_and_a_message(place: Place, page: Any) -> None:
    code = place.begin()
    page.get(code["verificationUrlComplete"])
    press(page, "wrong", ENTER)
    assert "not the token" in title(page, "Error: ")
    assert focused(page) == "token"
    page.get(f"{place.url}/device?user_code=ZZZZ-ZZZZ")
    press(page, TOKEN, ENTER)
    assert "unknown or expired" in title(page, "Error: ")
    assert focused(page) == "user_code"
    assert page.switch_to.active_element.get_attribute("aria-invalid") == "true"
    for _ in range(4):
        page.get(f"{place.url}/device?user_code=ZZZZ-ZZZZ")
        press(page, TOKEN, ENTER)
        title(page, "Error: ")
    page.get(code["verificationUrlComplete"])
    press(page, TOKEN, ENTER)
    assert "Wait" in title(page, "Too many attempts")
    assert faults(page) == []


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_and_can_be_read(place: Place, page: Any, width: int, dark: bool) -> None:
    look(page, width=width, dark=dark)
    code = place.begin()
    page.get(code["verificationUrlComplete"])
    for end in ("Approve a sign-in", "Error: ", "Approved"):
        title(page, end)
        assert page.execute_script("return document.documentElement.scrollWidth") == width
        for element, contrast in page.execute_script(_TEXTS):
            assert contrast >= CONTRAST, element
        for element in page.find_elements("css selector", "input:not([type=hidden]), button"):
            assert element.size["height"] >= FINGER_PX
        red, green, blue = re.findall(
            r"\d+", page.execute_script("return getComputedStyle(document.body).backgroundColor")
        )
        assert (int(red) + int(green) + int(blue) < 3 * 128) is dark
        if end != "Approved":
            press(page, TOKEN if end == "Error: " else "wrong", ENTER)
    assert faults(page) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["same site", "another site"])
def test_another_origin_can_neither_send_the_form_nor_frame_the_page(
    place: Place, page: Any, host: str
) -> None:
    code = place.begin()
    with ScriptedServer() as evil:
        page.get(f"{place.url}/device")
        # More than another origin can know: the token that belongs to this browser's cookie.
        form_token = page.find_element("name", "form_token").get_attribute("value")
        fields = {
            "user_code": code["userCode"], "token": TOKEN, "decision": "approve", "form_token": form_token,
        }  # fmt: skip
        inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
        form = f'<form method="post" action="{place.url}/device">{inputs}<button>x</button></form>'
        evil.on("GET", "/form", html(text=f"<title>evil</title>{form}"))
        evil.on("GET", "/frame", html(text=f'<title>evil</title><iframe src="{place.url}/device"></iframe>'))
        page.get(f"http://{host}:{evil.port}/form")
        page.find_element("tag name", "button").click()
        assert "not sent from this page" in title(page, "Error: ")
        assert place.poll(code) == (400, "authorization_pending")
        page.get(f"http://{host}:{evil.port}/frame")
        page.switch_to.frame(0)
        assert "Approve" not in page.page_source
