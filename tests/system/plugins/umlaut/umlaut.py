"""Refuses a client called bad.example, the recipient `niemand`, and DATA for `voll`; in German, for tests."""

from forkd.sdk import Plugin, defer, deny


def plugin_init(settings):
    def helo(session, name):
        return deny("5.7.1", "No, bad") if name == "bad.example" else None

    def rcpt(session, recipient):
        return deny("5.1.1", "Empfänger unbekannt") if recipient.local == "niemand" else None

    def data(session, envelope):
        full = any(recipient.local == "voll" for recipient in envelope.recipients)
        return defer("4.2.2", "Überfüllt") if full else None

    return Plugin(helo=helo, rcpt=rcpt, data=data)
