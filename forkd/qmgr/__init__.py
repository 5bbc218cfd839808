"""PROCESS: brings queued mail to its transports until every recipient is done with.

    main.py       the loop: pokes, the walk for lost pokes, admin's requests, master, the clock
    manager.py    what is done with a message that is due: load, route, hand to a lane, take back
    acts.py       an admin removes, holds, releases
    schedule.py   pure: which message is due when
    routing.py    which transport a recipient goes to
    lanes.py      the threads of one transport, which take what waits in batches
    programs.py   the launcher, which starts transports' programs
    proxying.py   what a client is told that waits for the next hop
    record.py     outcomes become durable: a line in `.state`, or the removal of the message
    requests.py   list, show, remove, flush, hold, release

One loop thread owns the schedule and never waits for a transport. A lane's threads deliver and record
(the syncs are theirs) and hand the finished passes back; they touch nothing of the loop's but a queue.

A lane has so many messages open and no more (lanes.ROOM): those behind them wait unloaded, and a next hop
that hangs holds up nobody but its own mail.

A message's way: known (poke, start-up, walk) -> due -> running (one pass: each transport once) ->
gone (all delivered), or waiting again (some deferred), or failed (none left that could still succeed:
stays in the queue, seen in `forkd queue list`, until an admin flushes it by id or removes it). A message
that a plugin quarantined, or an admin held, is learnt the same way and then stays on hold until it is
released: no flush reaches it.

What a worker brings while its client waits (accept = "proxy") goes the same way through the lanes, in front
of what is queued and with places of its own, but is in no queue: nothing is recorded,
the file in tmp/ is the worker's, and the outcomes become the reply.
"""
