"""LIBRARY: ways out of the queue. A transport takes messages and says, per recipient, what became of them.

    transport.py   what a transport is: Delivery in, Result out
    maildir.py     local mailboxes (default); mailboxes.py which one is an address'
    pipe.py        a program gets each message; pipe_words.py what it is told, pipe_exits.py how it ended
    fields.py      what final deliveries put on top of a message, and how they know it again
    qmail_queue.py a queue program of qmail's kind; qmail_exits.py what its exit status means
    programs.py    how a message is given to a program, whoever starts it
    discard.py     counted and dropped
    smtp.py, lmtp.py  other servers and mail stores; what both do is relaying.py: over next hops (hosts.py) by
                   connections that are opened (opening.py, client_tls.py), kept (pool.py) and led
                   (connection.py: a smtp.ClientConnection on a socket); outgoing.py says what goes out,
                   answers.py what the replies mean

Transports raise for nothing the world can do to them: whatever fails is a Result, temporary unless
proven permanent. Only a message that itself cannot be read is a queue.format.Damaged instead.
Which recipient goes which way is qmgr's to say (qmgr/routing.py): it knows the configuration, and has the
table of kinds. Where a client waits for the outcome (accept = "proxy"), Result.reply is what it hears.
A transport that says `delivered` has made sure of it: for maildir the disk has it, for qmail-queue the
program has said so, after it read all of the message; a pipe's program by its exit status alone.
"""
