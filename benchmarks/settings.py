"""What a user can set of a flush: the values worth trying, and how to write them down."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from benchmarks.measure import Contender, ours
from cirron_spool import Tuning

KIB = 1024
MIB = 1024 * KIB

_GZIP = (("isal", (0, 1, 2, 3)), ("zlib-ng", (1, 2, 4, 6, 9)), ("zlib", (1, 3, 6, 9)))
_MODULES = {"isal": "isal.isal_zlib", "zlib-ng": "zlib_ng.zlib_ng", "zlib": "zlib"}
_FLAGS = {
    "prefetch_batches": "--prefetch",
    "prefetch_bytes": "--prefetch-bytes",
    "chunk_bytes": "--chunk-bytes",
    "disk_work": "--disk-work",
    "gzip_library": "--gzip-library",
    "gzip_level": "--gzip-level",
    "in_flight": "--in-flight",
}


@dataclass(frozen=True)
class Setting:
    """One value of one factor: what it is called, and the options of ``flush_spool`` that differ from the defaults."""

    name: str
    tuning: tuple[tuple[str, Any], ...] = ()
    in_flight: int = 1

    def contender(self, verify: bool = True) -> Contender:
        """Ours with this setting."""
        options: dict[str, Any] = {}
        if self.tuning:
            options["tuning"] = dict(self.tuning)
        if self.in_flight != 1:
            options["in_flight"] = self.in_flight
        if not verify:
            options["verify"] = False
        return ours(self.name, **options)

    def joined(self, other: Setting) -> Setting:
        """Both settings together."""
        return Setting(
            f"{self.name}, {other.name}" if self.flags() else other.name,
            self.tuning + other.tuning,
            max(self.in_flight, other.in_flight),
        )

    def flags(self) -> str:
        """For the command line of ``cirron-spool flush``; empty for the defaults."""
        values = dict(self.tuning)
        if self.in_flight != 1:
            values["in_flight"] = self.in_flight
        return " ".join(f"{_FLAGS[name]} {value}" for name, value in values.items())

    def call(self) -> str:
        """As arguments of ``flush_spool``."""
        parts = []
        if self.tuning:
            parts.append(f"tuning=Tuning({', '.join(f'{name}={value!r}' for name, value in self.tuning)})")
        if self.in_flight != 1:
            parts.append(f"in_flight={self.in_flight}")
        return ", ".join(parts)


DEFAULT = Setting("default")


def gzip_settings() -> list[Setting]:
    """Every library that is installed, at the levels worth trying."""
    found = []
    for library, levels in _GZIP:
        try:
            import_module(_MODULES[library])
        except ImportError:
            continue
        found += [
            Setting(f"{library} {level}", (("gzip_library", library), ("gzip_level", level)))
            for level in levels
        ]
    return found


def factors() -> dict[str, list[Setting]]:
    """The factors, each with its values; the default's own value is left out of each."""
    default = Tuning()
    known = {field.name for field in fields(Tuning)}

    def values(name: str, candidates: tuple[int, ...]) -> list[Setting]:
        if name not in known:
            return []
        others = (value for value in candidates if value != getattr(default, name))
        return [
            Setting(f"{_FLAGS[name].removeprefix('--')} {_short(name, value)}", ((name, value),))
            for value in others
        ]

    return {
        "prefetch": values("prefetch_batches", (1, 4, 8, 16, 24, 32, 64, 128)),
        "prefetch-bytes": values("prefetch_bytes", (256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB)),
        "chunk-bytes": values(
            "chunk_bytes", (32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, 4 * MIB)
        ),
        "gzip": gzip_settings(),
        "in-flight": [Setting(f"in-flight {count}", in_flight=count) for count in (2, 4, 8, 16)],
    }


def _short(name: str, value: int) -> str:
    if not name.endswith("_bytes"):
        return str(value)
    if not value:
        return "0"
    return f"{value // MIB} MiB" if value >= MIB else f"{value // KIB} KiB"
