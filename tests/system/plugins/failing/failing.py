"""Fails in every way there is, for tests: `<key>-<hook>-<way>` says where and how.

It stands in the HELO name (before its first dot), in the sender or in the recipient; at connect, where only
the client's address can be read, its third octet is the index of the way, its second one says which plugin.
"""

import ctypes
import itertools
import os
import re
import socket
import sys
import time

from forkd.sdk import Plugin, accept

CHANNEL = 3
SECOND_OCTET = {"session": "20", "call": "21"}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.malloc.restype = ctypes.c_void_p
LIBC.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)


def code_with(instruction):
    """Where in libc's code these octets stand, whatever they are a part of there."""
    start = ctypes.cast(LIBC.abort, ctypes.c_void_p).value
    return start + ctypes.string_at(start, 400_000).index(instruction)


HOLDING_GIL = ctypes.PYFUNCTYPE(None)
TRAP = HOLDING_GIL(code_with(b"\xcc"))
UNDEFINED = HOLDING_GIL(code_with(b"\x0f\x0b"))


class Channel:
    """What goes out on the sandbox's own channel, past the SDK."""

    def __init__(self):
        self.calls = 0

    def send(self, *records):
        channel = socket.socket(fileno=CHANNEL)
        for record in records:
            channel.send(record.replace(b"@", str(self.calls).encode()))
        channel.detach()


def raw(*records):
    return lambda channel: channel.send(*records)


def flood(channel):
    while True:
        channel.send(b'{"n":@,"unknown":1}')


def stop_reading(channel):
    channel.send(b'{"n":@}')
    time.sleep(3600)


def close_channel(channel):
    os.close(CHANNEL)
    time.sleep(3600)


def close_and_end(channel):
    os.close(CHANNEL)
    os._exit(0)


def raises(error):
    def act(channel):
        raise error

    return act


class UnprintableError(Exception):
    def __str__(self):
        raise ValueError("not even that")


class NeverPrintedError(Exception):
    def __str__(self):  # noqa: PLE0307 - it never comes to that
        while True:
            pass


def recurse(channel):
    def deeper():
        deeper()

    deeper()


def overflow(channel):
    sys.setrecursionlimit(1 << 30)
    value = None
    for _ in range(10_000_000):
        value = (value,)
        if _ % 1_000_000 == 0:
            repr(value)


def hoard(channel):
    kept = []
    while True:
        kept.append(bytearray(4 << 20))


def hoard_in_c(channel):
    while True:
        LIBC.memset(LIBC.malloc(4 << 20), 1, 4 << 20)


def loop(channel):
    while True:
        pass


def backtrack(channel):
    re.match(r"(a+)+$", "a" * 60 + "b")


def print_much(channel):
    for _ in range(1000):
        os.write(1, b"x" * 1000 + b"\n")
    raise RuntimeError("after much talk")


def print_ugly(channel):
    os.write(2, b"\x1b[2J\xff\x00\r\nevent=session forged=1\n")
    os._exit(7)


def calls(name, *arguments):
    return lambda channel: getattr(LIBC, name)(*arguments)


def answers(value):
    return lambda channel: value


DENY = b'{"n":@,"verdict":{"do":"deny","code":%d,"enhanced":"%b","text":"%b"}}'

