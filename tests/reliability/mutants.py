"""Mutation testing of what decides: each small change to it must make a test fail.

A mutant is one module with one change: a comparison swapped, a condition negated, a constant moved by one, an operator
exchanged, a returned value lost, a statement left out. It runs against its tests in a copy of the package. What
survives is printed, but for the mutants below, each of which changes nothing that could be seen.

    python tests/reliability/mutants.py                      all of them
    python tests/reliability/mutants.py --only protocol.verdict  one module
    python tests/reliability/mutants.py --limit 50           a sample
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import queue
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from harness import Clock, scratch

TESTS = Path(__file__).resolve().parents[1]
AT_ONCE = 2
# A mutant that makes its tests last so much longer than they do unchanged is noticed, too.
HANG_TIMES = 10
HANG_AT_LEAST_S = 20.0

# The modules that decide, and the tests that hold them. A delete follows an acknowledgement in
# `pipeline.settle`. `pipeline.window` keeps the outcomes of batches apart.
TARGETS: dict[str, tuple[str, ...]] = {
    "protocol.verdict": ("protocol/test_verdict.py", "reliability/test_decisions.py"),
    "protocol.retry": ("protocol/test_retry.py", "reliability/test_decisions.py"),
    "protocol.http_date": ("protocol/test_http_date.py",),
    "protocol.framing": ("protocol/test_framing_bytes.py",),
    "spool.names": ("spool/test_names.py", "reliability/test_decisions.py"),
    "pipeline.settle": ("pipeline/test_settle.py",),
    "pipeline.window": ("pipeline/test_window.py",),
}

# Mutants that no test can tell from the original, as "module.function: change", and why.
_SORTED_TWICE = (
    "the second, stable sort by number is left out where it would change nothing; done always, it is slower"
)
EXPLAINED: dict[str, str] = {
    "spool.names.module: 'T'  =>  'T~'": "the name of a type variable",
    "spool.names.oldest_first: _PADDED_DIGITS + 1  =>  _PADDED_DIGITS - 1": _SORTED_TWICE,
    "spool.names.oldest_first: 1  =>  2": _SORTED_TWICE,
    "spool.names.oldest_first: 1  =>  0": _SORTED_TWICE,
    "spool.names.oldest_first: '-'  =>  '-~'": _SORTED_TWICE,
    "protocol.verdict._doubt: 'utf-8-sig'  =>  'utf-8-sig~'": "a codec is found by its letters and digits",
    "protocol.verdict._unexpected_hint: 399  =>  400": "a 400 is a rejection and never comes here",
    "pipeline.window.module: 'asyncio.Future[Outcome]'  =>  'asyncio.Future[Outcome]~'": "a name for the type checker",
    "protocol.framing.find_body: 0  =>  -1": "a pattern that begins below 0 begins at 0",
    "protocol.http_date.parse_http_date: 6  =>  7": "a sixth value has no partner to be compared with",
    "protocol.retry.delays: 10  =>  11": "the fifth delay is at the longest already, and so are all after it",
    "protocol.retry.delays: 10  =>  9": "the fifth delay is at the longest already, and so are all after it",
}

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}  # fmt: skip


class Mutant(NamedTuple):
    """A changed module: ``key`` names the change without its line, so that it outlives edits elsewhere."""

    module: str
    line: int
    key: str
    source: str


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    original = ast.parse(source)
    for index, (node, where) in enumerate(_places(original)):
        for change, (before, after) in enumerate(_changes(node)):
            tree = copy.deepcopy(original)
            target = list(_places(tree))[index][0]
            replacement = list(_changes(target))[change][1]
            _replace(tree, target, replacement)
            text = ast.unparse(ast.fix_missing_locations(tree))
            key = f"{module}.{where}: {_shown(before)}  =>  {_shown(after)}"
            yield Mutant(module, getattr(node, "lineno", 0), key, text)


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Every node that may be changed, with the name of the function or class around it."""

    def walk(node: ast.AST, where: str) -> Iterator[tuple[ast.AST, str]]:
        inside = where
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{where}.{node.name}".removeprefix("module.")
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_comment", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if not isinstance(child, ast.AST) or _is_docstring(child):
                    continue
                if isinstance(child, ast.Import | ast.ImportFrom) or _is_typing(child):
                    continue
                yield child, inside
                yield from walk(child, inside)

    return walk(tree, "module")


