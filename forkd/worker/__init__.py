"""PROCESS: speaks SMTP with clients, asks plugins, commits mail to the spool.

One event loop (uvloop), many sessions. The way of the bytes:

    session.py      the pump: socket -> ServerConnection -> one event -> its handler -> reply -> socket
    handlers.py     one short function per event: check (built in), ask (hooks), take effect
    receiving.py    DATA to the commit: the message comes in, is asked about, is handed over
    plugins.py      the session's side of plugins: asks, tells the log
    transaction.py  MAIL to end of data: recipients, spool file, envelope, the commit
    admission.py    may this peer connect now? limits over all workers, through anvil
    copies.py       the sealed copy of a message that plugins read, within a budget

A handler returns its Reply at once, or a coroutine where a plugin has to be asked; while one is
awaited the session reads on into a bounded buffer and parses nothing, so replies keep their order.
Time limits cost no timer per session: each session carries its deadline, one sweep a second looks.

Nothing here delivers mail, and nothing here outlives a session but the committer thread's batch:
a message is ours when queue.Committer says so, and only then is 250 sent.
"""
