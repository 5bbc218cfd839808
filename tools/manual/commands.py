"""How is the command line shown? Every command with its usage, help and options, from click's own tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import click

from forkd.cli.commands import cli
from tools.manual import words
from tools.manual.roff import Page, bold, escaped, italic, marked

PROGRAM = "forkd"


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """A command with the context in which click words its usage."""

    path: tuple[str, ...]
    command: click.Command
    context: click.Context


def every_command() -> Iterator[Shown]:
    """Groups before their commands, in the order of --help; hidden ones are left out."""
    yield from _walk(cli, click.Context(cli, info_name=PROGRAM), ())


def write_commands(page: Page) -> None:
    """Each under a heading of its own; options that most commands have are explained once, at the end."""
    shared = shared_options()
    for shown in every_command():
        if not shown.path:
            continue
        page.subheading(" ".join((PROGRAM, *shown.path)))
        page.paragraph(usage(shown))
        words.write(page, shown.command.help or "")
        for option in _options(shown.command):
            if _key(option) not in shared:
                page.term(_spelt(option))
                page.further(marked(_explained(option)))
    page.subheading("Options of many commands")
    page.paragraph(marked("A command has those that its usage names. `-h`, `--help`: every one has it."))
    for option in shared.values():
        page.term(_spelt(option))
        page.further(marked(_explained(option)))


def shared_options() -> dict[tuple[str, str], click.Option]:
    """Options that mean the same in three commands or more."""
    found: dict[tuple[str, str], list[click.Option]] = {}
    for shown in every_command():
        for option in _options(shown.command):
            found.setdefault(_key(option), []).append(option)
    return {key: options[0] for key, options in found.items() if len(options) >= 3}


def usage(shown: Shown) -> str:
    """`forkd queue list [--sender ADDRESS]... [ID...]`"""
    pieces = [bold(" ".join((PROGRAM, *shown.path)))]
    for option in _options(shown.command):
        name = bold(option.opts[0])
        if option.secondary_opts:
            name += f" | {bold(option.secondary_opts[0])}"
        elif not option.is_flag:
            name += f" {italic(_metavar(option, shown.context))}"
        piece = name if option.required else f"[{name}]"
        pieces.append(piece + ("..." if option.multiple else ""))
    for argument in shown.command.params:
        if isinstance(argument, click.Argument):
            pieces.append(italic(argument.make_metavar(shown.context)))
    if isinstance(shown.command, click.Group):
        pieces.append(italic("COMMAND") + " ...")
    return " ".join(pieces)


def _walk(command: click.Command, context: click.Context, path: tuple[str, ...]) -> Iterator[Shown]:
    yield Shown(path, command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _walk(inner, click.Context(inner, info_name=name, parent=context), (*path, name))


def _options(command: click.Command) -> list[click.Option]:
    return [option for option in command.params if isinstance(option, click.Option) and not option.hidden]


def _key(option: click.Option) -> tuple[str, str]:
    return (" ".join(option.opts), option.help or "")


def _metavar(option: click.Option, context: click.Context) -> str:
    """The word that stands for its value."""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return option.opts[0].lstrip("-").upper()
    return option.make_metavar(context).strip("[]").replace("<", "").split(" ")[0].upper()


def _spelt(option: click.Option) -> str:
    context = click.Context(cli, info_name=PROGRAM)
    names = [bold(name) for name in sorted(option.opts, key=len)]
    names += [bold(name) for name in option.secondary_opts]
    spelt = ", ".join(names)
    if option.is_flag or option.count:
        return spelt
    if isinstance(option.type, click.Choice):
        return f"{spelt} {escaped(' | ').join(bold(str(choice)) for choice in option.type.choices)}"
    return f"{spelt} {italic(_metavar(option, context))}"


def _explained(option: click.Option) -> str:
    """Its help, with range and default where click shows them."""
    said = option.help or ""
    bounds = option.type if isinstance(option.type, click.IntRange | click.FloatRange) else None
    if bounds is not None and bounds.max is not None:
        said += f" From {bounds.min:g} to {bounds.max:g}."
    if option.show_default and option.default not in (None, ""):
        said += f" Default: `{option.default}`."
    if option.multiple and "again" not in said.lower() and "repeat" not in said.lower():
        said += " May be given again."
    return said.strip()
