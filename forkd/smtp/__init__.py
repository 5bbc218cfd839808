"""LIBRARY: SMTP as a server speaks it, sans-I/O: octets in, events out, replies in, octets out.

Nothing here knows a socket, a clock, a file, a log or another package of ours. The worker (and any
test) drives it like this:

    connection = ServerConnection(ServerOptions(hostname="mx.example.org", message_size=50 << 20))
    write(connection.greeting())
    connection.receive_data(read())
    while (event := connection.next_event()) is not None:
        if isinstance(event, DataChunk):
            keep(event.data)                       # a piece of the message: no reply
        else:
            write(connection.send(decide(event)))  # every other event: exactly one reply

| module        | answers                                                              |
|---------------|----------------------------------------------------------------------|
| server.py     | what did the client do, and may it? ServerConnection                 |
| states.py     | which command is in order now, and what comes after it?              |
| commands.py   | which verbs are there, and how is the rest of their line read?       |
| parameters.py | which parameters may MAIL and RCPT have?                             |
| extensions.py | what does the reply to EHLO announce?                                |
| grammar.py    | is this text a path, a name, a literal?                              |
| address.py    | what is a mailbox?                                                   |
| data.py       | where does the message end, and which octets is it?                  |
| options.py    | what does a listener say about itself, and what are its limits?      |
| events.py     | what can the client have done?                                       |
| reply.py      | what is a reply, and what are its bytes?                             |
| replies.py    | what do we say?                                                      |

Promises, each held by a property test: any octets, cut anywhere, give the same events; the peer can
cause no exception (ProtocolError is the caller's mistake); besides what the caller passed in while a
reply was due, one command line at most is kept; no octet of a message is ever read as a command.

One thing depends on time and not on octets alone, `early_talker`: more input behind a command that
must be last of its group is a violation only if it is there before the reply (RFC 2920 3.1).

To add: a verb is a row in commands.py, its place in states.py, an event, and its effect in
ServerConnection.send(); a parameter is a row in parameters.py; an EHLO keyword one in extensions.py.

Lenient on purpose, because real clients need it and nothing is smuggled by it: spaces before a path
and at the end of a line, `_` in domains, any plausible name in EHLO, local parts longer than 64
octets while the path has its 256. Strict on purpose: CRLF ends a command line and nothing else does;
angle brackets are required; parameters need EHLO.

Standards: RFC 5321, 1870 (SIZE), 2920 (PIPELINING), 6152 (8BITMIME), 2034/3463/5248 (enhanced codes).
"""
