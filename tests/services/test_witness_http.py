"""`weighbridge witness` as a program: the protocol over real HTTP, its limits, its refusals."""

import http.client
import socket
from contextlib import closing
from urllib.parse import urlsplit

import httpx
import pytest

from audit.cosignature import cosignatures, with_signatures
from audit.merkle import consistency_proof
from audit.witness import MAX_REQUEST_BYTES, format_request
from tests.audit.test_witness import FORKED, LEAVES, SIGNER, signed
from tests.services.witnesses import Running, command, running


@pytest.fixture(scope="module")
def witness(tmp_path_factory):
    with running(tmp_path_factory.mktemp("w") / "state", SIGNER.verifier_key) as found:
        yield found


def post(witness: Running, body: str | bytes) -> httpx.Response:
    return httpx.post(f"{witness.url}/add-checkpoint", content=body, timeout=10)


def test_the_protocol_over_http(witness):
    first = post(witness, format_request(0, [], signed(5)))
    assert first.status_code == 200
    note = with_signatures(signed(5), first.text.splitlines())
    assert cosignatures(note, [witness.key])
    conflict = post(witness, format_request(0, [], signed(5)))
    assert conflict.status_code == 409
    assert conflict.headers["content-type"] == "text/x.tlog.size"
    assert conflict.text == "5\n"
    proof = consistency_proof(LEAVES, 5, 9)
    assert post(witness, format_request(5, proof, signed(9, FORKED))).status_code == 422
    assert post(witness, format_request(5, proof, signed(9))).status_code == 200
    assert post(witness, "nonsense").status_code == 400


def test_it_shows_its_key_and_nothing_else(witness):
    assert httpx.get(f"{witness.url}/").text == f"{witness.key}\n"
    for method, path, status in [
        ("GET", "/add-checkpoint", 405),
        ("POST", "/", 405),
        ("GET", "/witness.key", 404),
        ("GET", "/../witness.key", 404),
        ("POST", "/add-checkpoint/", 404),
    ]:
        assert httpx.request(method, f"{witness.url}{path}").status_code == status


def test_a_body_without_an_end_is_cut_off(witness):
    assert post(witness, b"x" * (MAX_REQUEST_BYTES + 1)).status_code == 413
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    connection = http.client.HTTPConnection(urlsplit(witness.url).netloc, timeout=10)
    with closing(connection):
        connection.putrequest("POST", "/add-checkpoint")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        with pytest.raises(OSError):  # noqa: PT012  one of them is refused
            for _ in range(2000):
                connection.send(chunk)


def test_it_goes_on_after_clients_that_vanish(witness):
    address = urlsplit(witness.url)
    for _ in range(20):
        with socket.create_connection((address.hostname, address.port), timeout=5) as gone:
            gone.sendall(
                b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nold"
            )
    assert httpx.get(f"{witness.url}/").status_code == 200


def test_it_prints_its_key_and_makes_it_once(tmp_path):
    first = command("--state", tmp_path / "w", "--name", "example.org/w", "--print-key")
    assert first.returncode == 0
    assert first.stdout.startswith("example.org/w+")
    again = command("--state", tmp_path / "w", "--print-key")
    assert again.stdout == first.stdout
    assert (tmp_path / "w" / "witness.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name at least one log"),
        (("--log", "nonsense"), "could not read the verifier key"),
        (("--log", SIGNER.verifier_key, "--host", "0.0.0.0"), "--allow-remote"),
        (("--log", SIGNER.verifier_key, "--host", "192.0.2.1"), "--allow-remote"),
        (("--log", SIGNER.verifier_key, "--prefix", "../x"), "--prefix"),
    ],
)
def test_what_it_refuses_it_says_in_a_sentence(tmp_path, words, said):
    done = command("--state", tmp_path / "w", "--name", "example.org/w", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_two_of_them_cannot_share_a_state(witness, tmp_path):
    with running(tmp_path / "w", SIGNER.verifier_key):
        done = command("--state", tmp_path / "w", "--log", SIGNER.verifier_key, "--port", "0")
    assert done.returncode == 2
    assert "another witness runs on it" in done.stderr
