"""Comes after another plugin, for tests: tells what that exported, and refuses at RCPT to pid@."""

import os

from forkd.sdk import Plugin, deny


def plugin_init(settings):
    def mail(session, sender):
        if sender.local == "exported":
            return deny("5.7.1", f"exported {sorted(session.exports.items())}")
        return None

    def rcpt(session, recipient):
        return deny("5.7.1", f"pid={os.getpid()} by second") if recipient.local == "pid" else None

    def message(session, envelope, message):
        return deny("5.7.1", "second was asked") if envelope.sender.local.startswith("last") else None

    return Plugin(mail=mail, rcpt=rcpt, message=message)
