"""PROCESS: brings queued mail to its transports until every recipient is done with.

    main.py       the loop: pokes, the walk for lost pokes, master, the clock
    clients.py    its connections: admin's requests, workers whose clients wait
    intake.py     which messages there are: at the start, by poke, by walk
    manager.py    what is done with a message that is due: load, plan, hand to the lanes, take back
    loading.py    what its files say, and what is done where they cannot be read
    acts.py       an admin removes, bounces, holds, releases; acts_files.py, acts_bounce.py on disk
    schedule.py   pure: which message is due when
    retry.py      pure: when it is tried again, warned of, given up
    planning.py   pure: which of a message's destinations are tried now, and when it is looked at again
    turns.py      pure: whose turn it is of what is due, fair to each destination
    destination.py  pure: how much one destination bears, and when it is asked again after it was away
    routing.py    which transport a recipient goes to
    dispatch.py   a lane for each transport, and how much it has room for
    lanes.py      the threads of one transport, which take what waits in batches
    network.py    the event loop of the transports that wait for others; the threads that record
    senders.py    members of lists have another sender: a delivery for each
    relays.py     settings of kind "smtp" and "lmtp" become transports, with what master read for them
    programs.py   the launcher, which starts queue programs
    pipes.py      the zygotes that start the programs of transports of kind "pipe"
    proxying.py   what a client is told that waits for the next hop
    measuring.py  what metrics are told of the queue: how long, how old
    record.py     outcomes become durable: reports, then a line in `.state`, or the removal of the message
    reporting.py  who is told of them: reports become mail of our own
    requests.py   what admin may ask: list, show, stat, remove, bounce, flush, hold, release
    requests_desk.py  requests under way, and the thread that looks and acts for them
    requests_look.py, requests_filter.py, requests_pages.py   what files say, which are meant, a page of it

One loop thread owns the schedule and never waits for a transport. A lane's threads deliver, remove
what is done with, and hand the finished passes back; they touch nothing of the loop's but a queue.
Transports that wait for other machines and programs share one event loop. Outcomes that need a sync are
recorded by threads of their own, several at a time, since one sync costs the disk as much as eight.

A lane has so many messages open and no more (lanes.ROOM, AsyncTransport.connections): those behind them wait
unloaded, but for the first few. Mail for a transport of this machine alone (one destination, never away)
waits for nothing but that room. All other mail has turns: a destination that is slow holds up nobody but its
own mail, and one that is away is asked by one probe at a time, while its mail waits together.

A message's way: known (poke, start-up, walk) -> due -> waiting for its turn -> running (one pass: each
destination once that has its turn; a message has one pass at a time) -> gone (each recipient delivered or
failed, and who is to be told of it told), or waiting again (some deferred). A message that a plugin
quarantined, or an admin held, is learnt the same way and then stays on hold until it is released: no flush
reaches it.

Each recipient has a time of its own for its next try, told from `.state` alone, so a restart moves none;
what waits for a destination that is away has no attempt counted, and is looked at when it must be given up or
its sender told. What is known of destinations (windows, which are away, which are held) is not written down:
after a restart it is found out anew, by as many tries as a window is wide. A clock that is set back is seen
(main.py), and nothing waits for the old time.

What a worker brings while its client waits (accept = "proxy") goes the same way through the lanes, in front
of what is queued and with places of its own, but is in no queue: nothing is recorded,
the file in tmp/ is the worker's, and the outcomes become the reply.
"""
