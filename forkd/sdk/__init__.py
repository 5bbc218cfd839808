"""LIBRARY for plugin authors: everything a forkd plugin needs, and nothing but the standard library.

A plugin is a folder with `plugin.toml` (what it is and what it wants) and one module:

    from forkd.sdk import Plugin, deny

    def plugin_init(settings):                        # once, before any mail; slow things belong here
        blocked = frozenset(settings["domains"])

        def mail(session, sender):                    # at each MAIL FROM, in a process of the session's own
            if sender.domain in blocked:
                return deny("5.7.1", f"no mail from {sender.domain}")

        return Plugin(mail=mail)

Every hook returns None (no opinion), a verdict, or at `message` also edits:

    connect(session)                         None, accept, deny, defer, disconnect
    helo(session, name)                      "
    mail(session, sender)                    "
    rcpt(session, recipient)                 " and discard (this recipient only)
    data(session, envelope)                  " and discard (the message)
    message(session, envelope, message)      " and add_header(...), or a list of them
    disconnect(session)                      nothing; only if an earlier hook of the plugin was called

What to know:

- A hook may block and may crash: it runs in a sandbox that serves this one session and has a deadline.
  An exception ends it, is logged with its traceback, and the admin's `on_failure` answers the client:
  421 and close unless chosen otherwise, here and at the plugin's later hooks in that session.
- There is no network and no file, but for what the admin grants to `plugin_init`: read it there and keep it.
- Hooks of one session run one after the other in the same process: keep what belongs to the session in
  `session.notes`, a dict of yours that is empty when a session begins.
- accept and discard are powers, add_header is one per header name, and sender, recipients, header and body of
  the message are reads: say in plugin.toml that you want them, and the admin must grant them.
- print() goes to forkd's log, a few lines a second.

`forkd.sdk.testing` runs a plugin in pytest without a server. Names that are not listed in __all__ here,
or in testing, may change without notice.
"""

from __future__ import annotations

from forkd.sdk.headers import Headers
from forkd.sdk.plugin import Plugin
from forkd.sdk.verdicts import (
    AddHeader,
    Verdict,
    accept,
    add_header,
    defer,
    deny,
    discard,
    disconnect,
)
from forkd.sdk.views import Address, Envelope, Message, NotGranted, Recipient, Sender, Session

API = 1
"""The number that `api` in plugin.toml names; it grows only when an old plugin would break."""

__all__ = [
    "API",
    "AddHeader",
    "Address",
    "Envelope",
    "Headers",
    "Message",
    "NotGranted",
    "Plugin",
    "Recipient",
    "Sender",
    "Session",
    "Verdict",
    "accept",
    "add_header",
    "defer",
    "deny",
    "discard",
    "disconnect",
]
