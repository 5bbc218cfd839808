"""Tells where it runs and what it remembers, for tests: the sender's local part says what to do.

tell    the reply to MAIL: process, sessions that this sandbox has met, what it kept of this one
crash   the process ends; sleep-N: after N milliseconds there is no opinion (at MAIL and at message)
"""

import os
import time

from forkd.sdk import NotGranted, Plugin, deny, export


def plugin_init(settings):
    met = []

    def helo(session, name):
        met.append(name)
        session.notes["helo"] = name
        return export("PROBE", name)

    def act(local):
        if local == "crash":
            os._exit(3)
        what, _, ms = local.partition("-")
        if what == "sleep":
            time.sleep(int(ms) / 1000)

    def mail(session, sender):
        session.notes["sender"] = sender.local
        act(sender.local)
        if sender.local == "tell":
            facts = (session.helo, session.user, session.exports.get("PROBE"))
            return deny(
                "5.7.1", f"pid={os.getpid()} met={len(met)} notes={sorted(session.notes)} facts={facts}"
            )
        return None

    def rcpt(session, recipient):
        if recipient.local == "where":
            return deny("5.7.1", f"pid={os.getpid()} by probe")
        return None

    def data(session, envelope):
        try:
            sender = envelope.sender
        except NotGranted:
            return None
        return deny("5.7.1", f"saw {sender}") if sender.local == "seen" else None

    def message(session, envelope, message):
        act(session.notes.get("sender", ""))

    return Plugin(helo=helo, mail=mail, rcpt=rcpt, data=data, message=message)
