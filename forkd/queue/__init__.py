"""LIBRARY: the durable spool. What `250` promises is kept here; when to try again is qmgr's question.

    root/lock                  flock of the one qmgr
    root/tmp/SLOT/ID.PROCESS   being received by a living worker; worth nothing after its death
    root/new/SLOT/ID           ours: one immutable file with message, envelope and footer (FORMAT.md); a body
                               that a plugin put in the place of the client's lies there too
    root/new/SLOT/ID.state     outcomes so far, holds and releases: one line each, appended by qmgr
    root/free/SLOT/ID          an emptied file, for a message to come (recycle.py)
    root/bad/                  what could not be understood: never deleted, always logged

    ids.py        names: sort by time, unique over workers and restarts
    format.py     the bytes of a spool file; envelope.py what its envelope holds
    spool.py      receiving: SpoolFile takes the message as it comes
    commit.py     the commit point: file sync, rename, directory sync shared by all who wait
    stored.py     reading: a committed message, checked while it streams
    recycle.py    files that come round again
    state.py      outcomes of delivery, holds and releases, appended and synced
    recovery.py   every possible leftover, what it means, what is done

A worker slot has folders of its own in tmp/ and new/: names are made without a lock shared with other
workers (measured: 10 to 15 % less CPU per message). Slots come and go; reading sees all of them. qmgr has one
too, for the reports that it writes.

Who may do what, where root starts us: workers write and rename in tmp/SLOT and new/SLOT, and read new/SLOT
(a directory can only be synced by who may read it); qmgr reads and removes by its group, and owns bad/.
"""
