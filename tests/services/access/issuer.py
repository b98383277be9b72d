"""A token issuer for tests: keys, tokens of every good and bad kind, a real JWKS server."""

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, AUDIENCE = "https://issuer.test/", "weighbridge"
KINDS = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "PS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


@dataclass
class Issuer:
    """One private key, named `kid`."""

    kid: str = "one"
    algorithm: str = "ES256"
    key: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        made = {
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }
        rsa_key = lambda: rsa.generate_private_key(65537, 2048)  # noqa: E731
        self.key = self.key or made.get(self.algorithm, rsa_key)()

    def jwk(self, **changed: Any) -> dict[str, Any]:
        """The public key as a JWK."""
        found = json.loads(KINDS[self.algorithm].to_jwk(self.key.public_key()))
        found = {k: v for k, v in found.items() if k not in ("key_ops",)}
        return found | {"kid": self.kid, "use": "sig", "alg": self.algorithm} | changed

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Good claims, changed; None takes one out."""
        now = int(time.time())
        good = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "iat": now,
            "exp": now + 600,
            "roles": ["infer"],
        } | changed
        return {name: value for name, value in good.items() if value is not None}

    def token(self, *, head: dict[str, Any] | None = None, **changed: Any) -> str:
        """A signed token."""
        headers = {"typ": "JWT", "kid": self.kid} | (head or {})
        present = {name: value for name, value in headers.items() if value is not None}
        payload = json.dumps(self.claims(**changed)).encode()
        return jwt.PyJWS().encode(payload, self.key, self.algorithm, present)

    def unsigned(self) -> str:
        """`alg: none`, with an empty signature."""
        return f"{b64({'alg': 'none', 'typ': 'JWT', 'kid': self.kid})}.{b64(self.claims())}."

    def confused(self) -> str:
        """HS256 under the public key's PEM: what a verifier that asks the header would accept."""
        secret = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        body = f"{b64({'alg': 'HS256', 'typ': 'JWT', 'kid': self.kid})}.{b64(self.claims())}"
        return f"{body}.{raw(hmac.digest(secret, body.encode(), hashlib.sha256))}"

    def tampered(self, **changed: Any) -> str:
        """A good signature over other claims."""
        head, _, signature = self.token().split(".")
        return f"{head}.{b64(self.claims(**changed))}.{signature}"


def raw(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64(value: Any) -> str:
    return raw(json.dumps(value).encode())


def jwks(*issuers: Issuer) -> bytes:
    return json.dumps({"keys": [issuer.jwk() for issuer in issuers]}).encode()


class JwksServer:
    """An HTTP server on 127.0.0.1 that says what it is told, and counts who asks."""

    def __init__(self) -> None:
        self.body, self.status, self.asked = b"", 200, 0
        self.location, self.drip_s = "", 0.0
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: JwksServer

    def do_GET(self) -> None:
        self.owner.asked += 1
        self.send_response(self.owner.status)
        if self.owner.location:
            self.send_header("location", self.owner.location)
        self.send_header("content-length", str(len(self.owner.body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            for byte in self.owner.body if self.owner.drip_s else b"":
                self.wfile.write(bytes([byte]))
                time.sleep(self.owner.drip_s)
            self.wfile.write(self.owner.body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(*issuers: Issuer) -> Iterator[JwksServer]:
    server = JwksServer()
    server.body = jwks(*issuers)
    try:
        yield server
    finally:
        server.close()
