"""The command line: one module per command group, all of them thin.

commands  the table of commands, main(), and the one place where a failure becomes a message and a status
options   --config, --data-dir, --json: the same everywhere
which     which configuration is meant where none is named
lazy      a group of commands as a table: only the one that is called is imported
failure   what a command raises when it cannot do what was asked
problems  configuration problems for eyes: the line, a caret, the hint
tables    what is printed for eyes: fits the terminal, obeys NO_COLOR
control   one request to a running daemon over its control socket
run       forkd run
config    forkd config check | show | where | import-qmail
daemon    forkd status | stop
queue     forkd queue list | show | remove | flush
explain   forkd explain: explain_story (which events matter, what is missing), explain_words (each in words)
plugin    forkd plugin check | list | show | diff …: its table; each has a module plugin_*.py of its own
sandbox   forkd sandbox status
version   forkd version

Standard output carries what was asked for and nothing else, standard error everything that is said
about it. `--json` prints one JSON value; a failure is then `{"ok": false, "error": ...}`, with the same
exit status as without. Statuses: forkd/exits.py. Modules are imported when their command is called, so
that `forkd run` does not carry the table printer into every process it forks.
"""

from forkd.cli.commands import main

__all__ = ["main"]
