"""A gateway that asks who calls, and those who may: keys of every role, and a token issuer."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import collector as collectors
import httpx
import server as servers

from tests.services.access.issuer import AUDIENCE, ISSUER, Issuer, serving

ROLES = ("infer", "operate", "review", "force-arm", "erase")


class Callers:
    """Keys and tokens of the module's server."""

    def __init__(
        self, server: servers.Server, issuer: Issuer, collector: collectors.Collector
    ) -> None:
        self.server, self.issuer, self.collector = server, issuer, collector
        self.keys = {role: self.key(f"only-{role}", role) for role in ROLES}
        self.keys["forcing"] = self.key("forcing", "infer", "force-arm")

    def key(self, name: str, *roles: str, options: tuple[str, ...] = ()) -> str:
        words = itertools.chain.from_iterable(("--role", role) for role in roles)
        done = self.server.cli("apikey", "add", name, *words, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def http(self, who: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[who]}"}

    def wait(self, headers: dict[str, str], wanted: int) -> bool:
        """Whether the server comes to answer `wanted` to a caller with these headers."""
        with httpx.Client(base_url=self.server.http, headers=headers) as client:
            return any(client.get("/v2").status_code == wanted for _ in range(5000))


@contextlib.contextmanager
def asking(folder: Path) -> Iterator[Callers]:
    """A server with keys and tokens on, whose traces are collected."""
    issuer = Issuer()
    with (
        serving(issuer) as published,
        collectors.collecting() as collector,
        servers.running(
            folder,
            WEIGHBRIDGE_AUTH="keys,jwt",
            WEIGHBRIDGE_JWT_ISSUER=ISSUER,
            WEIGHBRIDGE_JWT_AUDIENCE=AUDIENCE,
            WEIGHBRIDGE_JWT_JWKS=published.url,
            WEIGHBRIDGE_EXPLAINER="false",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="100",
        ) as started,
    ):
        yield Callers(started, issuer, collector)
