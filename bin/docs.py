"""Builds the documentation site from README.md and docs/: `bin/docs.py [FOLDER]`, the folder `site` by default.

The pages are copied beside each other as they stand in the checkout, so that their links work. The references of the
commands and of the library are generated. A warning of Sphinx is an error. Then each link of the site must lead to a
file and an anchor of the site, and no page may load anything from elsewhere. Nothing is fetched.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import docs_reference
from docs_links import faults
from sphinx.cmd.build import main as sphinx_build

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = "docs/reference"

# The chapters of the sidebar. A page that is in none is an error, as is one that is not there.
CHAPTERS = {
    "Begin": ["docs/first-steps", "docs/commands", "docs/troubleshooting"],
    "How-to": ["docs/how-to/README", "docs/how-to/*"],
    "Reference": [
        *(f"{REFERENCE}/commands", "docs/configuration", "docs/library", f"{REFERENCE}/library"),
        "docs/metrics",
    ],
    "Promise and limits": ["docs/contract", "docs/reliability", "docs/performance", "docs/limits"],
    "Project": ["docs/architecture", "benchmarks/README", "CHANGELOG", "CONTRIBUTING", "SECURITY"],
}
# Pages outside docs/, and files that pages link to.
BESIDE = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "Containerfile",
    "LICENSE",
]


def main(arguments: list[str]) -> int:
    """Build the site; return 0, or 1 after a warning or a fault, each of which is printed."""
    out = Path(arguments[0] if arguments else ROOT / "site").resolve()
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="cirron-spool-docs-") as folder:
        source, cache = Path(folder, "source"), Path(folder, "cache")
        stage(source)
        options = ["-W", "--keep-going", "-q", "-b", "html", "-c", str(ROOT / "docs"), "-d", str(cache)]
        if code := int(sphinx_build([*options, str(source), str(out)])):
            return code
    shutil.copyfile(out / "README.html", out / "index.html")
    found = faults(out)
    for fault in found:
        print(f"bin/docs.py: {fault}", file=sys.stderr)
    pages = len(list(out.rglob("*.html")))
    print(f"{pages} pages in {out}: {len(found)} broken links" if found else f"{pages} pages in {out}")
    return 1 if found else 0


def stage(source: Path) -> None:
    """Copy the pages to `source`, and add the generated ones and the chapters."""
    shutil.copytree(ROOT / "docs", source / "docs", ignore=shutil.ignore_patterns("conf.py", "__pycache__"))
    for name in BESIDE:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    reference = source / REFERENCE
    reference.mkdir()
    (reference / "commands.md").write_text(docs_reference.commands(), encoding="utf-8")
    (reference / "library.md").write_text(docs_reference.library(), encoding="utf-8")
    with (source / "README.md").open("a", encoding="utf-8") as start:
        for caption, pages in CHAPTERS.items():
            entries = "\n".join(f"/{page}" for page in pages)
            start.write(f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{entries}\n```\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
