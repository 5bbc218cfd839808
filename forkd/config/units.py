"""How are durations and sizes written?  `5s`, `250ms`, `64MiB`: number and unit, no blank between.

Every unit is required, so that nobody has to know which key counts in minutes. Sizes are powers of
1024 and say so (IEC names); MB and M are refused because half of all programs mean 1000 by them.
"""

from __future__ import annotations

import decimal
import re
from typing import Final

_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")

DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
SIZE_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

_DURATION_SLIPS: Final = {
    "msec": "ms", "millis": "ms", "milliseconds": "ms",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "day": "d", "days": "d",
}  # fmt: skip
_SIZE_SLIPS: Final = {
    "": "B", "byte": "B", "bytes": "B", "octets": "B",
    "k": "KiB", "kb": "KiB", "kib": "KiB",
    "m": "MiB", "mb": "MiB", "mib": "MiB",
    "g": "GiB", "gb": "GiB", "gib": "GiB",
    "t": "TiB", "tb": "TiB", "tib": "TiB",
}  # fmt: skip


class Seconds(float):
    """A duration; written `250ms`, `5s`, `3m`, `4h`, `5d` in TOML."""

    __slots__ = ()


class Bytes(int):
    """A size; written `512B`, `64KiB`, `50MiB`, `1GiB` in TOML."""

    __slots__ = ()


class UnitError(ValueError):
    """Not a duration or size; the text is the rule, `hint` what was probably meant (or empty)."""

    def __init__(self, rule: str, hint: str = "") -> None:
        super().__init__(rule)
        self.hint = hint


def parse_duration(text: str) -> Seconds:
    """`5s` -> Seconds(5.0). Raises UnitError."""
    rule = 'a duration is a number and one of ms, s, m, h, d, as in "5s"'
    number, unit = _parts(text, rule)
    if unit not in DURATION_UNITS:
        meant = _DURATION_SLIPS.get(unit.lower(), unit.lower() if unit.lower() in DURATION_UNITS else "")
        raise UnitError(rule, f'write "{number}{meant}"' if meant else "")
    return Seconds(float(number) * DURATION_UNITS[unit])


def parse_size(text: str) -> Bytes:
    """`64KiB` -> Bytes(65536). Raises UnitError; a fraction of a byte is one."""
    rule = 'a size is a number and one of B, KiB, MiB, GiB, TiB, as in "64MiB"'
    number, unit = _parts(text, rule)
    if unit not in SIZE_UNITS:
        meant = _SIZE_SLIPS.get(unit.lower(), "")
        raise UnitError(rule, f'write "{number}{meant}"' if meant else "")
    exact = number * SIZE_UNITS[unit]
    if exact != exact.to_integral_value():
        raise UnitError("a size is a whole number of bytes")
    return Bytes(int(exact))


def format_duration(seconds: float) -> str:
    """The shortest exact form: 300.0 -> `5m`, 0.25 -> `250ms`."""
    if seconds == 0:
        return "0s"
    for unit, factor in reversed(DURATION_UNITS.items()):
        count = seconds / factor
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    # Not a whole number of any unit down to a millisecond: a fraction of seconds says it exactly.
    return f"{decimal.Decimal(repr(float(seconds))):f}s"


def format_size(size: int) -> str:
    """The shortest exact form: 67108864 -> `64MiB`, 1500 -> `1500B`."""
    for unit, factor in reversed(SIZE_UNITS.items()):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def _parts(text: str, rule: str) -> tuple[decimal.Decimal, str]:
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise UnitError(rule)
    number, unit = written.groups()
    compact = f"{number}{unit}"
    if text != compact and (unit in DURATION_UNITS or unit in SIZE_UNITS):
        raise UnitError(rule, f'write "{compact}"')
    return decimal.Decimal(number), unit
