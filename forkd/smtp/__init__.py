"""LIBRARY: SMTP as a server and a client speak it, sans-I/O: octets in, events out, replies in, octets out.

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
| dialogue.py   | what stands, and what do our replies change of it? its base          |
| states.py     | which command is in order now, and what comes after it?              |
| terms.py      | which commands are not to be had here now, whatever the state?       |
| commands.py   | which verbs are there, and how is the rest of their line read?       |
| parameters.py | which parameters may MAIL and RCPT have?                             |
| extensions.py | what does the reply to EHLO announce?                                |
| grammar.py    | is this text a path, a name, a literal?                              |
| address.py    | what is a mailbox?                                                   |
| xtext.py      | how does text travel in a parameter?                                 |
| opening.py    | does the client begin with SMTP, or with TLS?                        |
| lines.py      | which octets came, and where does a command line end?                |
| content.py    | which octets may a message have?                                     |
| data.py       | where does a message end that comes by DATA?                         |
| chunks.py     | which octets is a message that comes by BDAT?                        |
| responses.py  | what did the client answer to a challenge of AUTH?                   |
| sasl.py       | what does that answer say? PLAIN, LOGIN, SCRAM-SHA-256, OAUTHBEARER  |
| options.py    | what does a listener say about itself, and what are its limits?      |
| events.py     | what can the client have done?                                       |
| reply.py      | what is a reply, and what are its bytes?                             |
| replies.py    | what do we say?                                                      |

The client's side, ClientConnection, has the same manners; its driver is a transport:

| module                | answers                                                      |
|-----------------------|--------------------------------------------------------------|
| client.py             | what can be asked of a server? ClientConnection              |
| client_dialogue.py    | what stands, and what do the server's replies change of it?  |
| client_transaction.py | what do they mean for each recipient?                        |
| client_pipeline.py    | which commands may go now, and whose reply is the next one?  |
| client_mail.py        | what is sent, and what must the server be able to do for it? |
| client_body.py        | which octets does a message become, by DATA or BDAT?         |
| client_replies.py     | what does a reply say, whatever octets it is made of?        |
| client_offered.py     | what can this server do?                                     |
| client_sasl.py        | what does a client answer to a SASL mechanism?               |
| client_events.py      | what can have become of what was asked?                      |
| client_phases.py      | what is waited for, how long, and by which options?          |

Who reads: commands are read by ServerConnection from Input (lines.py); where something else comes, a
message, a chunk, a response, one of five readers with a next_event() of its own has the octets until it
is over. A chunk that is refused is read over by such a reader too, and one looks at the first two octets
in the clear.

TLS and passwords are the caller's, because they need sockets and time. STARTTLS is answered 220, then
`tls_waiting` holds until secured() is called; AUTH is an exchange of Auth, AuthData and challenges, whose
meaning sasl.py knows; XCLIENT is answered with restart().

Promises, each held by a property test: any octets, cut anywhere, give the same events; the peer can
cause no exception (ProtocolError is the caller's mistake); besides what the caller passed in while a
reply was due, one command line at most is kept; no octet of a message is ever read as a command, and
no octet that came in the clear is ever read as if it had come under TLS.

Two things depend on time and not on octets alone. With `early_talker`, more input behind a command that
must be last of its group is a violation only if it is there before the reply (RFC 2920 3.1). Behind
STARTTLS it always is one: 554 while that can be said, and after our 220 the end without a word.

To add: a verb is a row in commands.py, its place in states.py, an event, and its effect in
Dialogue._accept(); what stands in its way for all states is in terms.py; a parameter is a row in
parameters.py; an EHLO keyword one in extensions.py; a SASL mechanism is a row and a class in sasl.py.

Lenient on purpose, because real clients need it and nothing is smuggled by it: more spaces before an
argument or a path and at the end of a line, `_` in domains, any plausible name in EHLO, local parts longer
than 64 octets while the path has its 256. Strict on purpose: CRLF ends a command line and nothing else
does; angle brackets are required; parameters need EHLO.

Left out on purpose: BINARYMIME (neither strict line ends nor mailboxes can carry it); channel binding in
SCRAM; `AUTH=` in the old form of some clients.

Standards: RFC 5321, 1870 (SIZE), 2920 (PIPELINING), 6152 (8BITMIME), 2034/3463/5248 (enhanced codes), 3030
(CHUNKING), 3207 (STARTTLS), 3461 (DSN), 4954 (AUTH) with 4616, 5802/7677 and 7628, 6531
(SMTPUTF8), 9422 (LIMITS); Postfix' XCLIENT_README.
"""
