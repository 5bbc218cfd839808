"""What do we say? Every stock reply, in one table, so that a line of a log can be found here.

Codes by RFC 5321 4.2.2 and 4.2.3, enhanced codes by RFC 3463 and the registry of RFC 5248. Greeting
and replies to HELO and EHLO carry no enhanced code, 3xx has none (RFC 2034 4). 421 comes before every
close of our own, but where 552 or 554 is named.
"""

from __future__ import annotations

import base64

from forkd.smtp.reply import Reply, reply

# --- success ------------------------------------------------------------------------------------------
SENDER_OK = reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = reply(250, "2.1.5", "Recipient ok")
START_DATA = reply(354, None, "End data with <CR><LF>.<CR><LF>")
DATA_OK = reply(250, "2.0.0", "Ok")
CHUNK_OK = reply(250, "2.0.0", "Chunk ok")
TLS_READY = reply(220, "2.0.0", "Ready to start TLS")
AUTH_OK = reply(235, "2.7.0", "Authenticated")
RSET_OK = reply(250, "2.0.0", "Ok")
NOOP_OK = reply(250, "2.0.0", "Ok")
VRFY = reply(252, "2.5.0", "Cannot tell, but will take mail and try to deliver it")
HELP = reply(214, "2.0.0", "This is forkd; the commands are those of RFC 5321")
BYE = reply(221, "2.0.0", "Bye", close=True)


def queued(queue_id: str) -> Reply:
    """250: from here on the mail is ours."""
    return Reply(250, "2.0.0", (f"Ok: queued as {queue_id}",))


def challenge(data: bytes) -> Reply:
    """334: what a SASL mechanism asks, in base64 (RFC 4954 4)."""
    return Reply(334, None, (base64.b64encode(data).decode("ascii"),))


# --- the engine's refusals ----------------------------------------------------------------------------
UNKNOWN_COMMAND = reply(500, "5.5.1", "Unknown command")
NOT_IMPLEMENTED = reply(502, "5.5.1", "Command not implemented")
NOT_SMTP = reply(421, "4.7.0", "This is an SMTP server", close=True)
NOT_TLS = reply(
    421,
    "4.7.0",
    "TLS does not begin here: set the client to STARTTLS, or to the port for implicit TLS",
    close=True,
)
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
NEEDS_SMTPUTF8 = reply(550, "5.6.7", "A non-ASCII address needs the parameter SMTPUTF8")
BAD_PARAMETER = reply(501, "5.5.4", "Bad parameter syntax")
BAD_SIZE = reply(501, "5.5.4", "SIZE is a number of octets")
NO_VALUE_ALLOWED = reply(501, "5.5.4", "SMTPUTF8 has no value")
BAD_RET = reply(501, "5.5.4", "RET is FULL or HDRS")
BAD_ENVID = reply(501, "5.5.4", "ENVID is xtext of 100 octets at most")
BAD_NOTIFY = reply(501, "5.5.4", "NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY")
BAD_ORCPT = reply(501, "5.5.4", "ORCPT is an address type, a semicolon and xtext, 500 octets at most")
BAD_AUTH = reply(501, "5.5.4", "AUTH is an address in xtext, or <>")
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
CHUNK_TOO_BIG = reply(552, "5.3.4", "Message too big", close=True)
CHUNK_LOST = reply(554, "5.5.4", "Syntax: BDAT octets [LAST]; cannot tell where that chunk ends", close=True)
CHUNK_NEEDS_EHLO = reply(503, "5.5.1", "BDAT needs EHLO")
NOT_AFTER_CHUNK = reply(503, "5.5.1", "Message already begun, send BDAT or RSET")
TLS_NEEDED = reply(530, "5.7.0", "Send STARTTLS first")
TLS_ACTIVE = reply(503, "5.5.1", "TLS is active already")
AUTH_NEEDED = reply(530, "5.7.0", "Authentication needed")
AUTH_NEEDS_EHLO = reply(503, "5.5.1", "AUTH needs EHLO")
AUTH_NEEDS_TLS = reply(538, "5.7.11", "Send STARTTLS first, AUTH needs encryption")
AUTH_DONE = reply(503, "5.5.1", "Authenticated already")
AUTH_SYNTAX = reply(501, "5.5.4", "Syntax: AUTH mechanism [initial response]")
AUTH_UNKNOWN = reply(504, "5.5.4", "Mechanism not offered")
AUTH_NOT_BASE64 = reply(501, "5.5.2", "Not base64")
AUTH_LINE_TOO_LONG = reply(500, "5.5.6", "Authentication exchange line too long")
XCLIENT_DENIED = reply(550, "5.7.0", "XCLIENT is not for you")
BAD_XCLIENT = reply(501, "5.5.4", "Syntax: XCLIENT attribute=value...")
BARE_LINE_END = reply(550, "5.6.0", "Message has a bare CR or LF; lines end with <CR><LF>")
NUL_IN_MESSAGE = reply(550, "5.6.0", "Message has a NUL octet")
EXPN = reply(502, "5.5.1", "Lists are not expanded here")

# --- the worker's -------------------------------------------------------------------------------------
RELAY_DENIED = reply(550, "5.7.1", "Relaying denied")
UNKNOWN_RECIPIENT = reply(550, "5.1.1", "No such mailbox here")
LIST_TOO_LONG = reply(450, "4.2.4", "This list is too long to be served")
LOOP = reply(554, "5.4.6", "Too many hops: this message is going in a circle")
NO_SPACE = reply(452, "4.3.1", "No space for mail now, please try again later")
NOT_TAKEN = reply(554, "5.0.0", "This mail is not taken")
NOT_TAKEN_NOW = reply(451, "4.3.0", "Cannot take this mail now, please try again later")
LOCAL_ERROR = reply(451, "4.3.0", "Local error, please try again later")
LOCAL_ERROR_CLOSE = reply(421, "4.3.0", "Local error, please try again later", close=True)
OVERLOAD_CLOSE = reply(421, "4.3.2", "Too busy, please try again later", close=True)
SHUTTING_DOWN = reply(421, "4.3.2", "Service is stopping, please try again later", close=True)
TIMEOUT = reply(421, "4.4.2", "Timeout, closing the connection", close=True)
AUTH_FAILED = reply(535, "5.7.8", "Authentication failed")
AUTH_TEMPORARY = reply(454, "4.7.0", "Cannot authenticate now, please try again later")
AUTH_CANCELLED = reply(501, "5.7.0", "Authentication given up")
AUTH_TOO_MANY = reply(421, "4.7.0", "Too many failed authentications", close=True)
TLS_UNAVAILABLE = reply(454, "4.7.0", "TLS is not available now")
CLIENT_CERTIFICATE_NEEDED = reply(530, "5.7.0", "A client certificate is needed here")
SENDER_NOT_YOURS = reply(553, "5.7.1", "This sender address is not yours")
CONNECTION_RATE = reply(421, "4.7.0", "Connecting too often, please try again later", close=True)
MESSAGE_RATE = reply(450, "4.7.1", "Too many messages in a short time, please try again later")
RECIPIENT_RATE = reply(452, "4.7.1", "Too many recipients in a short time, please try again later")
TOO_MANY_CONNECTIONS = reply(421, "4.7.0", "Too many connections from your address", close=True)
