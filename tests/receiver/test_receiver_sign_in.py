from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest

from support.device import Page, approve, deny, send_form

from .conftest import TOKEN, Peer, Start

pytestmark = pytest.mark.anyio

DEVICE = "/api/cli/auth/device"
WRONG_CODE = "ZZZZ-ZZZZ"


async def begin(peer: Peer) -> dict[str, Any]:
    answer = await peer.request("POST", DEVICE, json={})
    assert answer.status == 200
    return answer.body


async def poll(peer: Peer, started: dict[str, Any]) -> Any:
    return await peer.request("GET", DEVICE, params={"device_code": started["deviceCode"]})


async def press(peer: Peer, user_code: str, decision: str = "approve", token: str | None = TOKEN) -> Page:
    return await asyncio.to_thread(send_form, peer.receiver.url, user_code, decision, token)


async def signed_in(peer: Peer, token: str | None = TOKEN) -> dict[str, Any]:
    started = await begin(peer)
    page = await press(peer, started["userCode"], token=token)
    assert page.status == 200
    answer = await poll(peer, started)
    assert answer.status == 200
    body: dict[str, Any] = answer.body
    return body


async def test_a_sign_in_from_its_start_to_a_stored_batch(start: Start) -> None:
    async with start(verbose=True) as peer:
        started = await begin(peer)
        assert set(started) == {
            "deviceCode", "userCode", "verificationUrl", "verificationUrlComplete", "expiresIn", "interval",
        }  # fmt: skip
        assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", started["userCode"])
        assert started["verificationUrl"] == f"{peer.receiver.url}/device"
        assert (
            started["verificationUrlComplete"]
            == f"{peer.receiver.url}/device?user_code={started['userCode']}"
        )
        assert (started["expiresIn"], started["interval"]) == (900, 2)
        waiting = await poll(peer, started)
        assert (waiting.status, waiting.body) == (400, {"error": "authorization_pending"})
        page = await asyncio.to_thread(approve, peer.receiver.url, started["userCode"], TOKEN)
        assert page.status == 200
        assert "You can close this page." in page.html
        answer = await poll(peer, started)
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert set(answer.body) == {"accessToken", "refreshToken", "tokenType", "expiresIn", "user"}
        assert (answer.body["tokenType"], answer.body["expiresIn"]) == ("Bearer", 3600)
        assert set(answer.body["user"]) == {"email", "name"}
        assert (await poll(peer, started)).body == answer.body  # the first answer can be lost
        access = answer.body["accessToken"]
        assert (await peer.post(b"{}", token=access)).status == 200
        assert (await peer.post(b"{}", token=answer.body["refreshToken"])).status == 401
        status = await peer.request("GET", "/api/cli/status", headers={"Authorization": f"Bearer {access}"})
        assert status.body["valid"] is True
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", status.body["token"]["expiresAt"])
        totals = peer.receiver.journal.totals()
        assert totals == "Received 1 batch (2 B), 1 sign-in, 0 duplicates, 1 refused (1 for the token)."
        said = "\n".join(peer.said)
        for line in ("Sign-in started from", "Sign-in approved from", "Signed in 127.0.0.1:"):
            assert said.count(line) == 1
        for secret in (TOKEN, access, answer.body["refreshToken"], *started.values()):
            assert len(str(secret)) < 8 or str(secret) not in said


async def test_a_denied_sign_in(start: Start) -> None:
    async with start() as peer:
        started = await begin(peer)
        page = await asyncio.to_thread(deny, peer.receiver.url, started["userCode"])
        assert page.status == 200
        assert "Denied" in page.html
        for _ in range(2):
            answer = await poll(peer, started)
            assert (answer.status, answer.body) == (400, {"error": "access_denied"})
        assert (await press(peer, started["userCode"])).status == 404


async def test_a_client_that_polls_too_fast(start: Start) -> None:
    async with start(device_interval_s=30) as peer:
        started = await begin(peer)
        assert (await poll(peer, started)).status == 400
        for seconds in ("35", "40"):
            answer = await poll(peer, started)
            assert (answer.status, answer.body) == (429, {"error": "slow_down"})
            assert answer.headers["Retry-After"] == seconds
        # The decision is told at once, whatever the pace.
        await press(peer, started["userCode"])
        assert (await poll(peer, started)).status == 200
        assert peer.receiver.journal.refused == 0


async def test_codes_that_are_expired_or_unknown(start: Start) -> None:
    async with start(device_code_s=0) as peer:
        started = await begin(peer)
        answer = await poll(peer, started)
        assert (answer.status, answer.body) == (400, {"error": "expired_token"})
        page = await press(peer, started["userCode"])
        assert page.status == 404
        assert "unknown or expired" in page.html
    async with start() as peer:
        answer = await poll(peer, {"deviceCode": "unknown"})
        assert (answer.status, answer.body) == (400, {"error": "expired_token"})


