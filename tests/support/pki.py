"""Certificates for tests: an authority of our own, pairs of files as an admin has them."""

from __future__ import annotations

import dataclasses
import datetime
import ssl
from pathlib import Path

import trustme


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two PEM files."""

    chain: Path
    key: Path

    def table(self, name: str) -> str:
        """The [certificate] that names them, relative to forkd.toml in the same folder."""
        return f'[certificate."{name}"]\nchain = "{self.chain.name}"\nkey = "{self.key.name}"\n'

    def serial(self) -> int:
        """Of the server's certificate."""
        der = ssl.PEM_cert_to_DER_cert(first_certificate(self.chain.read_text()))
        return serial_of(der)


class Authority:
    """Makes certificates for any name into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))
        self.file.chmod(0o644)

    def pair(self, *names: str, file: str = "", days: float = 90, client: bool = False) -> Pair:
        """FILE.pem and FILE.key, by default called as the first name. `client`: the name is a common name."""
        base = self.folder / (file or names[0].replace("*", "any"))
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        before = end - datetime.timedelta(days=3650)
        if client:
            issued = self._ca.issue_cert(
                f"{names[0]}@client.example", common_name=names[0], not_before=before, not_after=end
            )
        else:
            issued = self._ca.issue_cert(*names, not_before=before, not_after=end)
        pair = Pair(base.with_name(base.name + ".pem"), base.with_name(base.name + ".key"))
        # Renamed into place, as ACME clients do: a daemon that looks meanwhile sees whole files.
        _put(pair.key, issued.private_key_pem.bytes(), 0o600)
        _put(pair.chain, b"".join(each.bytes() for each in issued.cert_chain_pems), 0o644)
        return pair


def _put(path: Path, octets: bytes, mode: int) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(octets)
    beside.chmod(mode)
    beside.replace(path)


def first_certificate(pem: str) -> str:
    """Of a chain."""
    return pem[: pem.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n"


def serial_of(der: bytes) -> int:
    from cryptography import x509

    return x509.load_der_x509_certificate(der).serial_number
