"""Looks for the mail it was not granted, in everything its process holds, and refuses with what it found."""

import os
import sys

from forkd.sdk import deny

SECRETS = ("hidden-recipient", "hidden-subject", "hidden-body")


def _octets():
    """Every frame received is on the stack of who received it; descriptors may be read."""
    frame = sys._getframe()
    while frame is not None:
        for value in frame.f_locals.values():
            if isinstance(value, bytes | bytearray | memoryview):
                yield bytes(value)
        frame = frame.f_back
    for fd in range(5, 64):
        try:
            yield os.pread(fd, 65_536, 0)
        except OSError:
            try:
                yield os.read(fd, 65_536)
            except OSError:
                continue


def _found(*asked):
    seen = b"\n".join(_octets())
    told = [name for name in SECRETS if name.encode() in seen]
    for ask in asked:
        try:
            told.append(repr(ask()))
        except Exception as error:
            told.append(type(error).__name__)
    return deny("5.7.1", f"{len(seen) > 20} {' '.join(told)}")


def plugin_init(settings):
    from forkd.sdk import Plugin

    def data(session, envelope):
        if session.helo == "data.example":
            return _found(lambda: envelope.recipients, lambda: envelope.sender)
        return None

    def message(session, envelope, message):
        return _found(lambda: envelope.recipients, lambda: message.headers, lambda: message.body)

    return Plugin(data=data, message=message)
