"""The Sphinx configuration of the documentation site. ``bin/docs.py`` stages the pages and builds it.

Sphinx, as its releases go on and it reads the roles of the docstrings; MyST, as the pages are plain Markdown for a
code host as well; Furo, as it fits phones, has a dark mode, and loads nothing from elsewhere.
"""

from __future__ import annotations

import cirron_spool

project = "cirron-spool"
author = "The cirron-spool authors"
version = release = cirron_spool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
root_doc = "README"
exclude_patterns = ["site"]

# Anchors as code hosts make them, so that a link to a heading works in both places.
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
autodoc_mock_imports = ["lightning", "pytorch_lightning", "transformers"]

nitpicky = True
# Types of other packages, whose inventories lie on the network, and of our own that are not public.
_PACKAGES = (
    "aiohttp|anyio|asyncio|collections|concurrent|datetime|lightning|os|pathlib|transformers|types|typing"
)
_NAMES = "AnyPath|Entry|Path|Platform|Settings|SnapshotsOption|StopSignal|WatchOptions|datetime|timedelta"
nitpick_ignore_regex = [
    ("py:class", rf"({_PACKAGES})\..*"),
    ("py:class", _NAMES),
    ("py:.*", r"cirron_spool\.(pipeline|settings|spool|cluster|traces|concurrency)\..*"),
]

html_theme = "furo"
html_title = f"cirron-spool {release}"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "native"
