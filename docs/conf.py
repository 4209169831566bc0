"""The Sphinx configuration of the documentation site. ``bin/docs.py`` stages the pages and builds it.

Sphinx, as its releases go on and it reads the roles of the docstrings; MyST, as the pages are plain Markdown for a
code host as well; Furo, as it fits phones, has a dark mode, and loads nothing from elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cirron_spool

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "cirron-spool"
author = "The cirron-spool authors"
version = release = cirron_spool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
root_doc = "README"

# Anchors as code hosts make them, so that a link to a heading works in both places.
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
autodoc_mock_imports = ["lightning", "pytorch_lightning", "transformers"]

# Each role in a docstring must lead somewhere. The types in a signature may be of other packages.
nitpicky = True


def _as_text(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:  # noqa: ARG001  # Sphinx's signature
    """Show a type of a signature without a link, where it has no page here. A role has `refexplicit`."""
    return None if "refexplicit" in node else text


def setup(app: Sphinx) -> None:
    """Tell Sphinx of the above."""
    app.connect("missing-reference", _as_text)


html_theme = "furo"
html_title = f"cirron-spool {release}"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "native"
