"""What of qmail's control files is not read, and what does the same in forkd? One row per file.

Names are those of qmail-control(5) and indimail-control(5). They are listed by `forkd config import-qmail`.
"""

from __future__ import annotations

import fnmatch
from typing import Final

_QUEUE = "qmail-send and its programs go on reading it, behind transport qmail-queue"
_LISTS = "a plugin: plugins/README.md says how to write one"

INSTEAD: Final[dict[str, str]] = {
    # qmail-smtpd
    "accesslist": _LISTS,
    "authdomains": '[listener.NAME] role = "submission" for who must authenticate',
    "badext*": "plugin attachments",
    "badhelo*": "a plugin with the hook helo",
    "badhost*": "a plugin with the hook connect",
    "badip*": "a plugin with the hook connect",
    "blackholed*": "a plugin that answers discard()",
    "bodycheck": "plugin headers for header fields; a plugin that reads bodies for the rest",
    "chkrcptdomains*": 'mailboxes = ["..."] below [domain."NAME"], or plugin recipients',
    "chksenderdomains*": "auth.sender_check: on submission a sender must be the user's own",
    "dnsbllist": "plugin dnsbl",
    "domainqueue": '[domain."NAME"] transport = "..."',
    "earlytalkerdroptime": "[listener.NAME] early_talker",
    "etrnhosts": "nothing: ETRN is not spoken",
    "atrnaccess": "nothing: ATRN is not spoken",
    "*.envrules": "[scope] of a plugin: its listeners, client networks, domains",
    "greetdelay": "[listener.NAME] greeting_delay",
    "greylist*": "plugin greylist",
    "hostaccess": _LISTS,
    "localiphost": 'a domain of its own: [domain."[192.0.2.1]"]',
    "maxcmdlen": "[limits] command_line",
    "moreipme": 'a domain of its own: [domain."[192.0.2.1]"]',
    "notipme": "nothing to do: only [domain] says what is ours",
    "nodnscheck*": "nothing to do: forkd looks no sender's domain up unless a plugin does",
    "variables": "what stands in there overrides control files (DATABYTES ...): write it into forkd.toml",
    "recipients*": 'mailboxes = ["..."] below [domain."NAME"], or plugin recipients',
    "relaydomains": "networks.relay, by address; or AUTH on a listener for submission",
    "relaymailfrom*": "AUTH on a listener for submission: a sender's address can be made up",
    "signatures": "plugin attachments",
    "spf*": "plugin auth_results",
    "spamignore*": "[scope] or exceptions of the plugin that filters",
    "tlsclients": "[tls] client_ca, and client_certificates of the [listener]",
    "tlsserver*": "[tls] ciphers; TLS 1.2 is the least",
    "servercipher*": "[tls] ciphers",
    "servercert*": '[certificate."NAME"] chain, key',
    "clientca*": "[tls] client_ca",
    "certs": '[certificate."NAME"] chain, key; [tls] client_ca',
    "timeoutread": "[timeouts]",
    "timeoutwrite": "[timeouts]",
    "batv*": "nothing of forkd's: no BATV",
    "srs_*": _QUEUE,
    "dkim*": "plugin auth_results checks; signing is the queue's",
    "domainkeys": "plugin auth_results checks; signing is the queue's",
    "signaturedomains": "plugin auth_results checks; signing is the queue's",
    "nosignaturedomains": "plugin auth_results checks; signing is the queue's",
    "mysql_lib": "nothing of forkd's: no MySQL",
    "*.sql": "nothing of forkd's: no MySQL; a plugin can connect to a service that knows",
    # the queue and its filters
    "filterargs": 'a plugin with kind = "program"',
    "spamfilter": 'a plugin with kind = "program"',
    "rejectspam": "what the exit code of that program says",
    "smtproutes*": _QUEUE,
    "qmtproutes": _QUEUE,
    "concurrency*": _QUEUE,
    "queuelifetime": f"{_QUEUE}; [queue] give_up is for what waits before it",
    "bounce*": _QUEUE,
    "doublebounce*": _QUEUE,
    "default*": _QUEUE,
    "envnoathost": _QUEUE,
    "helohost": _QUEUE,
    "idhost": _QUEUE,
    "percenthack": _QUEUE,
    "plus*": _QUEUE,
    "qmqpservers": _QUEUE,
    "timeoutconnect": _QUEUE,
    "timeoutremote": _QUEUE,
    "users": _QUEUE,
    "domainbindings": _QUEUE,
    "outgoingip": _QUEUE,
    "bindroutes": _QUEUE,
    "mailarchive": _QUEUE,
    "quarantine": "the verdict quarantine() of a plugin, and `forkd queue release`",
    "extraqueue": "a plugin that answers add_recipient(...)",
    "removeheaders": "plugin headers",
    "localdomains": _QUEUE,
    "maxdeliveredto": _QUEUE,
    "host.*": "nothing of forkd's: IndiMail's own databases",
}
"""Pattern of a file's name -> what to do instead."""

UNKNOWN: Final = "no control file that forkd knows"


def instead(name: str) -> str:
    """What to do in the place of this file."""
    if name in INSTEAD:
        return INSTEAD[name]
    return next((text for row, text in INSTEAD.items() if fnmatch.fnmatchcase(name, row)), UNKNOWN)
