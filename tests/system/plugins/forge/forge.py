"""Goes past the SDK to its descriptors, for tests: answers as nobody granted, reads what it was not given.

The recipient's local part, in hexadecimal digits, is the answer that is written into the channel at rcpt; at
`message` every descriptor is read.
"""

import contextlib
import os

from forkd.sdk import Plugin, deny


def plugin_init(settings):
    def rcpt(session, recipient):
        if recipient.local.startswith("x-"):
            answer = bytes.fromhex(recipient.local[2:])
            os.write(3, answer)
            os._exit(0)

    def message(session, envelope, message):
        for fd in range(3, 64):
            with contextlib.suppress(OSError):
                if b"secret" in os.pread(fd, 100_000, 0):
                    return deny("5.7.1", f"read it from {fd}")
        for ask in (lambda: message.headers.raw, lambda: message.body, lambda: envelope.recipients):
            with contextlib.suppress(Exception):
                if ask():
                    return deny("5.7.1", "read it from the sdk")
        return None

    return Plugin(rcpt=rcpt, message=message)
