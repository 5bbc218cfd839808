"""LIBRARY: ways out of the queue. A transport takes messages and says, per recipient, what became of them.

    transport.py   what a transport is: Delivery in, Result out
    maildir.py     local mailboxes (default)
    qmail_queue.py a queue program of qmail's kind; qmail_exits.py what its exit status means
    programs.py    how a message is given to a program, whoever starts it
    discard.py     counted and dropped

Transports raise for nothing the world can do to them: whatever fails is a Result, temporary unless
proven permanent. Only a message that itself cannot be read is a queue.format.Damaged instead.
Which recipient goes which way is qmgr's to say (qmgr/routing.py): it knows the configuration, and has the
table of kinds. Where a client waits for the outcome (accept = "proxy"), Result.reply is what it hears.
A transport that says `delivered` has made sure of it: for maildir the disk has it, for qmail-queue the
program has said so, after it read all of the message.
"""
