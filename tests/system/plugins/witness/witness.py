"""Writes down what it is shown, for tests: in X-Seen, and with the subject `sign` as the body's last line."""

import hashlib
import json

from forkd.sdk import Plugin, add_header, replace_body


def plugin_init(settings):
    def message(session, envelope, message):
        seen = {
            "subject": message.headers.get_all("Subject"),
            "sender": str(envelope.sender),
            "recipients": [str(recipient) for recipient in envelope.recipients],
            "size": message.size,
            "body": hashlib.sha256(message.body).hexdigest(),
        }
        edits = [add_header("X-Seen", json.dumps(seen))]
        if message.headers.get("Subject") == "sign":
            edits.append(replace_body(message.body + b"signed\n"))
        return edits

    return Plugin(message=message)
