"""TLS files: those that are not valid get one sentence, and those that are replaced are used at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay.config.admin_sections import AdminSettings
from relay.config.sections import GrpcSettings
from relay.errors import StartError
from relay.tls_files import TlsFiles
from roundlog.client.connection import connect
from roundlog.log_errors import LogRefused
from roundlog.log_settings import LogSettings
from tests.rpc.certificates import Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority", "stream-relay tests")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.sign("relay")


def of_grpc(settings: dict[str, Any]) -> TlsFiles:
    return TlsFiles(GrpcSettings(**settings), of="gRPC", http2=True)


def of_admin(settings: dict[str, Any]) -> TlsFiles:
    return TlsFiles(AdminSettings(**settings), of="the admin API")


@pytest.mark.parametrize(("load", "of"), [(of_grpc, "gRPC"), (of_admin, "the admin API")])
def test_files_that_are_not_valid(
    authority: Authority, pair: Pair, tmp_path: Path, load: Callable[[dict[str, Any]], TlsFiles], of: str
) -> None:
    """One sentence that names the file and what is wrong; an encrypted key does not wait for a password."""
    broken, secret, other = tmp_path / "broken.pem", tmp_path / "secret.key", authority.sign("other")
    broken.write_text("no certificate")
    authority.encrypt(pair, secret)
    for wrong, says in (
        ({"tls_cert_file": tmp_path / "none.pem", "tls_key_file": pair.key}, "none.pem cannot be read: No such file"),
        ({"tls_cert_file": broken, "tls_key_file": pair.key}, "broken.pem"),
        ({"tls_cert_file": pair.certificate, "tls_key_file": other.key}, "other.key"),
        ({"tls_cert_file": pair.certificate, "tls_key_file": secret}, "secret.key is encrypted"),
        ({**pair.files, "tls_client_ca_file": broken}, "broken.pem holds no certificate"),
        ({**pair.files, "tls_client_ca_file": tmp_path}, str(tmp_path)),
    ):
        with pytest.raises(StartError, match=says) as failed:
            load(wrong)
        assert str(failed.value).startswith(f"TLS for {of}: ")
        assert "\n" not in str(failed.value)


async def test_encrypted_key_for_nats(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    """It does not wait for a password either."""
    secret = tmp_path / "secret.key"
    authority.encrypt(pair, secret)
    settings = LogSettings(url="tls://127.0.0.1:1", tls_cert_file=pair.certificate, tls_key_file=secret)
    with pytest.raises(LogRefused, match=r"secret\.key cannot be used: the private key is encrypted"):
        async with connect(settings, name="test"):
            pass


def test_files_that_change(authority: Authority) -> None:
    """They are read again only then; what is not valid is logged, and the last valid ones stay."""
    pair = authority.sign("changes")
    tls = of_grpc(pair.files)
    first = tls.context()
    assert tls.context() is first
    with capture_logs() as logs:
        pair.replace_by(authority.sign("renewed"))
        renewed = tls.context()
        assert renewed is not first
        pair.key.write_text("half a k")
        assert tls.context() is tls.context() is renewed
        pair.key.unlink()
        assert tls.context() is tls.context() is renewed

    assert [entry["event"] for entry in logs] == ["tls_reloaded", "tls_reload_failed", *["tls_reload_failed"] * 2]
