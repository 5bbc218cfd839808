"""LIBRARY: ways out of the queue. A transport takes messages and says, per recipient, what became of them.

    transport.py   what a transport is: Delivery in, Result out
    maildir.py     local mailboxes (default)
    discard.py     counted and dropped

Transports raise for nothing the world can do to them: whatever fails is a Result, temporary unless
proven permanent. Only a message that itself cannot be read is a queue.format.Damaged instead.
Which recipient goes which way is qmgr's to say (qmgr/routing.py): it knows the configuration.
A transport that says `delivered` has made sure of it: for maildir the disk has it.
"""
