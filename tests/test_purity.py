"""The pure modules are pure, and a command loads only the modules that it needs.

Which module may import which other is held by import-linter: see pyproject.toml.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import cirron_spool
from support.cli import clean_environment

PACKAGE = Path(cirron_spool.__file__).parent
PURE = [
    *("errors", "events", "html.fragments", "text", "spool.names", "spool.selection"),
    *(
        f"protocol.{path.stem}"
        for path in sorted((PACKAGE / "protocol").glob("*.py"))
        if path.stem != "__init__"
    ),
]
# Clocks, sockets, chance, the disk: whatever makes an answer depend on more than what was asked.
IMPURE = {
    *("asyncio", "concurrent", "http.client", "io", "logging", "multiprocessing", "os", "random", "secrets"),
    *(
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
    ),
    *("time", "urllib.request", "uuid"),
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("cirron_spool", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _is_type_checking(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _statements(tree: ast.AST, *, types: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and _is_type_checking(child) and not types:
            for other in child.orelse:
                yield from _statements(other, types=types)
        else:
            yield from _statements(child, types=types)


def imports(module: str, *, types: bool) -> set[str]:
    """The modules that `module` imports, at its top or later; with `types` also those for annotations only."""
    found: set[str] = set()
    for node in _statements(ast.parse(modules()[module].read_bytes()), types=types):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        assert node.level == 0, f"{module}: a relative import"
        assert node.module is not None
        below = {f"{node.module}.{alias.name}" for alias in node.names}
        # `from package import room` imports the room; `from package import __version__` the package.
        rooms = below & modules().keys()
        found |= rooms
        if len(rooms) < len(below):
            found.add(node.module)
    return found - {"__future__"}


def _ours(name: str) -> bool:
    return name.partition(".")[0] == "cirron_spool"


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_import_the_standard_library_and_each_other(room: str) -> None:
    allowed = {f"cirron_spool.{other}" for other in PURE}
    for name in imports(f"cirron_spool.{room}", types=True):
        if _ours(name):
            assert name in allowed
        else:
            assert name.split(".")[0] in sys.stdlib_module_names
            parts = name.split(".")
            assert not {".".join(parts[: length + 1]) for length in range(len(parts))} & IMPURE, name


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_call_nothing_that_reads_or_asks(room: str) -> None:
    tree = ast.parse(modules()[f"cirron_spool.{room}"].read_bytes())
    called = {
        node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
    }
    asks = {"open", "print", "input", "now", "utcnow", "today", "read_text", "exists", "cwd", "home", "stat"}
    assert not called & asks
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree))


OFFLINE = """
import sys
from cirron_spool.cli.main import cirron_spool
code = cirron_spool(sys.argv[1:])
print("\\n".join(["LOADED", *sys.modules]))
sys.exit(code)
"""
# What takes long to import, and what only a flush needs.
HEAVY = {"aiohttp", "anyio", "asyncio", "backoff", "rich", "ssl", "truststore", "aiofiles", "isal", "yarl"}


@pytest.mark.thorough
@pytest.mark.parametrize("batches", [0, 3])
@pytest.mark.parametrize(
    "command",
    [["inspect"], ["inspect", "--json"], ["clear", "--force"], ["quarantine", "list"]],
    ids=" ".join,
)
def test_offline_commands_load_neither_the_http_client_nor_the_flush(
    tmp_path: Path, command: list[str], batches: int
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    for number in range(batches):
        (spool / f"{number}-a.json").write_bytes(b"{}")
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *command, "--dir", str(spool)],
        env={
            key: value for key, value in clean_environment(tmp_path).items() if "COVERAGE" not in key
        },  # coverage itself loads much
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    loaded = set(done.stdout.rpartition("LOADED\n")[2].split())
    assert "cirron_spool.offline" in loaded
    assert not {name.split(".")[0] for name in loaded} & HEAVY
    assert not loaded & {
        name
        for name in loaded
        if re.match(r"cirron_spool\.(http|auth|pipeline|flush|events|settings\.load)\b", name)
    }
    # 8 and 5 ms of the 45 in which `inspect` starts.
    for module in loaded & modules().keys():
        assert not imports(module, types=False) & {"dataclasses", "secrets"}, module
    if command[0] != "clear":
        assert "filelock" not in loaded


def test_importing_the_package_loads_nothing_else(tmp_path: Path) -> None:
    code = "import sys, cirron_spool; print(*sorted(n for n in sys.modules if n.startswith('cirron_spool')))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(tmp_path), capture_output=True, check=True
    )
    assert done.stdout.split() == [b"cirron_spool"]


def test_every_public_name_is_there_and_documented() -> None:
    assert dir(cirron_spool) == cirron_spool.__all__ == sorted(cirron_spool.__all__, key=lambda name: name)
    for name in cirron_spool.__all__:
        value = getattr(cirron_spool, name)
        assert value is not None
        if callable(value):
            assert value.__doc__
    with pytest.raises(AttributeError, match="no attribute 'flush'"):
        _ = cirron_spool.__getattr__("flush")