@pytest.mark.parametrize("query", ["", "?", "?device_code", "?x=y", "?device_code=a&device_code=b"])
async def test_polls_that_make_no_sense(start: Start, query: str) -> None:
    async with start() as peer:
        answer = await peer.request("GET", DEVICE + query)
        assert answer.status == 400
        assert answer.body["error"] != "authorization_pending"


async def test_an_issued_token_that_has_expired(start: Start) -> None:
    async with start(access_token_s=0) as peer:
        tokens = await signed_in(peer)
        assert (await peer.post(b"{}", token=tokens["accessToken"])).status == 401
        assert (await peer.post(b"{}")).status == 200


async def test_the_refresh_token_of_a_sign_in_rotates(start: Start) -> None:
    async with start() as peer:
        tokens = await signed_in(peer)
        used = tokens["refreshToken"]
        for number in range(3):
            answer = await peer.request("POST", "/api/cli/auth/refresh", json={"refresh_token": used})
            assert answer.status == 200
            assert (await peer.post(b"{}", f"a{number}", token=answer.body["access_token"])).status == 200
            again = await peer.request("POST", "/api/cli/auth/refresh", json={"refresh_token": used})
            assert again.status == 401
            used = answer.body["refresh_token"]


async def test_refresh_tokens_work_once_without_a_token_too(start: Start) -> None:
    async with start(token=None) as peer:
        for status in (200, 401):
            answer = await peer.request("POST", "/api/cli/auth/refresh", json={"refresh_token": "any"})
            assert answer.status == status


async def test_two_sign_ins_at_once_are_two(start: Start) -> None:
    async with start() as peer:
        first, second = await signed_in(peer), await signed_in(peer)
        assert first["accessToken"] != second["accessToken"]
        for number, tokens in enumerate((first, second)):
            assert (await peer.post(b"{}", f"a{number}", token=tokens["accessToken"])).status == 200


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Host": "traces.example:8787"}, "http://traces.example:8787/device"),
        ({"Host": "traces.example", "X-Forwarded-Proto": "https"}, "https://traces.example/device"),
        ({"Host": "[::1]:80"}, "http://[::1]:80/device"),
        ({"Host": "traces.example", "X-Forwarded-Proto": "javascript"}, "http://traces.example/device"),
        ({"Host": 'x"><script>'}, None),
        ({"Host": "a@b"}, None),
        ({"Host": "a/b"}, None),
    ],
)
async def test_the_address_of_the_page_is_the_one_that_the_client_uses(
    start: Start, fields: dict[str, str], expected: str | None
) -> None:
    async with start() as peer:
        answer = await peer.request("POST", DEVICE, headers=fields)
        assert (answer.status, answer.body.get("verificationUrl")) == (200 if expected else 400, expected)


async def test_an_http_1_0_client_without_a_host(start: Start) -> None:
    async with start() as peer:
        reader, writer = await peer.connect()
        writer.write(f"POST {DEVICE} HTTP/1.0\r\n\r\n".encode())
        assert f'"{peer.receiver.url}/device"'.encode() in await reader.read()
        writer.close()


async def test_waiting_sign_ins_are_bounded(start: Start) -> None:
    async with start() as peer:
        for _ in range(32):
            await begin(peer)
        answer = await peer.request("POST", DEVICE)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "60")


async def test_a_receiver_that_nobody_can_approve_for(start: Start) -> None:
    async with start(token=None, refresh_token="first") as peer:
        assert (await peer.request("POST", DEVICE)).status == 403
        for method in ("GET", "POST"):
            answer = await form(peer, {"user_code": WRONG_CODE}, method=method)
            assert answer.status == 403
            assert "without --token" in answer.html
            assert "<form" not in answer.html


# --- the page


