"""A person at the page of a receiver: approve or deny the code of a sign-in, as a browser would."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from html import unescape
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from urllib.parse import urlencode

_SAFETY_NET_S = 60.0


@dataclass(frozen=True)
class Page:
    """The status of a page, and its HTML."""

    status: int
    html: str


def approve(url: str, user_code: str, token: str | None = None) -> Page:
    """Approve ``user_code`` at the receiver with this origin. Blocks. ``token`` is the receiver's own."""
    return send_form(url, user_code, "approve", token)


def deny(url: str, user_code: str) -> Page:
    """Deny ``user_code`` at the receiver with this origin. Blocks."""
    return send_form(url, user_code, "deny")


def send_form(url: str, user_code: str, decision: str, token: str | None = None) -> Page:
    """Open the page, fill in its form and press a button."""
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=_SAFETY_NET_S)) as browser:
        browser.request("GET", "/device")
        shown = browser.getresponse()
        html = shown.read().decode()
        found = re.search(r'name="form_token" value="([^"]*)"', html)
        assert found is not None, html
        cookies = SimpleCookie(shown.headers["Set-Cookie"])
        fields = {"form_token": unescape(found[1]), "user_code": user_code, "decision": decision}
        if token is not None:
            fields["token"] = token
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items()),
            "Origin": url,
        }
        browser.request("POST", "/device", urlencode(fields), headers)
        answer = browser.getresponse()
        return Page(answer.status, answer.read().decode())
