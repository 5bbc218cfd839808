"""LIBRARY: the probe that forkd makes of itself, so that `ready` is something that was tried and not a hope.

Every probe.interval admin connects to run/probe.sock, on which all workers listen, and has a session there:

    EHLO probe.invalid
    MAIL FROM:<WORD@probe.invalid>      550 5.7.1 … WORD     by the plugin @probe, out of its sandbox
    MAIL FROM:<>                        250                  asked as well, it has no opinion
    RCPT TO:<nobody@probe.invalid>      550                  forkd's own answer: here nobody exists
    QUIT                                221

So one answer is true to a worker's loop, its engine, a zygote that forks, the sandbox' walls and channel,
and the spool: there is room on its disk, and a file could be written and removed (else 452 4.3.1 at MAIL).
WORD is another one each time: nothing that answers it can be of an earlier session. No probe leaves mail: in
its sessions there are no domains, no relaying, no AUTH, no aliases; whoever got at the socket, which is
admin's user's alone, could not send either.

configured.py   the plugin as worker and master know it, and the settings under which a probe's session runs
plugin/         the plugin itself: loaded by a zygote as any other, behind the same walls

The worker serves these sessions beside all others (worker/probing.py), on places that are theirs alone: a
full session table refuses clients, not the probe. They are in no count, limit, list or line of the log
above debug. admin/readiness.py says what follows from it.
"""
