"""Behaves at every hook, for tests: looks at everything, adds one header field."""

from forkd.sdk import Plugin, add_header


def plugin_init(settings):
    heard = []

    def hear(*arguments):
        heard.append(str(arguments[-1]))

    def message(session, envelope, message):
        count = len(envelope.recipients)
        return add_header("X-Polite", f"{len(heard)} hooks, {count} recipients, {len(message.body)} octets")

    return Plugin(connect=hear, helo=hear, mail=hear, rcpt=hear, data=hear, message=message, disconnect=hear)
