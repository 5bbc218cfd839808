"""Of what are the schema's tables made? Base class, rules that stand in a type, ranges used often."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Final

import msgspec

from forkd.config.units import Seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Between:
    """Range of a number, both ends included, in the base unit; `None`: no end."""

    low: float
    high: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class NotEmpty:
    """A string or list that must say something."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ordered:
    """A list in which order matters and a word may stand twice: a program and its arguments."""


DAY: Final = 86_400.0
Count = Annotated[int, Between(1, 1_000_000_000)]
CountOrNone = Annotated[int, Between(0, 1_000_000_000)]
Wait = Annotated[Seconds, Between(0.001, 30 * DAY)]
WaitOrNone = Annotated[Seconds, Between(0, 30 * DAY)]
Text = Annotated[str, NotEmpty()]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables: frozen, no unknown keys. Ranges stand in the types; reader.py holds them."""
