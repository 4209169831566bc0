"""Headless Chromium, driven by selenium: Debian's ``chromium`` and ``chromium-driver``. Nothing is downloaded."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# The page of a driver that has closed, or of one that is slow, ends after so many seconds.
SAFETY_NET_S = 60.0

_PHONE = 500


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A browser: selenium's driver. Skips where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("there is no chromium with its chromedriver here")
    # Some systems have a program of that name which only tells how to install it.
    if subprocess.run([browser, "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the chromium here does not start")
    options = selenium.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Chromium's sandbox needs a user of its own and namespaces, which a container may not have.
    flags = (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "no-first-run",
        "disable-background-networking",
    )
    for flag in (*flags, f"user-data-dir={profile}", "window-size=1280,800"):
        options.add_argument(f"--{flag}")
    service = selenium.ChromeService(executable_path=driver)
    with selenium.Chrome(options=options, service=service) as page:
        page.set_page_load_timeout(SAFETY_NET_S)
        yield page


def as_new(page: Any) -> None:
    """Forget what the browser has of the test before: its page, cookies and log, a width, the dark."""
    page.get("about:blank")
    page.execute_cdp_cmd("Network.clearBrowserCookies", {})
    page.get_log("browser")
    look(page)


def look(page: Any, *, width: int = 1280, dark: bool = False) -> None:
    """Have a window of ``width`` pixels: below 500 that of a phone."""
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < _PHONE},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
