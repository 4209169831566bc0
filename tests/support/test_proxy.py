"""The proxy: tunnels, forwarding, and its password."""

from __future__ import annotations

import http.client
from contextlib import closing

from support.scripted import ProxyServer, ScriptedServer


def test_proxy_tunnels_and_forwards() -> None:
    with ScriptedServer() as origin, ProxyServer(target=("127.0.0.1", origin.port)) as proxy:
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port)) as client:
            client.set_tunnel("app.spool.test", 443)
            for _ in range(2):
                client.request("POST", "/api/traces", b"{}", {"X-Cirron-Batch-Id": "0a"})
                assert client.getresponse().read() == b'{"success": true}'
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port)) as client:
            for path in ("/api/traces?a=b", "/api/traces"):
                client.request(
                    "POST", f"http://app.spool.test{path}", iter([b"{", b"}"]), {"X-Cirron-Batch-Id": "0b"}
                )
                assert client.getresponse().read() == b'{"success": true}'
    assert [(r.method, r.target) for r in proxy.requests] == [
        ("CONNECT", "app.spool.test:443"),
        ("POST", "http://app.spool.test/api/traces?a=b"),
        ("POST", "http://app.spool.test/api/traces"),
    ]
    assert [r.target for r in origin.requests] == [
        "/api/traces",
        "/api/traces",
        "/api/traces?a=b",
        "/api/traces",
    ]
    assert origin.requests[2].headers["host"] == "app.spool.test"
    assert origin.delivered == {"0a": b"{}", "0b": b"{}"}


def test_proxy_wants_its_password() -> None:
    with ScriptedServer() as origin, ProxyServer(credentials="Basic dTpw") as proxy:
        for sent, expected in ((None, 407), ("Basic wrong", 407), ("Basic dTpw", 200)):
            with closing(http.client.HTTPConnection("127.0.0.1", proxy.port)) as client:
                headers = {} if sent is None else {"Proxy-Authorization": sent}
                client.request("GET", f"{origin.url}/api/cli/status", headers=headers)
                assert client.getresponse().status == expected
    assert [r.headers.get("proxy-authorization") for r in origin.requests] == [None]
