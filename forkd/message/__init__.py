"""LIBRARY, sans-I/O: header text of messages on their way through: what we add, count and change.

    header.py   looking at a header: its fields, exact bytes
    trace.py    the Received field we add, and how many there are
    edits.py    the octets a recipient gets: trace, plugins' edits, message, in the line end asked for
    report*.py  reports to senders (RFC 3464): who is told what, and how it is written (report.py says more)

The message itself stays as it came (it lies immutable in the spool); its header is edited, and fields are put
on top, while it streams by.
"""
