"""What do we say? Every stock reply, in one table, so that a line of a log can be found here.

Codes by RFC 5321 4.2.2 and 4.2.3, enhanced codes by RFC 3463 and the registry of RFC 5248. Greeting
and replies to HELO and EHLO carry no enhanced code, 354 has none (RFC 2034 4). 421 comes before every
close of our own, but where 554 is named.
"""

from __future__ import annotations

from forkd.smtp.reply import Reply, reply

# --- success ------------------------------------------------------------------------------------------
SENDER_OK = reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = reply(250, "2.1.5", "Recipient ok")
START_DATA = reply(354, None, "End data with <CR><LF>.<CR><LF>")
DATA_OK = reply(250, "2.0.0", "Ok")
RSET_OK = reply(250, "2.0.0", "Ok")
NOOP_OK = reply(250, "2.0.0", "Ok")
VRFY = reply(252, "2.5.0", "Cannot tell, but will take mail and try to deliver it")
HELP = reply(214, "2.0.0", "This is forkd; the commands are those of RFC 5321")
BYE = reply(221, "2.0.0", "Bye", close=True)


def queued(queue_id: str) -> Reply:
    """250: from here on the mail is ours."""
    return Reply(250, "2.0.0", (f"Ok: queued as {queue_id}",))


# --- the engine's refusals ----------------------------------------------------------------------------
UNKNOWN_COMMAND = reply(500, "5.5.1", "Unknown command")
NOT_IMPLEMENTED = reply(502, "5.5.1", "Command not implemented")
NOT_SMTP = reply(421, "4.7.0", "This is an SMTP server", close=True)
LINE_TOO_LONG = reply(500, "5.5.2", "Line too long")
LINE_END = reply(500, "5.5.2", "Commands end with <CR><LF>")
ENDLESS_LINE = reply(421, "4.7.0", "That line does not end", close=True)
BAD_CHARACTERS = reply(500, "5.5.2", "Commands are printable ASCII")
NO_ARGUMENT_ALLOWED = reply(501, "5.5.4", "No argument allowed")
ARGUMENT_NEEDED = reply(501, "5.5.4", "Argument needed")
BAD_HELO = reply(501, None, "Domain name or address literal needed")
BAD_MAIL = reply(501, "5.5.4", "Syntax: MAIL FROM:<address>")
BAD_RCPT = reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
BAD_SENDER = reply(501, "5.1.7", "Bad sender address syntax")
BAD_RECIPIENT = reply(501, "5.1.3", "Bad recipient address syntax")
ADDRESS_TOO_LONG = reply(501, "5.5.4", "A path has 256 octets at most")
ADDRESS_NOT_ASCII = reply(553, "5.6.7", "Non-ASCII addresses are not supported")
BAD_PARAMETER = reply(501, "5.5.4", "Bad parameter syntax")
BAD_SIZE = reply(501, "5.5.4", "SIZE is a number of octets")
BAD_BODY = reply(501, "5.5.4", "BODY is 7BIT or 8BITMIME")
DOUBLE_PARAMETER = reply(501, "5.5.4", "Parameter given twice")
UNKNOWN_PARAMETER = reply(555, "5.5.4", "Unsupported parameter")
PARAMETERS_NEED_EHLO = reply(555, "5.5.4", "Parameters need EHLO")
BAD_SEQUENCE = reply(503, "5.5.1", "Bad sequence of commands")
HELO_FIRST = reply(503, "5.5.1", "Send HELO or EHLO first")
MAIL_FIRST = reply(503, "5.5.1", "Send MAIL first")
NESTED_MAIL = reply(503, "5.5.1", "Sender already given")
NO_RECIPIENTS = reply(554, "5.5.1", "No valid recipients")
REFUSED_BEFORE = reply(503, "5.5.1", "No service here, send QUIT")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients in one transaction, send the rest in another")
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors", close=True)
EARLY_TALKER = reply(554, "5.5.1", "Did not wait for a reply", close=True)
MESSAGE_TOO_BIG = reply(552, "5.3.4", "Message too big")
BARE_LINE_END = reply(550, "5.6.0", "Message has a bare CR or LF; lines end with <CR><LF>")
NUL_IN_MESSAGE = reply(550, "5.6.0", "Message has a NUL octet")
EXPN = reply(502, "5.5.1", "Lists are not expanded here")

# --- the worker's -------------------------------------------------------------------------------------
RELAY_DENIED = reply(550, "5.7.1", "Relaying denied")
UNKNOWN_RECIPIENT = reply(550, "5.1.1", "No such mailbox here")
LOOP = reply(554, "5.4.6", "Too many hops: this message is going in a circle")
NO_SPACE = reply(452, "4.3.1", "No space for mail now, please try again later")
LOCAL_ERROR = reply(451, "4.3.0", "Local error, please try again later")
LOCAL_ERROR_CLOSE = reply(421, "4.3.0", "Local error, please try again later", close=True)
OVERLOAD_CLOSE = reply(421, "4.3.2", "Too busy, please try again later", close=True)
SHUTTING_DOWN = reply(421, "4.3.2", "Service is stopping, please try again later", close=True)
TIMEOUT = reply(421, "4.4.2", "Timeout, closing the connection", close=True)
TOO_MANY_CONNECTIONS = reply(421, "4.7.0", "Too many connections from your address", close=True)
