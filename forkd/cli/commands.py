"""Which commands are there, and how does a failure become a message and an exit status?"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.lazy import LazyGroup, Rows
from forkd.cli.lines import tell, tell_lines
from forkd.cli.options import Invocation, print_json
from forkd.cli.problems import problem_data, show_problems
from forkd.config.problems import ConfigError
from forkd.exits import Exit

COMMANDS: Final[Rows] = {
    "run": ("forkd.cli.run", "run", "Serve mail until told to stop."),
    "config": ("forkd.cli.config", "config", "Check, show a configuration; make one from qmail's."),
    "status": ("forkd.cli.daemon", "status", "What runs, and how it is."),
    "sessions": ("forkd.cli.sessions", "sessions", "Who is connected, and what he is about."),
    "kick": ("forkd.cli.sessions", "kick", "End sessions: 421."),
    "top": ("forkd.cli.top", "top", "Workers, rates, plugins, queue, sessions: live."),
    "reload": ("forkd.cli.reload", "reload", "Read the configuration anew, without losing a session."),
    "stop": ("forkd.cli.daemon", "stop", "Stop the daemon; nothing accepted is lost."),
    "drain": ("forkd.cli.daemon", "drain", "The same without a limit: transactions finish."),
    "queue": ("forkd.cli.queue", "queue", "List, count, export, retry, hold, remove queued mail."),
    "explain": ("forkd.cli.explain", "explain", "What happened to a session or a message, and why."),
    "user": ("forkd.cli.user", "user", "Who may hand in mail with AUTH."),
    "plugin": ("forkd.cli.plugin", "plugin", "What plugins are, what they may do, whether they are right."),
    "sandbox": ("forkd.cli.sandbox", "sandbox", "Which walls around plugins hold on this machine."),
    "version": ("forkd.cli.version", "version", "Versions of forkd and what it is built with."),
}
"""Name -> module, attribute, line of help. A module is imported when its command is called."""

INTERRUPTED: Final = 130
"""What a shell shows for a command ended by Ctrl-C: 128 + SIGINT."""


@click.group(cls=LazyGroup, rows=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A pre-forking SMTP daemon whose plugins run sandboxed.

    `forkd run` in an empty folder serves 127.0.0.1:2525 and writes below ./var; mail to any name at
    test.local lands in ./var/mail.

    Shell completion: eval "$(_FORKD_COMPLETE=bash_source forkd)", or zsh_source, fish_source.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (forkd/exits.py). The console script."""
    invocation, stdout = Invocation(), sys.stdout
    try:
        status = cli.main(arguments, prog_name="forkd", standalone_mode=False, obj=invocation)
        sys.stdout.flush()
    except ConfigError as error:
        if invocation.json:
            problems = [problem_data(problem) for problem in error.problems]
            print_json({"ok": False, "error": "the configuration is wrong", "problems": problems})
        else:
            show_problems(error)
        return Exit.CONFIG
    except CommandFailed as failure:
        return _failed(failure, as_json=invocation.json)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        tell(error=True)
        return INTERRUPTED
    except BrokenPipeError:
        return _seen_enough()
    except SystemExit:
        if sys.stdout is stdout:
            raise
        return _seen_enough()  # click's way of saying it: standard output wrapped, and status 1
    return int(status or 0)


def _seen_enough() -> int:
    """The reader (head, less) is gone. Python would complain once more while closing stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return Exit.OK


def _failed(failure: CommandFailed, *, as_json: bool) -> int:
    if as_json:
        said: dict[str, Any] = {"ok": False, "error": str(failure)}
        if failure.hint:
            said["hint"] = failure.hint
        print_json(said)
    else:
        tell_lines(f"forkd: {failure}", error=True, fg="red")
        if failure.hint:
            tell(f"  help: {failure.hint}", error=True, fg="cyan")
    return failure.status
