"""forkd(8): the daemon and its command line."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Final

import forkd
from forkd.cli.commands import cli
from forkd.exits import EXITS
from forkd.rpc import places
from tools.manual import words
from tools.manual.commands import write_commands
from tools.manual.events import write_events
from tools.manual.roff import Page, bold, escaped, italic, marked
from tools.manual.roles import write_roles

_KINDS: Final = re.compile(r" +(?:STREAM|SEQPACKET) +")
"""Of sockets: for who writes programs that connect to them."""

_WHAT: Final = """\
forkd is the edge of a mail system: it takes mail by SMTP, asks plugins about it, commits it to a durable
spool, and brings it to Maildirs, mail stores and other servers (LMTP, SMTP), or programs. Every call of a
plugin runs in a process of its own, fresh for each session, behind seccomp, rlimits and Landlock, with no
network and no files but those that were granted, with a deadline, and with an explicit answer to "what if
it fails". A plugin that crashes, hangs or turns hostile ends its own session, and no other.

Answered 250 means that message, envelope and folder are on disk: killing any process, or losing power, at
any moment loses nothing that was answered so. It may come twice then.

Without a configuration `forkd run` serves 127.0.0.1:2525 as the calling user, writes below ./var, takes
mail for localhost and test.local, and delivers into Maildirs in ./var/mail.
"""

_PROCESSES: Final = """\
Master starts the others, watches them, and parses nothing from the network. Started by root, each drops
to a user of its own (`server.user` and the keys beside it in forkd.toml(5)); started by anybody else, all
share that user, and start-up says what is missing by it. Every role but master walls itself in before its
first line runs.
"""

_OUTPUT: Final = """\
Standard output carries what was asked for and nothing else; standard error what is said about it. With
`--json` one JSON value is printed, for a failure `{"ok": false, "error": "..."}`; the exit status is the
same as without. Tables fit the terminal.
"""

_SIGNALS: Final = """\
TERM, INT   Stop, as `forkd stop`: no new connections, 421 to idle sessions; transactions may finish for
            `server.stop_timeout`, then they have 421 too. Nothing that was accepted is lost. INT once more:
            at once.
QUIT        The same without a limit, as `forkd stop --drain`.
HUP         Read the configuration anew, as `forkd reload`; what came of it is in the log.
            Sessions go on with the old settings, until they were silent for 10 s without a transaction, or
            for 300 s; of at most 3 old generations.
"""

_LOG: Final = """\
Standard error, one line for each event, as `log.format` says: logfmt or JSON. Each line has the time, the
level, the process and the event's name. `session` and `id` (the queue id) join the lines of one mail; a
field that is empty is left out, those in brackets may be. What the reader of the log does not take is
kept for a while, then dropped and counted: a stuck log never stalls mail.

With `log.format = "journal"` events go to systemd's journal instead: the line as MESSAGE, the level as
PRIORITY, each field as FORKD_ and its name (`journalctl FORKD_SESSION=ID`). What is no event, as the stack
of a crash in C, stays on standard error.
"""

_WHICH: Final = """\
All commands mean the same one: the first of these that there is.

--config FILE           What is named on the command line.
FORKD_CONFIG            What the environment names; set to nothing it says: no file, the defaults.
./var, ./forkd.toml     The defaults, in a folder where forkd was started without a file and ./var is its;
                        likewise where a forkd.toml lies. It may be anybody's, so it is read only where it is
                        named.
/etc/forkd/forkd.toml   Where it is there and may be read.
nothing                 The defaults.

A running forkd is looked for in the `server.data_dir` of that configuration, unless `--data-dir` names it.
"""

_ENVIRONMENT: Final = """\
FORKD_CONFIG            The configuration, where `--config` names none.
NO_COLOR                Set to anything: no colours.
COLUMNS                 How wide tables are where standard output is no terminal.
QMAILQUEUE              The queue program, where a transport of kind `qmail-queue` names none.
LISTEN_FDS, LISTEN_PID  Listening sockets from systemd, or whoever speaks as it does: matched to the listeners
                        of forkd.toml(5) by address.
NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID  Where master says that it is ready and lives: sd_notify(3).
"""

_FILES: Final = """\
/etc/forkd/forkd.toml   Where packages put the configuration. Meant where no other is, see above.
plugins.d/NN-name.toml  Beside it: one file for each plugin that is on, and what it was granted.
DATA_DIR/spool          The queue; forkd/queue/FORMAT.md in the sources is its format.
DATA_DIR/mail           Maildirs, unless a transport says otherwise.
DATA_DIR/crash          Records of failed calls of plugins, where `crash.keep` is set.
DATA_DIR/state          What plugins keep, where one was granted it.
DATA_DIR/trace          What `forkd explain` knows; may be removed while forkd does not run.
"""


def page(made: Page) -> Page:
    """All of forkd(8) on that page."""
    made.heading("Name")
    made.paragraph(rf"forkd \- {escaped(_first_line(cli.help or ''))}")
    made.heading("Synopsis")
    made.paragraph(f"{bold('forkd')} {italic('COMMAND')} [{italic('OPTION')}]... [{italic('ARGUMENT')}]...")
    made.heading("Description")
    words.write(made, _WHAT)
    made.heading("Commands")
    words.write(made, _OUTPUT)
    write_commands(made)
    made.subheading("Which configuration")
    words.write(made, _WHICH)
    made.subheading("Shell completion")
    made.paragraph(marked("Bash, and likewise zsh_source, fish_source:"))
    made.verbatim('eval "$(_FORKD_COMPLETE=bash_source forkd)"')
    made.heading("Processes")
    words.write(made, _PROCESSES)
    for name, card in cards():
        made.subheading(name)
        words.write(made, card)
    made.heading("Who may ask what")
    write_roles(made)
    made.heading("Signals")
    made.paragraph("To master:")
    words.write(made, _SIGNALS)
    made.heading("Exit status")
    made.paragraph(
        "A shell shows death by a signal as 128 and its number. Master reacts to its own children."
    )
    for status, said in EXITS.items():
        made.term(f"{bold(str(int(status)))} {escaped(status.name)}")
        made.further(marked(f"{said.meaning[0].upper()}{said.meaning[1:]}."))
        made.further(marked(f"Its caller: {said.caller}. Master, of a child: {said.master}."))
    made.heading("Log")
    words.write(made, _LOG)
    write_events(made)
    made.heading("Environment")
    words.write(made, _ENVIRONMENT)
    made.heading("Files")
    words.write(made, _FILES)
    made.subheading("DATA_DIR/run: what is there while it runs")
    words.write(made, _KINDS.sub("  ", words.below_question(places.__doc__)))
    made.heading("See also")
    made.paragraph(r"\fBforkd.toml\fR(5), \fBforkd\-plugin\fR(7), \fBsystemctl\fR(1)")
    return made


def cards() -> list[tuple[str, str]]:
    """Each process' name and the card that its main.py opens with; master first."""
    found = []
    for _, name, is_package in pkgutil.iter_modules(forkd.__path__):
        if is_package and name != "cli":
            try:
                module = importlib.import_module(f"forkd.{name}.main")
            except ModuleNotFoundError:
                continue
            first, _, rest = (module.__doc__ or "").partition("\n\n")
            what = first.partition(": ")[2].strip()
            found.append((name, f"{what[0].upper()}{what[1:]}\n\n{rest}"))
    return sorted(found, key=lambda one: (one[0] != "master", one[0]))


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(".").replace("A pre", "a pre")
