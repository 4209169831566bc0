"""The proxy for a URL: the precedence of the variables, and the values that they may have."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from yarl import URL

from cirron_spool import ConfigError, flush_spool
from cirron_spool.http.proxies import Proxy, find_proxy
from support.background import closed_port
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

TOKEN = "sk-proxies"
PASSWORD = "hunter2"


def proxy_to(url: str) -> Proxy | None:
    return find_proxy(URL(url, encoded=True))


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
        (
            {"https_proxy": "", "HTTPS_PROXY": "upper"},
            None,
        ),  # lower case wins, and an empty value means no proxy
        ({"https_proxy": "", "ALL_PROXY": "all"}, "ALL_PROXY"),
        ({"http_proxy": "http", "FTP_PROXY": "ftp"}, None),
        ({"HTTPS_PROXY": "https", "REQUEST_METHOD": "GET"}, "HTTPS_PROXY"),
    ],
)
def test_the_precedence_of_the_variables(
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
        ({"HTTP_PROXY": "client"}, None),  # a client may set it with the header "Proxy"
        ({"HTTP_PROXY": "client", "http_proxy": "ours"}, "http_proxy"),
        ({"HTTP_PROXY": "client", "ALL_PROXY": "all"}, "ALL_PROXY"),
    ],
)
def test_http_proxy_is_ignored_in_a_cgi_script(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], source: str | None
) -> None:
    for name, value in {**variables, "REQUEST_METHOD": "POST"}.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_to("http://platform.test")
    assert (proxy and proxy.source) == source


@pytest.mark.parametrize("scheme", ["https", "all"])
def test_without_variables_the_systems_settings_apply(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    # Stands for the settings of macOS and Windows.
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {scheme: "http://system.test:3128"})
    monkeypatch.setattr(urllib.request, "proxy_bypass", lambda host: host == "inside.test:443")
    proxy = proxy_to("https://platform.test")
    assert proxy is not None
    assert (proxy.display_url, proxy.source) == ("http://system.test:3128", "the system's settings")
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
    assert (proxy.display_url, proxy.user, proxy.password) == (shown, user, password)
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
async def test_an_unusable_proxy_is_a_configuration_error(
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
async def test_a_platform_on_this_machine_needs_no_usable_proxy(
    spool: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    monkeypatch.setenv("ALL_PROXY", value)
    with ScriptedServer() as server:
        result = await flush_spool(spool, api_url=server.url, token=TOKEN)
    assert (result.uploaded, result.exit_code) == (1, 0)


@pytest.mark.parametrize("value", [*UNUSABLE, "socks5://proxy.test"])
def test_an_exempt_host_needs_no_usable_proxy(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    monkeypatch.setenv("NO_PROXY", "platform.test")
    assert proxy_to("https://platform.test") is None


def test_a_platform_on_this_machine_is_not_reached_through_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    assert proxy_to("https://localhost:8443") is None
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    assert proxy_to("https://localhost:8443") is not None
