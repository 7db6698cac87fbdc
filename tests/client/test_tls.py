"""An encrypted connection to a real server whose certificate is trusted, or not."""

import subprocess
from pathlib import Path

import pytest

from qwen3_vl_client import Client, ServerUnavailable, Timeouts, Tls
from tests.client.scripted import HELLO, ScriptedServer
from tests.support import needs


@needs.program("openssl")
def test_certificate_is_checked(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}"
    subprocess.run([*make.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    server = ScriptedServer(
        tmp_path, "--grpc-use-ssl=1", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}"
    )
    try:
        with Client(server.url, tls=Tls(root_certificates=certificate)) as trusting:
            assert trusting.ask(None, HELLO).finish_reason == "stop"
        with (
            Client(server.url, tls=Tls(), timeouts=Timeouts(connect=2)) as doubting,
            pytest.raises(ServerUnavailable),
        ):
            doubting.ask(None, HELLO)
    finally:
        server.kill()
