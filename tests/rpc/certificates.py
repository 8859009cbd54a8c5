"""Certificates for tests, made by openssl: an authority, and certificates for this machine or for a client."""

import subprocess
from pathlib import Path
from typing import Any, Self

from tests.clients.tools import tool


class Authority:
    """A certificate authority, with its files in its own folder."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self._openssl = tool("openssl")
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._run("req", "-x509", *_new_key(self._key), "-out", self.certificate, "-days", "2", "-subj", f"/CN={name}")

    def sign(self, name: str) -> "Pair":
        """Make a certificate for 127.0.0.1 and a key."""
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, names = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self._run("req", *_new_key(pair.key), "-out", request, "-subj", f"/CN={name}")
        authority = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        self._run("x509", "-req", "-in", request, *authority, "-out", pair.certificate, "-days", "2", "-extfile", names)
        return pair

    def encrypt(self, pair: "Pair", path: Path) -> None:
        """Write the key of a pair with a password."""
        self._run("pkcs8", "-topk8", "-in", pair.key, "-out", path, "-passout", "pass:secret")

    def _run(self, *arguments: str | Path) -> None:
        subprocess.run([self._openssl, *arguments], check=True, capture_output=True)


class Pair:
    """A certificate and its key, as files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def files(self) -> dict[str, Any]:
        """The settings of a port that uses them."""
        return {"tls_cert_file": self.certificate, "tls_key_file": self.key}

    def replace_by(self, other: Self) -> None:
        """Replace these files by another pair, as a renewal does."""
        self.key.write_bytes(other.key.read_bytes())
        self.certificate.write_bytes(other.certificate.read_bytes())


def _new_key(path: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path)
