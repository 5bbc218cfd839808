"""Misbehaves on demand, for tests: `<hook>-<act>` in the helo name, sender or recipient says how.

At connect there is nothing to read but the client's address: 127.0.0.(10 + index of the act).
"""

import contextlib
import itertools
import os
import signal
import time

from forkd.sdk import Plugin


def segv():
    import ctypes

    ctypes.string_at(0)


def memory():
    # Each piece is touched, and kept: the limit must stop it, not the machine.
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


def c_loop():
    # sum() over an endless iterator: C, holding the GIL, never looking for signals.
    sum(itertools.repeat(0))


def blocked_c_loop():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    c_loop()


def python_loop():
    while True:
        pass


def raises():
    raise RuntimeError("this plugin is broken")


def bad_exit():
    raise SystemExit(3)


ACTS = {
    "segv": segv,
    "abort": os.abort,
    "exit": lambda: os._exit(0),
    "raise": raises,
    "sysexit": bad_exit,
    "memory": memory,
    "sleep": lambda: time.sleep(3600),
    "pyloop": python_loop,
    "cloop": c_loop,
    "blocked": blocked_c_loop,
}


def plugin_init(settings):
    names = list(ACTS)

    def maybe(hook, text):
        where, _, act = text.partition("-")
        if where == hook and act in ACTS:
            ACTS[act]()

    def connect(session):
        index = int(session.client_ip.rpartition(".")[2]) - 10
        if 0 <= index < len(names):
            ACTS[names[index]]()

    def helo(session, name):
        maybe("helo", name.partition(".")[0])

    def mail(session, sender):
        maybe("mail", sender.local)

    def rcpt(session, recipient):
        maybe("rcpt", recipient.local)

    def data(session, envelope):
        maybe("data", envelope.sender.local)

    def message(session, envelope, message):
        maybe("message", envelope.sender.local)

    def disconnect(session):
        maybe("disconnect", session.helo.partition(".")[0])

    return Plugin(
        connect=connect, helo=helo, mail=mail, rcpt=rcpt, data=data, message=message, disconnect=disconnect
    )
