"""A name server on loopback: real packets, answers that the test chooses, by UDP and by TCP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset

Answer = Callable[[dns.message.QueryMessage], bytes | None]


class NameServer:
    """Answers from threads of its own; `asked` holds every question, as "name TYPE".

    udp_bytes  an answer that has more is cut, and goes over by TCP.
    negative   the SOA's minimum beside NXDOMAIN and no data; None: there is no SOA.
    """

    def __init__(self) -> None:
        self.socket, self._tcp = _sockets()
        self.port = int(self.socket.getsockname()[1])
        self.udp_bytes = 65535
        self.asked_tcp: list[str] = []
        self.negative: int | None = None
        self.records: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}
        self.asked: list[str] = []
        self.answer: Answer = self.from_records
        self._threads = [
            threading.Thread(target=self._serve, daemon=True),
            threading.Thread(target=self._serve_tcp, daemon=True),
        ]

    @property
    def address(self) -> str:
        """As names.servers takes it."""
        return f"127.0.0.1:{self.port}"

    def add(self, name: str, kind: str, *values: str, ttl: int = 300) -> None:
        """A record set; `name` without its last dot."""
        self.records[name.lower(), kind] = (ttl, values)

    def host(self, address: str, name: str, *, ttl: int = 300) -> None:
        """A client with a name that proves right forwards."""
        self.pointer(address, name, ttl=ttl)
        self.add(name, "AAAA" if ":" in address else "A", address, ttl=ttl)

    def pointer(self, address: str, *names: str, ttl: int = 300) -> None:
        """Pointer records alone."""
        owner = dns.reversename.from_address(address).to_text(omit_final_dot=True)
        self.add(owner, "PTR", *(f"{name}." for name in names), ttl=ttl)

    def from_records(self, query: dns.message.QueryMessage) -> bytes | None:
        """What a server with these records says: the answer, no data, or NXDOMAIN."""
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        response = dns.message.make_response(query)
        found = self.records.get((name, kind))
        if found is not None:
            ttl, values = found
            response.answer.append(dns.rrset.from_text(question.name, ttl, "IN", kind, *values))
        elif not any(owner == name for owner, _ in self.records) and name:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if not response.answer and self.negative is not None and name:
            soa = f"ns.test. root.test. 1 3600 600 86400 {self.negative}"
            response.authority.append(dns.rrset.from_text(question.name.parent(), 86400, "IN", "SOA", soa))
        return response.to_wire(max_size=65535)

    @staticmethod
    def silent(query: dns.message.QueryMessage) -> bytes | None:
        """A server that is not there."""
        return None

    def refuses(self, query: dns.message.QueryMessage) -> bytes | None:
        """SERVFAIL to everything."""
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.SERVFAIL)
        return response.to_wire(max_size=65535)

    def _serve(self) -> None:
        while True:
            try:
                packet, client = self.socket.recvfrom(65535)
            except OSError:
                return
            if packet == b"end":
                return
            query = dns.message.from_wire(packet)
            assert isinstance(query, dns.message.QueryMessage)
            question = query.question[0]
            self.asked.append(f"{question.name.to_text()} {dns.rdatatype.to_text(question.rdtype)}")
            answer = self.answer(query)
            if answer is not None and len(answer) > self.udp_bytes:
                cut = dns.message.make_response(query)
                cut.flags |= dns.flags.TC
                answer = cut.to_wire()
            if answer is not None:
                self.socket.sendto(answer, client)

    def _serve_tcp(self) -> None:
        while True:
            client, _ = self._tcp.accept()
            with client, client.makefile("rwb") as stream:
                size = stream.read(2)
                if size == b"\0\0":
                    return
                query = dns.message.from_wire(stream.read(int.from_bytes(size)))
                assert isinstance(query, dns.message.QueryMessage)
                self.asked_tcp.append(query.question[0].name.to_text())
                answer = self.answer(query)
                if answer is not None:
                    stream.write(len(answer).to_bytes(2) + answer)

    def __enter__(self) -> NameServer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as poke:
            poke.sendto(b"end", ("127.0.0.1", self.port))
        with socket.create_connection(("127.0.0.1", self.port)) as poke:
            poke.sendall(b"\0\0")
        for thread in self._threads:
            thread.join(10)
        self.socket.close()
        self._tcp.close()


def _sockets() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one port."""
    while True:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(("127.0.0.1", tcp.getsockname()[1]))
        except OSError:
            tcp.close()
            udp.close()
        else:
            return udp, tcp