class Reader(HTMLParser):
    """The elements of a page, each with its attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def field(self, name: str) -> dict[str, str | None]:
        [found] = [attrs for tag, attrs in self.elements if tag == "input" and attrs.get("name") == name]
        return found


class Shown:
    def __init__(self, status: int, headers: Any, html: str) -> None:
        self.status = status
        self.headers = headers
        self.html = html
        self.read = Reader(html)

    @property
    def cookie(self) -> str:
        return str(self.headers["Set-Cookie"].partition(";")[0])


async def form(
    peer: Peer,
    fields: dict[str, str] | str | None = None,
    *,
    method: str = "POST",
    query: str = "",
    **headers: str,
) -> Shown:
    data = fields if isinstance(fields, str) or fields is None else urlencode(fields)
    head = {name.replace("_", "-"): value for name, value in headers.items()}
    if method == "POST":
        head.setdefault("Content-Type", "application/x-www-form-urlencoded")
    async with peer.session.request(
        method, f"{peer.receiver.url}/device{query}", data=data, headers=head
    ) as answer:
        return Shown(answer.status, answer.headers, await answer.text())


async def test_the_page_is_closed_to_everything_around_it(start: Start) -> None:
    async with start() as peer:
        page = await form(peer, method="GET", query="?user_code=wdjbmjht")
        assert page.status == 200
        expected = {
            "Content-Type": "text/html; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "same-origin",
        }
        assert {name: page.headers[name] for name in expected} == expected
        policy = page.headers["Content-Security-Policy"]
        for rule in (
            "default-src 'none'",
            "frame-ancestors 'none'",
            "form-action 'self'",
            "base-uri 'none'",
        ):
            assert rule in policy
        assert "unsafe" not in policy
        cookie = page.headers["Set-Cookie"]
        assert re.fullmatch(r"\w+=[\w-]{43}; Path=/device; HttpOnly; SameSite=Strict", cookie)
        assert "script" not in page.html
        for tag, attrs in page.read.elements:
            assert "style" not in attrs, tag
            for name in ("src", "href", "action"):
                assert attrs.get(name, "/device") in ("/device", "data:,")
        behind_tls = await form(peer, method="GET", X_Forwarded_Proto="https")
        assert behind_tls.headers["Set-Cookie"].endswith("; Secure")
        async with peer.session.head(f"{peer.receiver.url}/device") as answer:
            assert (answer.status, await answer.read()) == (200, b"")


async def test_every_field_of_the_page_has_a_label_and_a_hint(start: Start) -> None:
    async with start() as peer:
        page = await form(peer, method="GET", query="?user_code=wdjbmjht")
        labels = {attrs["for"] for tag, attrs in page.read.elements if tag == "label"}
        ids = {attrs["id"] for _, attrs in page.read.elements if "id" in attrs}
        shown = [
            attrs for tag, attrs in page.read.elements if tag == "input" and attrs.get("type") != "hidden"
        ]
        assert labels == {attrs["id"] for attrs in shown} == {"user_code", "token"}
        assert all({*(attrs["aria-describedby"] or "").split()} <= ids for attrs in shown)
        assert page.read.field("user_code")["value"] == "WDJB-MJHT"
        assert page.read.field("token")["type"] == "password"
        assert "autofocus" in page.read.field("token")
        assert ("html", {"lang": "en"}) in page.read.elements
        empty = await form(peer, method="GET")
        assert empty.read.field("user_code")["value"] == ""
        assert "autofocus" in empty.read.field("user_code")


@pytest.mark.parametrize(
    "code", ['"><script>alert(1)</script>', "&lt;b&gt;", "' onfocus=alert(1) x='", "%00%ff", "ü" * 800]
)
async def test_a_code_in_the_address_cannot_become_html(start: Start, code: str) -> None:
    async with start() as peer:
        page = await form(peer, method="GET", query="?" + urlencode({"user_code": code}))
        assert page.status == 200
        assert re.fullmatch(r"[A-Z0-9-]*", page.read.field("user_code")["value"] or "")
        assert [tag for tag, _ in page.read.elements if tag not in PAGE_TAGS] == []
        assert all(name in FIELD_ATTRIBUTES for name in page.read.field("user_code"))


PAGE_TAGS = {
    *("html", "head", "meta", "title", "link", "style", "body", "main", "h1", "p", "form", "input", "label"),
    *("div", "button"),
}
FIELD_ATTRIBUTES = {
    *("id", "name", "value", "required", "maxlength", "autocomplete", "autocapitalize", "spellcheck"),
    *("autofocus", "aria-describedby", "aria-invalid"),
}


async def test_without_a_token_the_page_says_that_anyone_may_approve(start: Start) -> None:
    async with start(token=None) as peer:
        page = await form(peer, method="GET")
        assert "anyone who can reach this page may approve" in page.read.text
        assert 'name="token"' not in page.html
        assert (await signed_in(peer, token=None))["accessToken"]


async def ready(peer: Peer) -> tuple[dict[str, str], dict[str, str]]:
    """The fields and headers of a form that would be accepted."""
    started = await begin(peer)
    page = await form(peer, method="GET")
    form_token = page.read.field("form_token")["value"]
    assert form_token
    fields = {
        "form_token": form_token, "user_code": started["userCode"], "decision": "approve", "token": TOKEN,
    }  # fmt: skip
    return fields, {"Cookie": page.cookie}


@pytest.mark.parametrize(
    ("fields", "headers", "status"),
    [
        ({}, {}, 200),
        ({}, {"Sec_Fetch_Site": "same-origin"}, 200),
        ({}, {"Sec_Fetch_Site": "cross-site"}, 403),
        ({}, {"Sec_Fetch_Site": "same-site"}, 403),
        ({}, {"Origin": "http://evil.example"}, 403),
        ({}, {"Origin": "null"}, 403),
        ({}, {"Cookie": ""}, 403),
        ({}, {"Cookie": "cirron_spool_device=" + "x" * 43}, 403),
        ({}, {"Cookie": "cirron_spool_device=short"}, 403),
        ({"form_token": ""}, {}, 403),
        ({"form_token": "0" * 64}, {}, 403),
        ({"form_token": "ü"}, {}, 403),
        ({"token": ""}, {}, 403),
        ({"token": TOKEN + "x"}, {}, 403),
        ({"token": f" {TOKEN} "}, {}, 200),
        ({"decision": ""}, {}, 400),
        ({"decision": "x"}, {}, 400),
        ({"user_code": ""}, {}, 400),
        ({"user_code": WRONG_CODE}, {}, 404),
        ({}, {"Content_Type": "text/plain"}, 415),
        ({}, {"Content_Type": "application/json"}, 415),
    ],
)
async def test_forms(start: Start, fields: dict[str, str], headers: dict[str, str], status: int) -> None:
    async with start() as peer:
        right, cookie = await ready(peer)
        answer = await form(peer, {**right, **fields}, **{**cookie, **headers})
        assert answer.status == status
        assert TOKEN not in answer.html
        if status in (400, 403, 404):
            # The form is there again, with what is wrong.
            assert answer.read.text.count("Error:") == 1
            assert any(attrs.get("role") == "alert" for _, attrs in answer.read.elements)
            assert answer.read.field("user_code")["value"] == {**right, **fields}["user_code"]
        # A refused form has decided nothing.
        again = await form(peer, {**right, "decision": "deny"}, **cookie)
        assert again.status == 200


async def test_the_browsers_own_origin_is_accepted(start: Start) -> None:
    async with start() as peer:
        right, cookie = await ready(peer)
        assert (await form(peer, right, **cookie, Origin=peer.receiver.url)).status == 200


@pytest.mark.parametrize("body", ["user_code=a&user_code=b", "a=b&" * 30, "%", "=" * 10])
async def test_bodies_that_are_no_form_of_the_page(start: Start, body: str) -> None:
    async with start() as peer:
        assert (await form(peer, body)).status in (400, 403)


async def test_a_form_is_small(start: Start) -> None:
    async with start() as peer:
        assert (await form(peer, {"user_code": "x" * 70_000})).status == 413


async def test_wrong_codes_are_limited(start: Start) -> None:
    async with start() as peer:
        right, cookie = await ready(peer)
        for _ in range(5):
            assert (await form(peer, {**right, "user_code": WRONG_CODE}, **cookie)).status == 404
        for decision in ("approve", "deny"):
            refused = await form(peer, {**right, "decision": decision}, **cookie)
            assert refused.status == 429
            assert 0 < int(refused.headers["Retry-After"]) <= 61
            assert "Too many" in refused.read.text
        # The page itself, and the sign-in, go on.
        assert (await form(peer, method="GET")).status == 200
        assert (await peer.request("POST", DEVICE)).status == 200


async def test_wrong_tokens_are_limited_and_tell_nothing_of_the_code(start: Start) -> None:
    async with start() as peer:
        right, cookie = await ready(peer)
        for number in range(5):
            code = WRONG_CODE if number % 2 else right["user_code"]
            refused = await form(peer, {**right, "user_code": code, "token": "wrong"}, **cookie)
            assert refused.status == 403
            assert "not the token of the receiver" in refused.read.text
            assert "autofocus" in refused.read.field("token")
        assert (await form(peer, right, **cookie)).status == 429
        # Who does not know the token can still deny.
        assert (await form(peer, {**right, "decision": "deny", "token": ""}, **cookie)).status == 200


async def test_a_cookie_is_kept_so_that_two_forms_can_be_open(start: Start) -> None:
    async with start() as peer:
        right, cookie = await ready(peer)
        second = await form(peer, method="GET", **cookie)
        assert second.cookie == cookie["Cookie"]
        assert second.read.field("form_token")["value"] == right["form_token"]
        assert (await form(peer, right, Cookie=f"a=b; {cookie['Cookie']}; c")).status == 200


async def test_head_takes_no_tokens_away(start: Start) -> None:
    async with start() as peer, peer.session.head(peer.receiver.url + DEVICE) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST")
