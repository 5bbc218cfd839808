"""Edits on demand, for tests: each field X-Do of a message is one act, a JSON list of its name and arguments.

At rcpt, alias@ becomes real@ of the same domain.
"""

import json

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
    rewrite,
)

ACTS = {
    "add_header": add_header,
    "add_recipient": add_recipient,
    "change_header": change_header,
    "change_sender": change_sender,
    "delete_header": delete_header,
    "delete_recipient": delete_recipient,
    "quarantine": quarantine,
    "replace_body": replace_body,
    "replace_body_by": lambda line, times: replace_body(line * times),
}


def plugin_init(settings):
    def rcpt(session, recipient):
        if recipient.local == "alias":
            return rewrite(f"real@{recipient.domain}")
        return None

    def message(session, envelope, message):
        wanted = [json.loads(text) for text in message.headers.get_all("X-Do")]
        return [ACTS[name](*arguments) for name, *arguments in wanted]

    return Plugin(rcpt=rcpt, message=message)
