"""Checks passwords, for tests: of ok@, no@ and later@; all others are for the next to say."""

from forkd.sdk import Plugin, defer, deny, ok


def plugin_init(settings):
    def auth(session, user, secret):
        if user == "ok" and secret == "s3cret-token":
            return ok()
        if user == "no":
            return deny("5.7.8", "the gate says no")
        return defer("4.7.0", "the gate is closed") if user == "later" else None

    return Plugin(auth=auth)
