"""The entries of NO_PROXY, and the hosts that they exempt from the proxy."""

from __future__ import annotations

from pathlib import Path

import pytest
from yarl import URL

from cirron_spool.http.no_proxy import exempts
from cirron_spool.http.proxies import find_proxy
from support.fork_server import run_cli
from support.scripted import ProxyServer, ScriptedServer
from support.spools import TINY, sdk_batches

TOKEN = "sk-no-proxy"

EXEMPT = [
    # names and their subdomains
    ("example.com", "https://example.com"),
    ("example.com", "https://deep.api.example.com"),
    (".example.com", "https://example.com"),
    (".example.com", "https://api.example.com"),
    ("*.example.com", "https://api.example.com"),
    ("EXAMPLE.com", "https://api.Example.COM"),
    ("example.com.", "https://api.example.com"),
    ("example.com", "https://api.example.com."),
    ("bücher.example", "https://xn--bcher-kva.example"),
    ("xn--bcher-kva.example", "https://www.bücher.example"),
    # lists
    ("a.test,example.com", "https://example.com"),
    ("a.test, example.com ,b.test", "https://example.com"),
    ("a.test example.com", "https://example.com"),
    ("a.test\t\nexample.com", "https://example.com"),
    (",,example.com,", "https://example.com"),
    ("*", "https://anything.test"),
    ("a.test *", "https://192.0.2.7"),
    # ports
    ("example.com:8443", "https://example.com:8443"),
    (".example.com:443", "https://api.example.com"),
    ("*:8443", "https://example.com:8443"),
    ("192.0.2.7:8443", "https://192.0.2.7:8443"),
    ("[2001:db8::7]:8443", "https://[2001:db8::7]:8443"),
    ("[2001:db8::]/32:8443", "https://[2001:db8::7]:8443"),
    # addresses and networks
    ("192.0.2.7", "https://192.0.2.7"),
    ("2001:db8::7", "https://[2001:db8::7]"),
    ("[2001:db8::7]", "https://[2001:db8::7]:8443"),
    ("2001:0DB8:0:0::7", "https://[2001:db8::7]"),
    ("192.0.0.0/16", "https://192.0.2.7"),
    ("192.0.2.7/16", "https://192.0.99.1"),
    ("192.0.0.0/255.255.0.0", "https://192.0.2.7"),
    ("2001:db8::/32", "https://[2001:db8:99::1]"),
    ("[2001:db8::]/32", "https://[2001:db8:99::1]"),
    ("[2001:db8::/32]", "https://[2001:db8:99::1]"),
    ("192.0.2.7/32", "https://192.0.2.7"),
    ("0.0.0.0/0", "https://192.0.2.7"),
    ("192.0.2.0/24", "https://[::ffff:192.0.2.7]"),
]

NOT_EXEMPT = [
    ("", "https://example.com"),
    (" , ", "https://example.com"),
    ("ample.com", "https://example.com"),
    ("api.example.com", "https://example.com"),
    ("example.com", "https://example.com.evil.test"),
    ("example.com:8443", "https://example.com"),
    ("example.com:8443", "https://example.com:443"),
    ("*:8443", "https://example.com"),
    ("[2001:db8::7]:8443", "https://[2001:db8::7]"),
    ("192.0.2.0/24", "https://192.0.3.7"),
    ("2001:db8::/32", "https://192.0.2.7"),
    ("0.0.0.0/0", "https://[2001:db8::7]"),
    ("192.0.2.0/24", "https://api.example.com"),  # names are not looked up for it
    ("7", "https://192.0.2.7"),  # the end of an address is no subdomain
    (".2.7", "https://192.0.2.7"),
    # malformed entries exempt nothing
    (".", "https://example.com"),
    ("*.", "https://example.com"),
    ("**", "https://example.com"),
    ("[", "https://example.com"),
    ("[2001:db8::7", "https://[2001:db8::7]"),
    ("192.0.2.7/33", "https://192.0.2.7"),
    ("192.0.2.0/x", "https://192.0.2.7"),
    ("example.com:", "https://example.com"),
    ("example.com:https", "https://example.com"),
    (f"example.com:{'9' * 5000}", "https://example.com"),
    ("http://example.com", "https://example.com"),
]


@pytest.mark.parametrize(("no_proxy", "url"), EXEMPT)
def test_an_entry_exempts_its_hosts(no_proxy: str, url: str) -> None:
    assert exempts(no_proxy, URL(url, encoded=True))


@pytest.mark.parametrize(("no_proxy", "url"), NOT_EXEMPT)
def test_an_entry_exempts_no_other_hosts(no_proxy: str, url: str) -> None:
    assert not exempts(no_proxy, URL(url, encoded=True))


@pytest.mark.parametrize("spelling", ["no_proxy", "NO_PROXY"])
def test_the_variable_may_be_in_either_case(monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv(spelling, "example.com")
    assert find_proxy(URL("https://api.example.com")) is None
    assert find_proxy(URL("https://example.org")) is not None


@pytest.mark.parametrize(
    ("exempt", "by_proxy"),
    [
        ("localhost,127.0.0.0/8", False),
        ("[::1] 127.0.0.1", False),
        ("10.0.0.0/8,[::1]:80,*.test", True),
        ("127.0.0.1:1", True),
    ],
)
def test_the_command_follows_no_proxy(spool: Path, exempt: str, by_proxy: bool) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server, ProxyServer() as proxy:
        env = {"CIRRON_API_ENDPOINT": server.url, "CIRRON_API_KEY": TOKEN}
        result = run_cli("flush", "--dir", spool, env={**env, "HTTP_PROXY": proxy.url, "no_proxy": exempt})
    assert (result.returncode, len(server.uploads)) == (0, 2), result.stderr
    assert len(proxy.requests) == (3 if by_proxy else 0)
