"""A run as one HTML page: flame graphs, the scope tree, and marks over time. It works as a local file.

Plotly makes the drawings; the page includes its script. Each drawing has a table for screen readers and prints.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any

from cirron_spool.html.style import STYLE, page_head
from cirron_spool.text import printable

_STYLE = f"""{STYLE}
.chart {{ padding: 0; overflow: hidden; }}
.bar {{ display: flex; flex-wrap: wrap; gap: .5rem; margin: .5rem 0; align-items: center; }}
button, input, select {{ font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: .375rem; min-height: 2.25rem; padding: .25rem .75rem; }}
input {{ flex: 1 1 12rem; min-width: 0; }}
details {{ margin: .5rem 0; }}
summary {{ cursor: pointer; }}
ul.tree, ul.tree ul {{ list-style: none; margin: 0; padding-left: 1.1rem; }}
ul.tree {{ padding-left: 0; font-size: .9375rem; }}
ul.tree li {{ overflow-wrap: anywhere; }}
ul.tree .soft {{ color: var(--soft); }}
.found {{ color: var(--found); font-weight: 600; }}
.note {{ font-size: .875rem; }}
@media print {{ .bar {{ display: none; }} .chart {{ border: 0; }} }}
"""
# The page makes no request. Plotly sets styles, and saves a picture as a blob.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def trace_page(document: Mapping[str, Any], plotly: str) -> Iterator[str]:
    """The page in parts. ``document`` is the data, and ``plotly`` is the script of the drawings."""
    place = printable(str(document["dir"]))
    yield page_head(f"Traces {place}", _STYLE, _POLICY)
    yield f"""<h1>Traces</h1>
<p>{escape(place)}</p>
<div class="bar" role="search"><label for="search">Search</label>
<input id="search" type="search" autocomplete="off" placeholder="a span or a mark" aria-describedby="hits">
<span id="hits" role="status"></span></div>
<div id="sessions"></div>
<noscript><p>The drawings of this page need scripts. The data is in the page itself.</p></noscript>
</main>
<script type="application/json" id="trace">"""
    yield _in_script(document)
    yield "</script>\n<script>"
    yield plotly.replace("</script", "<\\/script")
    yield "</script>\n<script>"
    yield files("cirron_spool.html").joinpath("trace_page.js").read_text(encoding="utf-8")
    yield "</script>\n</body>\n</html>\n"


def _in_script(document: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element or start a comment in it."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
