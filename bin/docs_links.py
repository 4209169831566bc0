"""The links of a built site: each one leads to a file and an anchor of the site, and no page loads from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# The attribute of a tag that makes a browser load something.
_LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []  # and whether the browser loads it by itself
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the anchor and the link of a tag."""
        values = dict(attrs)
        self.anchors.update(value for key in ("id", "name") if (value := values.get(key)))
        target = values.get("href" if tag == "a" else _LOADS.get(tag, ""))
        if target and values.get("rel") != "canonical":
            self.links.append((target, tag != "a"))


def faults(site: Path) -> list[str]:
    """One line for each link of the pages below `site` that leads nowhere, or loads from elsewhere."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site)}: {target} {why}"
        for path, page in pages.items()
        for target, loads in page.links
        for why in _faults_of(pages, path, target, loads)
    ]


def _faults_of(pages: dict[Path, _Page], path: Path, target: str, loads: bool) -> Iterator[str]:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        if loads and parts.scheme != "data":
            yield "is loaded from elsewhere"
        return
    place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not place.is_file():
        yield "leads to no file"
    elif parts.fragment and place in pages and unquote(parts.fragment) not in pages[place].anchors:
        yield "leads to no heading"
