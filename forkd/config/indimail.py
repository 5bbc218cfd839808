"""What does an entry of kind indimail switch on? Compiled plugins of IndiMail's qmail-smtpd.

    kind = "indimail"
    so = "/usr/lib/indimail/plugins/smtpd-plugin.so"    # one; or a row of them, all in one sandbox:
    # dir = "/usr/lib/indimail/plugins"     # smtpd-plugin.so, smtpd-plugin0.so, smtpd-plugin1.so ...
    # base = "smtpd-plugin.so"              # SMTP_PLUGIN there
    # symbol = "plugin_init"                # SMTP_PLUGIN_SYMB there
    # refusal = "command"                   # or "session": the reply, then the end
    # data_at = "end"                       # or "command": before any data was sent
    # environment = { DNSBLLIST = "dnsbllist" }
    [grants]
    files = ["/etc/indimail/control"]       # what it reads

They have no manifest, and can do no more than refuse: there is nothing else to grant. The name is that of the
entry's file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from forkd.config.capability_grants import capabilities
from forkd.config.grants import Around
from forkd.config.kinds import SESSION, check_environment, check_without_manifest
from forkd.config.limits import limits_in_force
from forkd.config.problems import display_path
from forkd.config.reader import Reader
from forkd.config.schema import Entry, Hook, PluginConfig
from forkd.config.switched import limits_given, switched_on, without_manifest

ENDING: Final = ".so"


def row_of(folder: Path, base: str) -> tuple[list[Path], list[str]]:
    """The plugins in `folder`, in their order; and those that a gap before them leaves out.

    `base` where it is there, then NAME0.so, NAME1.so and so on up to the first number that is not there.
    Raises OSError.
    """
    there = {path.name for path in folder.iterdir()}
    stem = base.removesuffix(ENDING)
    names = [base] if base in there else []
    number = 0
    while (name := f"{stem}{number}{ENDING}") in there:
        names.append(name)
        number += 1
    behind = [
        other
        for other in there
        if other.startswith(stem)
        and other.endswith(ENDING)
        and (digits := other[len(stem) : -len(ENDING)]).isdecimal()
        and str(int(digits)) == digits
        and int(digits) > number
    ]
    return [folder / name for name in names], sorted(behind)


def read_compiled(
    source_name: str,
    reader: Reader,
    entry: Entry,
    raw: dict[str, Any],
    around: Around,
    *,
    order: int,
    notes: list[str],
) -> PluginConfig | None:
    """The plugin that an entry of this kind switches on; None where it has a problem, which is noted.

    source_name  name of the entry's file without number and ending.
    """
    before = len(reader.problems)
    check_without_manifest(reader, entry, source_name)
    code = _code(reader, entry, raw, notes)
    if not entry.symbol.isidentifier() or not entry.symbol.isascii():
        reader.bad(("symbol",), "this is the name of a C function", value=entry.symbol)
    check_environment(reader, entry.environment, [SESSION])
    hooks: tuple[Hook, ...] = ("mail", "rcpt", data_hook(entry.data_at))
    one = without_manifest(
        source_name, reader, entry, around, notes, file=code[0] if code else None, hooks=hooks
    )
    one.settings()
    wants = one.wants({})
    powers = one.powers(wants)
    one.reads(wants)
    allowed = capabilities(one, {})
    one.mode()
    given = limits_given(raw)
    limits = limits_in_force(one, given)
    if "message_timeout" not in given:
        # data_func is not given the message: it has no more to do than the others.
        limits = msgspec.structs.replace(limits, message_timeout=limits.timeout)
    for key, value, only in (("reuse", limits.reuse, 1), ("fresh", limits.fresh, "session")):
        if value != only:
            rule = (
                "a compiled plugin is loaded once for each session: what it knows of that is in static memory"
            )
            reader.bad(("limits", key), rule, value=value, hint="leave it out")
    scope = one.scope()
    if len(reader.problems) > before or not code:
        return None
    return switched_on(
        one,
        {},
        order=order,
        code=tuple(code),
        environment=entry.environment,
        symbol=entry.symbol,
        refusal=entry.refusal,
        data_at=entry.data_at,
        powers=powers,
        reads=("envelope",),
        files=entry.grants.files,
        capabilities=allowed,
        limits=limits,
        scope=scope,
    )


def _code(reader: Reader, entry: Entry, raw: dict[str, Any], notes: list[str]) -> list[Path]:
    """The files that are loaded; [] where there are none, which is a problem, and noted."""
    if entry.so is not None and entry.dir is not None:
        reader.bad(("dir",), "this plugin is a file (so) already", hint="leave one of them out")
    elif entry.so is not None:
        if "base" in raw:
            reader.bad(("base",), "this is for dir: so names the file", hint="leave it out")
        if entry.so.is_file():
            return [entry.so]
        reader.bad(("so",), "there is no such file", value=entry.so)
    elif entry.dir is not None:
        return _of_folder(reader, entry.dir, entry.base, notes)
    elif reader.problems.clean(reader.source, ("so",), ("dir",)):
        reader.bad(("so",), "this key must be set, or dir: which compiled plugin does this file switch on?")
    return []


def _of_folder(reader: Reader, folder: Path, base: str, notes: list[str]) -> list[Path]:
    if "/" in base or not base.endswith(ENDING) or base == ENDING:
        reader.bad(("base",), f"this is the name of a {ENDING} file in dir", value=base)
        return []
    try:
        found, behind = row_of(folder, base)
    except OSError as error:
        reader.bad(("dir",), f"cannot be read: {(error.strerror or str(error)).lower()}", value=folder)
        return []
    if not found:
        first = f"{base.removesuffix(ENDING)}0{ENDING}"
        reader.bad(("dir",), f"there is neither {base} nor {first} in it", value=folder)
    if behind:
        notes.append(
            f"{display_path(reader.source.path)}: not loaded, because a number before them is missing: "
            f"{', '.join(behind)} in {display_path(folder)}"
        )
    return found


def data_hook(data_at: str) -> Literal["data", "message"]:
    """The hook at which data_func is called."""
    return "data" if data_at == "command" else "message"
