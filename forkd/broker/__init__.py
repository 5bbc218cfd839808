"""PROCESS broker: what do plugins get of the world beside the mail? DNS, kept state, connections.

main.py      the process: workers' connections, which bring the channels of sandboxes
channel.py   one sandbox's channel: a request, an answer, and what ends it
serving.py   from a request to its answer: granted? within the quota? then who does it
protocol.py  the types of requests and answers, and their bounds
grants.py    pure: which names, which targets
quotas.py    pure: how often in a second, how often in a session
state.py     the store, as the others know it
sqlite_store.py, sqlite_file.py  SQLite behind it: a thread with its queue, and the file
connect.py   connections to the targets that the admin named
PROTOCOL.md  what goes over, byte by byte

Started only where some plugin was granted one of the three. A sandbox asks on a channel of its own, which
its worker made and handed to the broker with the names of plugin and session: who asks is known by the
channel, nothing in a request can say otherwise. Sandboxes are hostile: a request is decoded strictly, one is
in flight at a time, and whatever is out of protocol ends that channel and nothing else.

When the broker dies, the channels of running sandboxes are gone for the rest of their sessions: they see
"temporary" and Unavailable, and go on. Sessions that begin while it is away find its successor, because the
listening socket is master's.
"""
