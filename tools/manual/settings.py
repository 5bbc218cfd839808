"""forkd.toml(5): the configuration, and the entries of plugins.d."""

from __future__ import annotations

from typing import Final

from forkd.config import aliases, kinds, pipe_schema, routes, units
from forkd.config.schema import Config, Entry
from tools.manual import schema, words
from tools.manual.roff import Page, bold, marked

_WHAT: Final = """\
TOML: one file, and the folder plugins.d beside it with one file for each plugin. Every key has a default;
without a file forkd runs on defaults. Unknown keys, values of another kind and contradictions are errors,
which name file, line, table, key, the rule, and what may have been meant. Nothing starts with one of
them.

    forkd config check /etc/forkd/forkd.toml
    forkd config show --effective --config /etc/forkd/forkd.toml

Paths are relative to the file they stand in. The sample that comes with forkd, etc/forkd.toml, has every
key with its default, commented out. [NAME] is a table, [listener.NAME] one of many, each with a name of
your own; a name with dots or other signs stands in quotes: [domain."example.org"].
"""

_ENTRIES: Final = """\
A file NN-name.toml in plugins.d switches a plugin on and says what it may do: what is not granted does
not happen, and a plugin that wants something else does not start. The number is its place in the order in
which plugins are asked. How plugins are written: forkd-plugin(7).
"""


def page(made: Page) -> Page:
    """All of forkd.toml(5) on that page."""
    made.heading("Name")
    made.paragraph(r"forkd.toml \- configuration of forkd")
    made.heading("Description")
    words.write(made, _WHAT)
    made.subheading("Durations and sizes")
    text = (units.__doc__ or "").partition("\n\n")
    made.paragraph(marked(f"Written as {text[0].partition('?')[2].strip()}"))
    words.write(made, text[2])
    for names, what in ((units.DURATION_UNITS, "Durations"), (units.SIZE_UNITS, "Sizes")):
        made.paragraph(f"{what}: {', '.join(bold(name) for name in names)}.")
    made.heading("Tables")
    schema.write_sections(made, schema.sections(Config))
    made.heading("Patterns of routes")
    words.write(made, words.below_question(routes.__doc__))
    made.heading("Files of aliases")
    words.write(made, words.below_question(aliases.__doc__).replace("MOST_DEPTH", str(aliases.MOST_DEPTH)))
    made.heading("Programs of transports")
    _programs(made)
    made.heading("Files in plugins.d")
    schema.write_sections(made, schema.sections(Entry, about=_ENTRIES))
    made.subheading("Keys of one kind of plugin")
    for key, of in kinds.KEYS.items():
        made.term(bold(key))
        made.further(marked(f"Only of kind {', '.join(f'`{kind}`' for kind in of)}."))
    made.heading("See also")
    made.paragraph(r"\fBforkd\fR(8), \fBforkd\-plugin\fR(7)")
    return made


def _programs(made: Page) -> None:
    """What a transport of kind "pipe" tells its program."""
    made.paragraph(marked('A transport of kind `"pipe"` replaces these in the words of `argv`:'))
    for names, what in (
        (pipe_schema.OF_RECIPIENT, "Of the recipient; such a word comes once for each:"),
        (pipe_schema.OF_MESSAGE, "Of the message:"),
    ):
        made.term(what)
        made.further(" ".join(bold(f"${{{name}}}") for name in names))
    made.paragraph("And sets in its environment, where they are known:")
    made.paragraph(" ".join(bold(name) for name in pipe_schema.VARIABLES))
