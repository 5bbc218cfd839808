"""LIBRARY: who knows a password? The backends that an AUTH command is answered from.

    passwords.py      verifiers: argon2id for PLAIN and LOGIN, SCRAM-SHA-256's for SCRAM; made and checked
    users.py          the users file: read, looked up, rewritten whole or not at all (FORMAT.md)
    senders.py        which addresses a user may send from
    pool.py           a few threads for work that would hold the loop, with a short queue
    dovecot_lines.py  the lines of Dovecot's auth protocol, sans I/O
    dovecot.py        its client's side on a unix socket, again after each loss
    checkpassword.py  what qmail's checkpassword programs are told, and what their exit status means
    backends.py       the one face of all of them: check(credentials) -> Accepted or Refused

A secret is held as long as its check takes. It is in no repr, no log line, no exception's text and no
file; what is stored are verifiers, from which it cannot be had back but by guessing.

Whoever asks cannot tell an unknown user from a wrong password: both take one argon2 computation, or one
SCRAM exchange with a made-up salt, and are answered the same. Nothing here delays, counts or limits: that
is the worker's (worker/authentication.py), since it knows the client.
"""
