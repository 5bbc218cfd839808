"""What do our processes say to each other? Every message: here, and in a module of its part.

One record of a SOCK_SEQPACKET socket is one message: msgpack of a struct whose tag field `t`
names its type (PROTOCOL.md). The sandbox's calls are another language: calls.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from forkd.rpc.message import Message
from forkd.rpc.messages_metrics import SlotMade
from forkd.rpc.messages_pool import Heartbeat, Log, Room, Stop
from forkd.rpc.messages_reload import AskReload, Reloaded
from forkd.rpc.messages_status import AskStatus, Status

# --- role -> master ---------------------------------------------------------------------------------


class Ready(Message, frozen=True, tag="ready"):
    """The role has opened what it holds and begins its loop."""


class Blame(Message, frozen=True, tag="blame"):
    """Worker to master: this plugin's zygote broke a rule; master ends it, and its log says why."""

    plugin: str
    pid: int
    """Of the sandbox that showed it: master looks whether it is that zygote's, and lives."""
    reason: str


class AskStop(Message, frozen=True, tag="ask_stop"):
    """Admin to master: `mode` is stop or drain; `who` for the audit line."""

    n: int
    mode: str
    who: str


# --- master -> role ---------------------------------------------------------------------------------


class Certificate(Message, frozen=True, tag="certificate"):
    """Master to worker: this pair was read anew and proved; handshakes that begin now use it.

    With the record go descriptors of sealed memory files (passing.py): of chain and key, or of
    tls.client_ca where `name` is empty.
    """

    name: str
    """Of the [certificate] table."""


class RefusedCall(Message, frozen=True, tag="refused_call"):
    """Master to worker: the kernel killed a process for this system call (sandbox/audit.py)."""

    pid: int
    call: str
    """Its name, or its number where it has none that we know."""
    plugin: str
    """By its uid; empty: whose it is, is not known."""


class Done(Message, frozen=True, tag="done"):
    """Answer to a request that only acts."""

    n: int
    error: str = ""


# --- worker <-> anvil -------------------------------------------------------------------------------


class ClientConnect(Message, frozen=True, tag="connect"):
    """Worker to anvil, one round trip per connection; counted until ClientDisconnect with the same keys.

    client   the client's key: its address, or the IPv6 /64
    network  the key of the network it is in (limits.network_prefix_v4, _v6); empty: not counted
    most     connections a minute that the client may make; 0: no limit. One beyond it is none of its
             network's: else one client could use up what all of them may do
    """

    n: int
    client: str
    network: str = ""
    most: Annotated[int, msgspec.Meta(ge=0)] = 0


class ClientDisconnect(Message, frozen=True, tag="disconnect"):
    """Worker to anvil; no answer. A worker whose socket closes has all of its clients disconnected."""

    client: str
    network: str = ""


class ClientCounts(Message, frozen=True, tag="counts"):
    """Anvil's answer to ClientConnect, the asking connection counted; rates are of the last minute."""

    n: int
    sessions: int
    connections_last_minute: int
    network_sessions: int = 0
    network_connections_last_minute: int = 0


class Happened(Message, frozen=True, tag="happened"):
    """Worker to anvil: `what` happened `times` times to each key (a client, a network, an account).

    n      numbers the question; 0: no answer is wanted
    times  0 only asks
    most   of each key, so often a minute; 0 or not given: no limit. Behind a key that is beyond it the others
           are only asked about: what a client is refused does not count for its network
    """

    n: int
    what: Literal["message", "recipient", "auth_failure"]
    keys: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)]
    times: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 1
    most: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=8)] = ()


class LastMinute(Message, frozen=True, tag="last_minute"):
    """Anvil's answer to Happened: how often in the last minute, for each key in the order asked."""

    n: int
    times: tuple[int, ...]


# --- worker -> broker -------------------------------------------------------------------------------


class SandboxChannel(Message, frozen=True, tag="channel"):
    """A sandbox begins its first session; beside the record goes the broker's end of its channel.

    id  of the channel among this connection's
    """

    id: int
    plugin: str
    session: str


class SandboxSession(Message, frozen=True, tag="session"):
    """The sandbox at that channel serves another session of its plugin's from now on (limits.reuse)."""

    id: int
    plugin: str
    session: str


# --- admin -> qmgr ----------------------------------------------------------------------------------


_Text = Annotated[str, msgspec.Meta(max_length=1000)]
_Texts = Annotated[tuple[_Text, ...], msgspec.Meta(max_length=100)]


class QueueFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which messages are meant: every field that is given must fit; of several texts in one, any of them.

    How texts are compared is qmgr/requests_filter.py's.
    """

    ids: _Texts = ()
    senders: _Texts = ()
    recipients: _Texts = ()
    """Of those that do not have it yet."""
    domains: _Texts = ()
    """Of the same recipients."""
    states: _Texts = ()
    """active | deferred | hold"""
    reason: _Text = ""
    """A part of it."""
    received_from: float = 0.0
    """Unix time, seconds: received then or later."""
    received_to: float = 0.0
    """Received then or earlier; 0: whenever."""
    size_from: int = 0
    """Octets."""
    size_to: int = 0
    """0: however large."""
    besides: _Text = ""
    """By what else the asker chose; for the audit only."""


class QueueRequest(Message, frozen=True, tag="queue"):
    """`act` is list | show | stat | remove | bounce | flush | hold | release; bounce is a removal that the
    sender is told of.

    list, stat and a flush without ids are paged by `after`. Other acts need ids; with a filter they act on
    those that it still fits.
    """

    n: int
    act: str
    ids: tuple[str, ...] = ()
    who: str = ""
    limit: int = 100
    """list: entries at most."""
    after: str = ""
    """Ids greater than this one."""
    filter: QueueFilter | None = None
    by_sender: bool = False
    """stat: the domain that counts is the sender's, and each message counts once."""
    at: float = 0.0
    """stat: Unix time that ages are counted to, the same on all pages; 0: now."""
    destination: _Text = ""
    """flush, hold, release: this destination instead of messages."""


class QueueEntry(Message, frozen=True, tag="entry"):
    """One queued message."""

    id: str
    sender: str
    recipients: tuple[str, ...]
    """Those that do not have it yet. At most 10; `more_recipients` counts the rest."""
    more_recipients: int
    size: int
    received_at: float
    attempts: int
    next_try_at: float
    reason: str
    state: str = "active"
    detail: str = ""
    """show: envelope, attempts and outcomes as JSON text."""


class QueueCount(msgspec.Struct, frozen=True, array_like=True):
    """One line of a page of `stat`: so many of that kind, name and age."""

    kind: str
    """domain: recipients, or messages by their sender's; reason, state: messages"""
    name: str
    age: int
    """0: below 5 minutes, 1: below 10, and so on, doubling; 9: 1280 and more."""
    count: int


class QueueAnswer(Message, frozen=True, tag="queued"):
    """Answer to QueueRequest; `count`: what was acted on or, for list and stat, the queue's whole length."""

    n: int
    entries: tuple[QueueEntry, ...] = ()
    count: int = 0
    more: bool = False
    after: str = ""
    """Where the next page begins, when there is more."""
    seen: int = 0
    """Messages this page looked at, whether they fit the filter or not."""
    left: tuple[str, ...] = ()
    """Of an act: ids that there was no time for; to be asked for again."""
    not_done: tuple[str, ...] = ()
    """Of an act: `ID: why not`, the first twenty."""
    counts: tuple[QueueCount, ...] = ()
    octets: int = 0
    """stat: the sizes of this page's messages together."""
    error: str = ""
    """Nothing of it was done: why."""


# --- worker -> qmgr, qmgr -> launcher ---------------------------------------------------------------


class Deliver(Message, frozen=True, tag="deliver"):
    """Worker to qmgr, while its client waits (accept = "proxy"): bring this message to its transports now.

    slot, name  of the file in tmp/ (queue/FORMAT.md): whole, not synced, and the worker's to remove
    """

    n: int
    slot: str
    name: str


class Delivered(Message, frozen=True, tag="delivered"):
    """Qmgr's answer to Deliver: the reply to the end of data; 2xx when every recipient has it."""

    n: int
    code: int
    enhanced: str
    lines: tuple[str, ...]


class Launch(Message, frozen=True, tag="launch"):
    """Qmgr to launcher, once per connection: start that transport's program.

    With the record go its descriptors 0, 1, 2, 6 (passing.py). The connection's end is the program's.
    """

    transport: str


class Launched(Message, frozen=True, tag="launched"):
    """Launcher's answer to Launch: the program has ended, or could not be started."""

    status: int = 0
    """Exit status; negative: the signal."""
    late: bool = False
    """Killed, since its time was over."""
    error: str = ""
    """It was not started: why."""


FromRole = Ready | Heartbeat | Blame | AskStatus | AskStop | AskReload
ToRole = Stop | Log | Room | Status | Done | Reloaded | Certificate | RefusedCall | SlotMade
ToAnvil = ClientConnect | ClientDisconnect | Happened
FromAnvil = ClientCounts | LastMinute
ToBroker = SandboxChannel | SandboxSession
