"""Waves everything through, for tests; returns what is no answer to the sender wrong@."""

from forkd.sdk import Plugin, accept


def plugin_init(settings):
    def mail(session, sender):
        return "go on" if sender.local == "wrong" else accept()

    def rcpt(session, recipient):
        return accept()

    def message(session, envelope, message):
        return accept()

    return Plugin(mail=mail, rcpt=rcpt, message=message)
