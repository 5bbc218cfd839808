"""PROCESS: speaks SMTP with clients, asks plugins, commits mail to the spool.

One event loop (uvloop), many sessions. The way of the bytes:

    session.py         the pump: socket -> ServerConnection -> one event -> its handler -> reply -> socket
    handlers.py        one short function per event: check (built in), ask (hooks), take effect
    recipients.py      RCPT: is this one a recipient?
    receiving.py       DATA or BDAT to the commit: the message comes in, is asked about, is handed over
    plugins.py         the session's side of plugins: asks, tells the log
    transaction.py     MAIL to end of data: recipients, spool file, envelope, the commit
    expansion.py       aliases become their members, for the envelope alone
    probing.py         forkd's own probe, beside all others
    doors.py           the listening sockets, shut while there is room elsewhere and none here
    ending.py          how a session ends that its client did not end: 421, and what comes before it
    room.py            who gives way when this worker is full
    patience.py        by when the client must have been heard
    tarpit.py          who has many recipients waits
    telling.py         what the log hears of a session
    measuring.py       what is counted that no event of the log tells
    failures.py        what log, counters and crash records hear of a plugin's failure
    shadow.py          what they hear of breakers and of plugins that are only tried
    crashes.py         the records of failed calls, written by a thread
    bodies.py          a body that a plugin put in the place of the client's
    copies.py          the sealed copy of a message that plugins read, within a budget

Who the client is, and what that allows:

    opening.py         everything before the greeting: PROXY header, implicit TLS, admission, name, delay
    proxy.py           the PROXY header itself, sans I/O
    clients.py         what an address alone tells: networks, the keys that limits count by
    identity.py        what one session knows of its client: address, name, TLS, user
    names.py           reverse names with forward check, by the worker's own resolver
    xclient.py         a trusted host says who its client is
    admission.py       may this client connect now? sessions and connections over all workers, through anvil
    rates.py           messages, recipients, failed AUTH per minute over all workers, through anvil
    tls.py             certificates, and the handshake on a running session
    authenticator.py   who knows the passwords, and the exchanges under way; one per worker
    authentication.py  AUTH as one session has it, and which senders a user may use

control.py answers admin: which sessions there are (showing.py), and ends one that it names.
services.py is what all sessions share, assembly.py makes it of what master gave, listening.py is what follows
from a listener's table, hosting.py what the handle on sandboxes is told, vitals.py what the size of the pool
goes by, main.py the process.

A handler returns its Reply at once, or a coroutine where somebody has to be asked; while one is
awaited the session reads on into a bounded buffer and parses nothing, so replies keep their order.
Time limits cost no timer per session: each session carries its own (patience.py), one sweep a second looks.
What is not configured (a rate, a PROXY header, a hook) is not asked for: an idle session costs some 3 KiB.

Nothing here delivers mail, and nothing here outlives a session but the committer thread's batch:
a message is ours when queue.Committer says so, and only then is 250 sent.
"""
