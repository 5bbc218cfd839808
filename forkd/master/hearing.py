"""What do children say, and what follows from it? Records of their channels, and what zygotes print.

No record may hurt master: whoever sends one that is not in the protocol, or asks for what is not its to ask,
is killed, and its place filled anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from forkd.master.child import Child, Failed
from forkd.master.output import Output
from forkd.master.place import Place
from forkd.master.pool import State
from forkd.master.trust import Trust
from forkd.master.watch import Watch
from forkd.rpc.channel import BadRecord
from forkd.rpc.messages import AskStop, Blame, Ready
from forkd.rpc.messages_pool import Heartbeat
from forkd.rpc.messages_reload import AskReload
from forkd.rpc.messages_status import AskStatus

Asked = AskStatus | AskStop | AskReload


class Hearing:
    """The descriptors of all children, in the loop's poll.

    trust     told what is known against zygotes
    starting  is the service not up yet? Then less is said
    asked     does what admin asks for
    """

    def __init__(
        self,
        watch: Watch,
        trust: Trust,
        *,
        starting: Callable[[], bool],
        asked: Callable[[Child, Asked], None],
    ) -> None:
        self._watch = watch
        self._trust = trust
        self._starting = starting
        self._asked = asked

    def begin(self, place: Place, child: Child, now: float) -> None:
        """A process was started there: hear it from now on."""
        if child.channel is not None:
            self._watch.add(child.channel.fileno(), lambda at: self.hear(place, at))
        if child.output >= 0:
            place.output = Output(child.output, plugin=place.slot.name, pid=child.pid, now=now)
            self._read_on(place)

    def end(self, place: Place, now: float) -> None:
        """What was there is dead: hear its last words, then give its descriptors up."""
        self.hear(place, now)
        if place.output is not None and place.output.read(now):
            place.output.finish()
        child, place.child, place.output = place.child, None, None
        if child is not None:
            if child.channel is not None:
                self._watch.remove(child.channel.fileno())
            self._watch.remove(child.output)
            child.close()

    def resume(self, place: Place, now: float) -> None:
        """Read on what it prints, where it had printed more than its share and the pause is over."""
        if place.output is not None and place.output.resumes(now):
            self._read_on(place)

    def hear(self, place: Place, now: float) -> None:
        """All that it has said until now."""
        child = place.child
        if child is None or child.channel is None:
            return
        try:
            messages, ended = child.hear(now)
        except BadRecord as error:
            self._watch.remove(child.channel.fileno())
            place.failed = Failed(f"spoke out of protocol: {error}")
            place.kill(place.failed.text)
            return
        for message in messages:
            self._heard(place, child, message, now)
        if ended and child.channel is not None:
            self._watch.remove(child.channel.fileno())
            place.slot.hung_up(now)

    def _heard(self, place: Place, child: Child, message: object, now: float) -> None:
        match message:
            case Heartbeat():
                place.said = message
                self._trust.heard(place, message, now)
                place.slot.beat(now)
            case Ready():
                place.slot.ready(now)
                place.log("ready", level="debug" if self._starting() else "info")
            case Failed():
                place.failed = message
                if place.slot.state is State.STARTING:
                    place.kill(message.text, level="debug")  # it gives up: its exit says why
            case AskStatus() | AskStop() | AskReload() if place.role.may_ask:
                self._asked(child, message)
            case AskStatus() | AskStop() | AskReload():
                place.failed = Failed("asked for what is admin's to ask")
                place.kill(place.failed.text)
            case Blame():
                self._trust.blamed(place, message)

    def _read_on(self, place: Place) -> None:
        if place.output is not None:
            self._watch.add(place.output.descriptor, functools.partial(self._read_output, place))

    def _read_output(self, place: Place, now: float) -> None:
        output = place.output
        if output is not None and (not output.read(now) or output.resume_at is not None):
            # At its end; or it prints more than its share, and for a while nobody reads it.
            self._watch.remove(output.descriptor)
