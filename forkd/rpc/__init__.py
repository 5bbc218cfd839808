"""What our processes say to each other: typed messages, how they travel, what a new process is given.

messages.py  every message, one struct each            channel.py  one record there, one record back
start.py     what master hands to a role it forked     link.py     a role's side of its channel to master
hush.py      what master tells workers by a listening socket itself: this one ends
tracing.py   a process tells admin what its log is told, and waits for nobody
calls.py     a sandbox's answers, hostile input        PROTOCOL.md the wire, for people

A leaf: imports nothing of ours. Both ends of a msgpack channel are forks of one master, so there is
no version negotiation; both ends of a sandbox's channel are not, so that one is JSON (PROTOCOL.md).
"""