WAYS = {
    # crash
    "segv": lambda channel: ctypes.string_at(0),
    "abort": lambda channel: os.abort(),
    "trap": lambda channel: TRAP(),
    "ill": lambda channel: UNDEFINED(),
    "fpe": lambda channel: LIBC.div(1, 0),
    "write_code": lambda channel: ctypes.memset(ctypes.cast(LIBC.abort, ctypes.c_void_p).value, 0, 1),
    "overflow": overflow,
    "exit0": lambda channel: os._exit(0),
    "exit3": lambda channel: os._exit(3),
    "exit_c": calls("_exit", 9),
    "close_channel": close_channel,
    "close_and_end": close_and_end,
    "print_ugly": print_ugly,
    "hoard_c": hoard_in_c,
    # exception
    "raise": raises(RuntimeError("this plugin is broken")),
    "value": raises(ValueError("\r\n250 ok")),
    "unicode": raises(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")),
    "key": raises(KeyError("\x1b[2J")),
    "os": raises(OSError(28, "No space left on device")),
    "stop": raises(StopIteration()),
    "generator": raises(GeneratorExit()),
    "keyboard": raises(KeyboardInterrupt()),
    "base": raises(BaseException("base")),
    "group": raises(BaseExceptionGroup("several", [ValueError(1), KeyError(2)])),
    "sysexit": raises(SystemExit(3)),
    "long": raises(RuntimeError("x" * 1_000_000)),
    "unprintable": raises(UnprintableError()),
    "recursion": recurse,
    "answer_number": answers(42),
    "answer_text": answers("250 ok"),
    "print_much": print_much,
    # deadline, CPU, memory
    "sleep": lambda channel: time.sleep(3600),
    "sleep_c": calls("sleep", 3600),
    "never_printed": raises(NeverPrintedError()),
    "loop": loop,
    "loop_c": lambda channel: sum(itertools.repeat(0)),
    "backtrack": backtrack,
    "hoard": hoard,
    "huge": lambda channel: bytearray(1 << 40),
    # refused system calls
    "ptrace": calls("ptrace", 0, 0, 0, 0),
    "unshare": calls("unshare", 0x10000000),
    "mount": calls("mount", b"a", b"b", b"c", 0, None),
    "chroot": calls("chroot", b"/"),
    "setns": calls("setns", 0, 0),
    "shmget": calls("shmget", 1, 4096, 0o1600),
    "personality": calls("personality", 0),
    "acct": calls("acct", None),
    # protocol
    "garbage": raw(b"\x00\xff garbage"),
    "empty": raw(b""),
    "long_frame": raw(b" " * 70_000),
    "no_json": raw(b'{"n":@'),
    "list": raw(b"[]"),
    "null": raw(b"null"),
    "number": raw(b'{"n":9999}'),
    "negative": raw(b'{"n":-1}'),
    "text_number": raw(b'{"n":"@"}'),
    "unknown_key": raw(b'{"n":@,"session":"other"}'),
    "nan": raw(b'{"n":NaN}'),
    "nested": raw(b"[" * 60_000),
    "no_utf8": raw(b'{"n":@,"by":"\xff"}'),
    "surrogate": raw(b'{"n":@,"by":"\\ud800"}'),
    "unknown_verdict": raw(b'{"n":@,"verdict":{"do":"reboot"}}'),
    "code_999": raw(DENY % (999, b"5.7.1", b"no")),
    "code_250": raw(DENY % (250, b"2.0.0", b"ok")),
    "crlf": raw(DENY % (550, b"5.7.1", b"no\\r\\n250 ok")),
    "nul": raw(DENY % (550, b"5.7.1", b"no\\u0000")),
    "empty_text": raw(DENY % (550, b"5.7.1", b"")),
    "piece": raw(b'{"n":@,"piece":"AAAA"}'),
    "not_granted": answers(accept()),
    "edit_not_granted": raw(b'{"n":@,"edits":[{"op":"add_header","name":"X","value":"y"}]}'),
    "flood": flood,
    # at the next call
    "twice": raw(b'{"n":@}'),
    "stop_reading": stop_reading,
}

WAYS = {name.replace("_", ""): way for name, way in WAYS.items()}
NAMES = list(WAYS)


def plugin_init(settings):
    key = settings["key"]
    channel = Channel()

    def at(hook, text):
        channel.calls += 1
        which, _, rest = text.partition("-")
        where, _, way = rest.partition("-")
        if which == key and where == hook and way in WAYS:
            return WAYS[way](channel)
        return None

    def connect(session):
        first, second, third, _ = session.client_ip.split(".")
        ours = first == "127" and second == SECOND_OCTET[key] and int(third) < len(NAMES)
        way = NAMES[int(third)] if ours else ""
        return at("connect", f"{key}-connect-{way}")

    def helo(session, name):
        return at("helo", name.partition(".")[0])

    def mail(session, sender):
        return at("mail", sender.local)

    def rcpt(session, recipient):
        return at("rcpt", recipient.local)

    def data(session, envelope):
        return at("data", envelope.sender.local)

    def message(session, envelope, message):
        return at("message", envelope.sender.local)

    def disconnect(session):
        return at("disconnect", (session.helo or "").partition(".")[0])

    return Plugin(
        connect=connect, helo=helo, mail=mail, rcpt=rcpt, data=data, message=message, disconnect=disconnect
    )
