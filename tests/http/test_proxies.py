"""Which proxy an origin is reached by: variables, exemptions, and values that are no proxy."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from yarl import URL

from cirron_spool import ConfigError, flush_spool
from cirron_spool.http.proxies import Proxy, find_route
from support.background import closed_port
from support.cli import run_cli
from support.scripted import ProxyServer, ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

TOKEN = "sk-proxies"
PASSWORD = "hunter2"


def proxy_to(url: str) -> Proxy | None:
    return find_route(URL(url, encoded=True), True).proxy


# -- exemptions ----------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("spelling", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize(("exempt", "url"), EXEMPT)
def test_no_proxy_exempts(monkeypatch: pytest.MonkeyPatch, exempt: str, url: str, spelling: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv(spelling, exempt)
    assert proxy_to(url) is None


@pytest.mark.parametrize(("exempt", "url"), NOT_EXEMPT)
def test_no_proxy_exempts_no_more(monkeypatch: pytest.MonkeyPatch, exempt: str, url: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert proxy_to(url) is not None


@pytest.mark.parametrize(
    ("exempt", "by_proxy"),
    [
        ("localhost,127.0.0.0/8", False),
        ("[::1] 127.0.0.1", False),
        ("10.0.0.0/8,[::1]:80,*.test", True),
        ("127.0.0.1:1", True),
    ],
)
def test_the_command_heeds_no_proxy(spool: Path, exempt: str, by_proxy: bool) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server, ProxyServer() as proxy:
        env = {"CIRRON_API_ENDPOINT": server.url, "CIRRON_API_KEY": TOKEN}
        result = run_cli("flush", "--dir", spool, env={**env, "HTTP_PROXY": proxy.url, "no_proxy": exempt})
    assert (result.returncode, len(server.uploads)) == (0, 2), result.stderr
    assert len(proxy.requests) == (3 if by_proxy else 0)


# -- variables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "source"),
    [
        ({"HTTPS_PROXY": "https", "ALL_PROXY": "all"}, "HTTPS_PROXY"),
        ({"all_proxy": "all", "HTTPS_PROXY": "https"}, "HTTPS_PROXY"),
        ({"https_proxy": "lower", "HTTPS_PROXY": "upper"}, "https_proxy"),
        ({"HTTPS_PROXY": "upper", "https_proxy": "lower"}, "https_proxy"),
        ({"all_proxy": "lower", "ALL_PROXY": "upper"}, "all_proxy"),
        ({"Https_Proxy": "mixed"}, "Https_Proxy"),
        ({"https_proxy": "", "HTTPS_PROXY": "upper"}, None),  # lower case wins, and says none
        ({"https_proxy": "", "ALL_PROXY": "all"}, "ALL_PROXY"),
        ({"http_proxy": "http", "FTP_PROXY": "ftp"}, None),
        ({"HTTPS_PROXY": "https", "REQUEST_METHOD": "GET"}, "HTTPS_PROXY"),
    ],
)
def test_the_variable_that_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], source: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_to("https://platform.test")
    assert (proxy and proxy.source) == source
    if proxy is not None:
        assert proxy.host == variables[proxy.source]


@pytest.mark.parametrize(
    ("variables", "source"),
    [
        ({"HTTP_PROXY": "client"}, None),  # the header "Proxy: client" of a request
        ({"HTTP_PROXY": "client", "http_proxy": "ours"}, "http_proxy"),
        ({"HTTP_PROXY": "client", "ALL_PROXY": "all"}, "ALL_PROXY"),
    ],
)
def test_a_cgi_scripts_http_proxy_is_its_clients(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], source: str | None
) -> None:
    for name, value in {**variables, "REQUEST_METHOD": "POST"}.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_to("http://platform.test")
    assert (proxy and proxy.source) == source


@pytest.mark.parametrize("scheme", ["https", "all"])
def test_the_systems_settings_count_without_variables(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    # What macOS and Windows answer can only be put in place of the functions of urllib.request.
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {scheme: "http://system.test:3128"})
    monkeypatch.setattr(urllib.request, "proxy_bypass", lambda host: host == "inside.test:443")
    proxy = proxy_to("https://platform.test")
    assert proxy is not None
    assert (proxy.shown, proxy.source) == ("http://system.test:3128", "the system's settings")
    assert proxy_to("https://inside.test") is None
    monkeypatch.setenv("NO_PROXY", ".test")
    assert proxy_to("https://platform.test") is None
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTPS_PROXY", "http://variable.test:3128")
    for url in ("https://platform.test", "https://inside.test"):
        proxy = proxy_to(url)
        assert proxy is not None
        assert proxy.host == "variable.test"


# -- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown", "user", "password"),
    [
        ("proxy.test", "http://proxy.test:80", None, ""),
        ("proxy.test:3128", "http://proxy.test:3128", None, ""),
        ("http://proxy.test:3128/", "http://proxy.test:3128", None, ""),
        ("HTTP://proxy.test", "http://proxy.test:80", None, ""),
        ("https://proxy.test", "https://proxy.test:443", None, ""),
        ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128", None, ""),
        ("alice:s%40cret@proxy.test:1", "http://proxy.test:1", "alice", "s@cret"),
        ("http://alice@proxy.test:1", "http://proxy.test:1", "alice", ""),
        ("http://:s3cret@proxy.test:1", "http://proxy.test:1", "", "s3cret"),
        ("http://a:b@c@proxy.test:1", "http://proxy.test:1", "a", "b@c"),
    ],
)
def test_the_address_of_a_proxy(
    monkeypatch: pytest.MonkeyPatch, value: str, shown: str, user: str | None, password: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    proxy = proxy_to("https://platform.test")
    assert proxy is not None
    assert (proxy.shown, proxy.user, proxy.password) == (shown, user, password)
    assert not password or password not in repr(proxy)


UNUSABLE = [
    f"ftp://alice:{PASSWORD}@127.0.0.1",
    f"quic://alice:{PASSWORD}@proxy.test:443",
    f"socks6://alice:{PASSWORD}@proxy.test:1080",
    "http://",
    "http:///3128",
    f"http://alice:{PASSWORD}@",
    f"http://alice:{PASSWORD}@[::1",
    f"http://alice:{PASSWORD}@proxy.test:0",
    f"http://alice:{PASSWORD}@proxy.test:65536",
    f"http://alice:{PASSWORD}@proxy.test:http",
    f"http://alice:{PASSWORD}@proxy.test:80:80",
    f"http://alice:12/{PASSWORD}@proxy.test:80",
    f"http://alice:12#{PASSWORD}@proxy.test:80",
    f"http://alice:12?{PASSWORD}@proxy.test:80",
    f"http://alice:{PASSWORD}@pro xy.test",
    f" http://alice:{PASSWORD}@proxy.test",
    f"http://alice:{PASSWORD}@proxy.test\n",
    f"http://alice:{PASSWORD}\x1b@proxy.test",
    f"{PASSWORD}@x://proxy.test",
    "://proxy.test",
    "  ",
    f"socks5://alice:{PASSWORD}%00@proxy.test",
    f"socks5://alice:{PASSWORD}%C3%BC@proxy.test",
    f"socks5h://{'a' * 256}:{PASSWORD}@proxy.test",
]


@pytest.mark.anyio
@pytest.mark.parametrize("value", UNUSABLE)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
async def test_a_proxy_that_cannot_be_used(
    spool: Path, monkeypatch: pytest.MonkeyPatch, value: str, variable: str
) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"The proxy in {variable} cannot be used: ") as caught:
        await flush_spool(spool, api_url="https://platform.test", token=TOKEN)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert PASSWORD not in message
    assert "alice" not in message
    assert message.isprintable()  # one line
    assert snapshot(spool) == batches


@pytest.mark.anyio
@pytest.mark.parametrize("value", [*UNUSABLE, "socks5h://localhost:1080", "http://192.0.2.1:3128"])
async def test_a_proxy_that_is_no_use_for_this_machine_stands_in_no_ones_way(
    spool: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    monkeypatch.setenv("ALL_PROXY", value)
    with ScriptedServer() as server:
        result = await flush_spool(spool, api_url=server.url, token=TOKEN)
    assert (result.uploaded, result.exit_code) == (1, 0)


@pytest.mark.parametrize("value", [*UNUSABLE, "socks5://proxy.test"])
def test_a_proxy_that_cannot_be_used_is_not_looked_at_for_an_exempt_host(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    monkeypatch.setenv("NO_PROXY", "platform.test")
    assert proxy_to("https://platform.test") is None


def test_an_https_platform_on_this_machine_is_not_reached_by_way_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    assert proxy_to("https://localhost:8443") is None
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    assert proxy_to("https://localhost:8443") is not None
