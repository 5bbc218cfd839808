"""Which messages are meant? The options that all queue commands choose by."""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from forkd.config.units import UnitError, parse_duration, parse_size

STATES = ("active", "deferred", "hold")
MAX_TEXT = 1000
"""As rpc.messages.QueueFilter has it."""
MAX_TEXTS = 100

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Choice:
    """The options as qmgr gets them.

    fields   of rpc.messages.QueueFilter
    pattern  is matched here: what an admin writes may take longer than the queue should wait for it
    """

    fields: dict[str, Any]
    pattern: re.Pattern[str] | None = None

    @property
    def given(self) -> bool:
        """Something is chosen by."""
        return bool(self.fields) or self.pattern is not None

    def fits(self, entry: dict[str, Any]) -> bool:
        """What is looked at here; the rest was looked at where the entry comes from."""
        return self.pattern is None or self.pattern.search(entry["reason"]) is not None

    def filter(self, **more: Any) -> dict[str, Any]:
        """Arguments of a request: the filter, if there is one."""
        fields = {**self.fields, **more}
        return {"filter": fields} if fields else {}

    def checked(self) -> dict[str, Any]:
        """The same for an act on ids that were chosen by it: it is for those that still fit."""
        return self.filter(besides=f"reason-regex={self.pattern.pattern}") if self.pattern else self.filter()


def choice_options(function: _F) -> _F:
    """The options below, as the argument `choice`."""

    @functools.wraps(function)
    def chosen(
        *arguments: Any,
        senders: tuple[str, ...],
        recipients: tuple[str, ...],
        domains: tuple[str, ...],
        states: tuple[str, ...],
        reason: str | None,
        reason_regex: re.Pattern[str] | None,
        older_than: float | None,
        newer_than: float | None,
        min_size: int,
        max_size: int | None,
        **keywords: Any,
    ) -> Any:
        now = time.time()
        fields: dict[str, Any] = {
            "senders": senders,
            "recipients": recipients,
            "domains": domains,
            "states": states,
            "reason": reason,
            # 0 would mean: whenever, however large.
            "received_from": 0.0 if newer_than is None else max(0.0, now - newer_than),
            "received_to": 0.0 if older_than is None else max(1.0, now - older_than),
            "size_from": min_size,
            "size_to": 0 if max_size is None else max(1, max_size),
        }
        choice = Choice({name: value for name, value in fields.items() if value}, reason_regex)
        return function(*arguments, choice=choice, **keywords)

    for option in reversed(_OPTIONS):
        option(chosen)
    return chosen  # type: ignore[return-value]  # the wrapper has other keywords


def _texts(_context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > MAX_TEXTS or any(len(text) > MAX_TEXT for text in value):
        raise click.BadParameter(f"{MAX_TEXTS} of {MAX_TEXT} characters at most", param=parameter)
    if "" in value:
        # As a script's variable that is not set: it must not choose more than was meant.
        raise click.BadParameter('it is empty; the null sender is "<>"', param=parameter)
    return value


def _text(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value is None else _texts(context, parameter, (value,))[0]


def _regex(context: click.Context, parameter: click.Parameter, value: str | None) -> re.Pattern[str] | None:
    if value is None:
        return None
    _text(context, parameter, value)
    try:
        return re.compile(value, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise click.BadParameter(f"not a regular expression: {error}", param=parameter) from None


def unit(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def parsed(_context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except UnitError as error:
            hint = f": {error.hint}" if error.hint else ""
            raise click.BadParameter(f"{error}{hint}", param=parameter) from None

    return parsed


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--sender", "senders", multiple=True, callback=_texts, metavar="ADDRESS",
        help='Its sender; "<>": none.',
    ),
    click.option(
        "--recipient", "recipients", multiple=True, callback=_texts, metavar="ADDRESS",
        help="Somebody who does not have it yet.",
    ),
    click.option(
        "--domain", "domains", multiple=True, callback=_texts, metavar="DOMAIN", help="Their domain."
    ),
    click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Where it stands."),
    click.option(
        "--reason", callback=_text, metavar="TEXT", help="A part of why it is still there."
    ),
    click.option(
        "--reason-regex", callback=_regex, metavar="REGEX", help="The same as a regular expression."
    ),
    click.option(
        "--older-than", callback=unit(parse_duration), metavar="AGE", help="Received longer ago, as in 4h."
    ),
    click.option(
        "--newer-than", callback=unit(parse_duration), metavar="AGE", help="Received since, as in 30m."
    ),
    click.option(
        "--min-size", default="0B", callback=unit(parse_size), metavar="SIZE", help="As large, as in 1MiB."
    ),
    click.option("--max-size", callback=unit(parse_size), metavar="SIZE", help="No larger."),
)  # fmt: skip
