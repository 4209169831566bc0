"""One browser for the tests of all pages: its start takes longer than a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.browser import as_new, chromium


@pytest.fixture(scope="session")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@pytest.fixture
def browser(_browser: Any) -> Any:
    """Selenium's driver of a browser that has nothing of an earlier test."""
    as_new(_browser)
    return _browser
