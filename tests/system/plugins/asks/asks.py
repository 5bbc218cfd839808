"""Does with capabilities what the sender's local part says."""

from forkd.sdk import CapabilityError, NotGranted, Plugin, deny


def plugin_init(settings):
    def connect(session):
        session.count("connected")

    def mail(session, sender):
        session.log(f"asked\r\nby {sender}\x1b[31m")
        try:
            said = ASKED[sender.local.rstrip("0123456789")](session)
        except (CapabilityError, NotGranted) as error:
            said = f"{type(error).__name__}: {error}"
        return deny("5.7.1", str(said)[:900])

    return Plugin(connect=connect, mail=mail)


def _echo(session):
    with session.connect("echo") as echo:
        echo.sendall(b"hello\n")
        return echo.recv_until(b"\n", 100)


ASKED = {
    "dns": lambda session: session.dns.a("a.zen.example").records,
    "other": lambda session: session.dns.a("a.other.example"),
    "count": lambda session: session.state.incr("n"),
    "echo": _echo,
}
