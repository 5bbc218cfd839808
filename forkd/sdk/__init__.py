"""LIBRARY for plugin authors: everything a forkd plugin needs, and nothing but the standard library.

A plugin is a folder with `plugin.toml` (what it is and what it wants) and one module:

    from forkd.sdk import Plugin, deny

    # Once, before any mail; slow things belong here.
    def plugin_init(settings):
        blocked = frozenset(settings["domains"])

        # At each MAIL FROM, in a process of the session's own.
        def mail(session, sender):
            if sender.domain in blocked:
                return deny("5.7.1", f"no mail from {sender.domain}")

        return Plugin(mail=mail)

A setting's type, range (`min`, `max`) and words (`choices`) stand in plugin.toml. What else can be wrong
with it, plugin_init finds: raise ValueError("setting domains: 'a b' is no domain name") there. forkd does not
start, and its admin reads that text in one line; of any other exception the traceback is logged.

Every hook returns None (no opinion), a verdict, edits, or a list of edits and at most one verdict:

    connect(session), helo(session, name), mail(session, sender)
        None, accept, deny, defer, disconnect; export(...)
    auth(session, user, secret)
        None, ok, deny, defer, disconnect; export(...)
    rcpt(session, recipient)
        as mail, and discard (this recipient only); rewrite(...)
    data(session, envelope)
        as mail, and discard, quarantine (the message)
    message(session, envelope, message)
        as data, and the edits below
    disconnect(session)
        nothing; only if an earlier hook of the plugin was called

    add_header(name, value)     change_header(name, value, n=1)
    delete_header(name, n=0)    replace_body(body)
    add_recipient(address)      delete_recipient(address)
    change_sender(address)

The first verdict ends the hook for all plugins. Edits are made in their order, and the next plugin sees
the message and the envelope as they are then; those of a plugin that refuses count for nothing.

What to know:

- A hook may block and may crash: it runs in a sandbox that serves this one session and has a deadline.
  An exception ends it, is logged with its traceback, and the admin's `on_failure` answers the client:
  421 and close unless chosen otherwise, here and at the plugin's later hooks in that session.
- There is no network and no file, but for what the admin grants to `plugin_init`: read it there and keep it.
- A hook that was granted it may look names up (`session.dns`), keep something for later sessions
  (`session.state`) and be connected to a service (`session.connect(...)`): see `forkd.sdk.capabilities`.
- Hooks of one session run one after the other in the same process: keep what belongs to the session in
  `session.notes`, a dict of yours that is empty when a session begins.
- accept, discard, quarantine, ok and every edit need a power (header names, exports and added recipients one
  by one), and sender, recipients, header and body of the message are reads: say in plugin.toml that you want
  them, and the admin must grant them. Addresses that a plugin adds or rewrites to must be ones that forkd
  takes mail for.
- The admin may have a sandbox serve one call only (`fresh`): notes are empty at each hook then. Or several
  sessions (`reuse`): `session` is a new object for each, but what the plugin keeps elsewhere is still there.
- session.log(text) is a line in forkd's log, session.count(name) a counter there; print() goes to the log
  as well, a few lines a second, as a warning.

Beside this: `forkd.sdk.headers` (fields, RFC 2047 words), `forkd.sdk.mime` (the parts of a message, their
names and contents), `forkd.sdk.listfile` (list files), `forkd.sdk.cdb` (the keys of cdb files),
`forkd.sdk.testing` (runs a plugin in pytest without a server). Names that are not listed in __all__ here,
or are not in one of these, may change without notice.
"""

from __future__ import annotations

from forkd.sdk.address import Address, Recipient, Sender
from forkd.sdk.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteHeader,
    DeleteRecipient,
    Edit,
    Export,
    ReplaceBody,
    RewriteRecipient,
    add_header,
    add_recipient,
    change_header,
    change_sender,
    delete_header,
    delete_recipient,
    export,
    replace_body,
    rewrite,
)
from forkd.sdk.headers import Headers, decode_words, encoded
from forkd.sdk.plugin import Plugin
from forkd.sdk.verdicts import (
    Verdict,
    accept,
    defer,
    deny,
    discard,
    disconnect,
    ok,
    quarantine,
)
from forkd.sdk.views import Envelope, Message, NotGranted, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkd.sdk.capabilities import (
        CapabilityError,
        Connection,
        DnsAnswer,
        QuotaExceeded,
        StateError,
        Unavailable,
    )


def __getattr__(name: str) -> object:
    """Names of forkd.sdk.capabilities: loaded for who asks, every zygote would pay for it otherwise."""
    if name in _OF_CAPABILITIES:
        from forkd.sdk import capabilities  # noqa: PLC0415 - see above

        return getattr(capabilities, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_OF_CAPABILITIES = frozenset(
    {"CapabilityError", "Connection", "DnsAnswer", "QuotaExceeded", "StateError", "Unavailable"}
)

API = 1
"""The number that `api` in plugin.toml names; it grows only when an old plugin would break."""

__all__ = [
    "API",
    "AddHeader",
    "AddRecipient",
    "Address",
    "CapabilityError",
    "ChangeHeader",
    "ChangeSender",
    "Connection",
    "DeleteHeader",
    "DeleteRecipient",
    "DnsAnswer",
    "Edit",
    "Envelope",
    "Export",
    "Headers",
    "Message",
    "NotGranted",
    "Plugin",
    "QuotaExceeded",
    "Recipient",
    "ReplaceBody",
    "RewriteRecipient",
    "Sender",
    "Session",
    "StateError",
    "Unavailable",
    "Verdict",
    "accept",
    "add_header",
    "add_recipient",
    "change_header",
    "change_sender",
    "decode_words",
    "defer",
    "delete_header",
    "delete_recipient",
    "deny",
    "discard",
    "disconnect",
    "encoded",
    "export",
    "ok",
    "quarantine",
    "replace_body",
    "rewrite",
]
