"""LIBRARY lookups: what DNS says, for whoever of ours asks much and asks again.

    resolver.py   one question, one answer, with what is kept and what is under way
    kept.py       which answers are remembered
    servers.py    which name servers are asked

The broker asks for plugins, qmgr's transports for next hops. Workers have a resolver of their own for the
names of clients (worker/names.py), which wants one thing only, by UDP alone,
of the same servers.
"""