def _is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_typing(node: ast.AST) -> bool:
    """What is only there for the type checker: ``if TYPE_CHECKING`` and Protocols."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases)


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """What a node may be replaced with."""
    if isinstance(node, ast.expr):
        for changed in _expressions(node):
            yield node, changed
    elif isinstance(node, ast.Return):
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield node, ast.Return(ast.Constant(None))
    elif isinstance(node, ast.If | ast.While):
        negated = copy.copy(node)
        negated.test = ast.UnaryOp(ast.Not(), node.test)
        yield node, negated
    elif isinstance(node, ast.Expr | ast.AugAssign | ast.Raise | ast.Continue | ast.Break):
        yield node, ast.Pass()
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
        yield node, ast.Pass()  # a local one left out is a NameError, which tells nothing


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            swapped = copy.copy(node)
            swapped.ops = [*node.ops[:index], _COMPARISONS[type(operator)](), *node.ops[index + 1 :]]
            yield swapped
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        for index in range(len(node.values)):
            rest = [*node.values[:index], *node.values[index + 1 :]]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        yield ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)


def _constants(value: object) -> Iterator[ast.expr]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, str):
        yield ast.Constant(f"{value}~" if value else "~")
    elif isinstance(value, bytes):
        yield ast.Constant(value + b"~")


def _replace(tree: ast.AST, target: ast.AST, replacement: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, replacement)
            elif isinstance(value, list):
                for index, child in enumerate(value):
                    if child is target:
                        value[index] = replacement


def _shown(node: ast.AST) -> str:
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()
    return text[0] if len(text) == 1 else f"{text[0]} …"


@dataclass
class Report:
    """The figures of a run."""

    killed: int = 0
    hung: int = 0
    explained: int = 0
    survivors: list[Mutant] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        total = self.killed + self.explained + len(self.survivors)
        first = (
            f"{total} mutants in {self.seconds:.0f} s: {self.killed} killed ({self.hung} by lasting too long), "
            f"{self.explained} explained, {len(self.survivors)} survived"
        )
        lines = [f"  {mutant.module}:{mutant.line}  {mutant.key}" for mutant in self.survivors]
        return "\n".join([first, *lines])


class Bench:
    """A copy of the package in which one mutant at a time is tried."""

    def __init__(self, folder: Path, package: Path) -> None:
        self._folder = folder
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        self._package = folder / package.name
        self._home = folder / "home"
        self._home.mkdir()

    def tests_pass(self, module: str, source: str, limit_s: float | None = None) -> bool | None:
        """Whether the module's tests pass with this source; None when they do not end within ``limit_s``."""
        place = self._package / f"{module.replace('.', '/')}.py"
        before = place.read_text(encoding="utf-8")
        place.write_text(source, encoding="utf-8")
        # -P: nothing but the copy may give them the package. CI: the same examples for every mutant.
        argv = [
            sys.executable,
            "-P",
            "-B",
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            f"--rootdir={TESTS.parent}",
        ]
        argv += ["-c", str(TESTS.parent / "pyproject.toml"), *(str(TESTS / name) for name in TARGETS[module])]
        env = {**os.environ, "PYTHONPATH": str(self._folder), "CI": "1", "HOME": str(self._home)}
        process = subprocess.Popen(
            argv,
            cwd=self._folder,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(limit_s) == 0
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
            place.write_text(before, encoding="utf-8")


def run(folder: Path, modules: list[str], limit: int | None, seed: int) -> Report:
    """Try the mutants of ``modules``, or a sample of ``limit`` of each. The unchanged modules must pass first."""
    spec = find_spec("cirron_spool")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    benches: queue.Queue[Bench] = queue.Queue()
    for number in range(AT_ONCE):
        benches.put(Bench(folder / str(number), package))
    chosen: list[Mutant] = []
    limits: dict[str, float] = {}
    for module in modules:
        source = (package / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        bench, unchanged = benches.get(), Clock(1, "runs")
        assert bench.tests_pass(module, ast.unparse(ast.parse(source))), (
            f"the tests of {module} fail unchanged"
        )
        limits[module] = max(HANG_AT_LEAST_S, HANG_TIMES * unchanged.seconds)
        benches.put(bench)
        found = list(mutants(module, source))
        chosen += found if limit is None or limit >= len(found) else random.Random(seed).sample(found, limit)
    report, clock = Report(), Clock(len(chosen), "mutants")

    def attempt(mutant: Mutant) -> tuple[Mutant, bool | None]:
        bench = benches.get()
        try:
            return mutant, bench.tests_pass(mutant.module, mutant.source, limits[mutant.module])
        finally:
            benches.put(bench)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, (mutant, survived) in enumerate(pool.map(attempt, chosen), 1):
            clock.tick(number)
            if not survived:
                report.killed += 1
                report.hung += survived is None
            elif mutant.key in EXPLAINED:
                report.explained += 1
            else:
                report.survivors.append(mutant)
                # At once: a run of hours may be interrupted.
                print(f"  survived: {mutant.module}:{mutant.line}  {mutant.key}", flush=True)
    report.seconds = clock.seconds
    return report


def main() -> int:
    """Run as the command line says; exit code 1 when a mutant survived that nobody has explained."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", choices=sorted(TARGETS), action="append", help="one module; may be repeated"
    )
    parser.add_argument("--limit", type=int, help="a sample of so many mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="of the sample; default 0")
    options = parser.parse_args()
    with scratch() as folder:
        report = run(folder, options.only or list(TARGETS), options.limit, options.seed)
    print(report)
    return 1 if report.survivors else 0


if __name__ == "__main__":
    sys.exit(main())
