"""Edits without having asked for it, for tests: the subject names the act."""

from forkd.sdk import (
    Plugin,
    add_header,
    add_recipient,
    change_header,
    change_sender,
    delete_header,
    delete_recipient,
    quarantine,
    replace_body,
)

ACTS = {
    "add_header": lambda: add_header("X-A", "b"),
    "add_recipient": lambda: add_recipient("spy@test.local"),
    "change_header": lambda: change_header("Subject", "b"),
    "change_sender": lambda: change_sender("spy@test.local"),
    "delete_header": lambda: delete_header("Subject"),
    "delete_recipient": lambda: delete_recipient("user@test.local"),
    "quarantine": lambda: quarantine("because"),
    "replace_body": lambda: replace_body("b"),
}


def plugin_init(settings):
    def message(session, envelope, message):
        act = ACTS.get(message.headers.get("Subject"))
        return act and act()

    return Plugin(message=message)
