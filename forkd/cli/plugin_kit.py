"""Which options and words do `plugin test`, `bench` and `replay` share?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import uvloop

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import safe
from forkd.exits import Exit
from forkd.kit.configured import Given, Unusable, configured, find
from forkd.kit.noted import Noted
from forkd.kit.samples import SampleError
from forkd.kit.stage import NotStarted

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
PRINTED: Final = 20
"""Lines of a plugin's output that are shown."""


def plugin_options(function: _F) -> _F:
    """PATH, --settings, --connect and --python, as `path`, `settings`, `connect`, `python`."""
    function = python_option(function)
    function = click.option(
        "--connect",
        "connect",
        multiple=True,
        metavar="TARGET=WHERE",
        help="Where a connection goes that it wants: HOST:PORT or unix:/path. Default: nowhere.",
    )(function)
    function = click.option(
        "--settings",
        "-s",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="A setting, as an admin would write it; the values of a list apart by commas, or as TOML.",
    )(function)
    return click.argument("path")(function)


def python_option(function: _F) -> _F:
    """--python, as `python`."""
    return click.option(
        "--python",
        "python",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The plugin's own interpreter, as `python` of its entry. Default: forkd's.",
    )(function)


def dns_option(function: _F) -> _F:
    """--dns, as `name_servers`."""
    return click.option(
        "--dns",
        "name_servers",
        multiple=True,
        metavar="SERVER",
        help="Who is asked for names, as 127.0.0.1:5353. Default: this machine's name servers.",
    )(function)


@contextlib.contextmanager
def given_plugin(
    path: str,
    settings: Sequence[str],
    connect: Sequence[str] = (),
    name_servers: Sequence[str] = (),
    *,
    python: Path | None = None,
) -> Iterator[Given]:
    """The plugin, with all that it wants granted; whatever goes wrong inside is a CommandFailed."""
    try:
        with (
            not_started(),
            configured(
                find(path), settings=settings, targets=connect, name_servers=name_servers, python=python
            ) as given,
        ):
            yield given
    except (Unusable, SampleError) as error:
        raise CommandFailed(str(error), status=Exit.USAGE) from error


@contextlib.contextmanager
def not_started() -> Iterator[None]:
    """A plugin that does not start inside is a CommandFailed."""
    try:
        yield
    except NotStarted as error:
        where = (
            "plugin_init refuses its settings" if error.phase == "settings" else "the plugin does not start"
        )
        raise CommandFailed(
            "\n".join([f"{where}: {error}", *meanwhile(error)]), status=Exit.PLUGIN
        ) from error


def meanwhile(error: NotStarted) -> list[str]:
    """What was refused and printed before it was clear that it does not start."""
    told = [line for one in error.refused if not one.harmless for line in refusal_lines(one)]
    lines = ["refused system calls:", *(f"  {line}" for line in told)] if told else []
    if error.printed:
        lines += ["it printed:", *(f"  {safe(line)}" for line in error.printed.splitlines()[-PRINTED:])]
    return lines


def refusal_lines(one: Noted) -> list[str]:
    """A refused system call: what, when, where; then what to do instead."""
    refusal = one.refusal
    when = " while it was loaded" if refusal.loading else ""
    where = safe(one.place) or "by no line of the plugin that could be seen"
    lines = [f"{safe(refusal.text)}: {refusal.result}{when}, {where}", f"    instead: {one.advice.instead}"]
    if one.advice.grant:
        lines.append(f"    or, if the admin grants it: {safe(one.advice.grant)}")
    return lines


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """On the event loop that a worker has."""
    return uvloop.run(work)


def milliseconds(seconds: float) -> str:
    """For a table."""
    return f"{seconds * 1000:.2f}"
