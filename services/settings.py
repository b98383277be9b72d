"""Every setting, read once from `WEIGHBRIDGE_*` environment variables.

Rule: a wrong value stops the start with its name and what it may be; nothing reads the environment
elsewhere, except OpenTelemetry's own `OTEL_*` and BentoML's `BENTOML_*` variables.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from audit.link_address import NotaryAddress
from audit.retention import parse_retention

from .access.limits import parse_concurrency
from .durability import DurabilityPolicy, parse_durability
from .payloadpolicy import parse_policy
from .witnesses import parse_witnesses

__all__ = ["Settings", "SettingsError", "settings"]

_SOCKET_PATH_MAX = 90
_PROJECT = Path(__file__).resolve().parents[1]


class SettingsError(ValueError):
    """An environment variable holds what it may not."""


class Settings(BaseSettings):
    """The settings of one deployment; README.md holds the same table."""

    model_config = SettingsConfigDict(env_prefix="WEIGHBRIDGE_", frozen=True)

    home: Path = Field(Path(".weighbridge"), description="keys, log, models and caches live here")
    host: str = Field("127.0.0.1", description="address of HTTP and gRPC")
    http_port: int = Field(3000, ge=0, le=65535, description="port of HTTP")
    grpc_port: int = Field(3001, ge=0, le=65535, description="port of gRPC; 0 picks a free one")
    grpc_engine: Literal["native", "grpcio"] = Field(
        "native", description="what speaks gRPC; grpcio takes over where native cannot do it"
    )
    grpc_connection_age_s: float = Field(
        0, ge=0, description="ask gRPC channels to reconnect after this; 0 never does"
    )
    origin: str = Field("weighbridge.local/decisions", description="name of the log in every proof")
    witnesses: str = Field(
        "", description="who cosigns the log's checkpoints: URL VKEY, comma separated"
    )
    models: str = Field("", description="models to serve, comma separated; empty serves all")
    notary: str = Field(
        "",
        description="who keeps the log: unix:/PATH or tcp://HOST:PORT; empty: the gateway",
    )
    notary_listen: str = Field(
        "", description="where the notary takes appends of other machines: tcp://HOST:PORT"
    )
    notary_cert: str = Field("", description="PEM certificate of this side of the TCP link")
    notary_key: str = Field("", description="PEM key of that certificate")
    notary_ca: str = Field("", description="PEM CA of the other side of the TCP link")
    notary_wait_ms: int = Field(
        2000, ge=1, le=60_000, description="how long answers wait for a notary that is away"
    )
    definitions: Path = Field(
        _PROJECT / "experiments" / "definitions", description="folder of experiment definitions"
    )
    runner: Literal["inprocess", "service"] = Field(
        "inprocess", description="models in the gateway, or in BentoML services of their own"
    )
    device: Literal["cpu", "cuda", "tensorrt", "auto"] = Field(
        "auto", description="where models run"
    )
    gpus: str = Field("", description="cards for runner services, comma separated; empty: all")
    share_gpu: bool = Field(False, description="let runner services share a card")
    threads: int = Field(1, ge=1, le=256, description="threads of one model's session")
    max_batch_rows: int = Field(64, ge=1, description="rows in one batch")
    max_queued_rows: int = Field(2048, ge=1, description="rows that may wait for one version")
    max_body_bytes: int = Field(64 << 20, ge=1024, description="largest request, decompressed")
    timeout_ms: int = Field(30_000, ge=1, description="deadline of a request that names none")
    awake_us: int = Field(
        200, ge=0, le=10_000, description="longest wait for the next call before the loop sleeps"
    )
    durability: str = Field(
        "strict",
        description="before an answer: strict, bounded or async, then MODEL=… for others",
    )
    high_risk: str = Field("", description="models that async is refused for, comma separated")
    bound_ms: int = Field(
        100, ge=1, le=10_000, description="bounded: longest time without the record on disk"
    )
    sample_base: float = Field(0.05, ge=0, le=1, description="share of decisions to explain")
    sample_near: float = Field(
        0.25, ge=0, le=1, description="share to explain near a threshold or at low confidence"
    )
    payloads: str = Field(
        "sampled",
        description="inputs and outputs kept: none, sampled or all, then MODEL=… for others",
    )
    payload_bytes: int = Field(
        64 << 20, ge=0, le=64 << 20, description="largest input or output that is kept"
    )
    retention: str = Field(
        "",
        description="how long records stay: FLOOR..CEILING, then MODEL=… for others; empty: all",
    )
    retention_interval_s: float = Field(
        3600.0, gt=0, description="how often to look what has passed its ceiling"
    )
    master_key: SecretStr = Field(
        SecretStr(""), description="the master key, hex or base64; empty reads keys/master.key"
    )
    master_key_command: str = Field("", description="prints the master key, for example from a KMS")
    explain_samples: int = Field(500, ge=50, le=20_000, description="perturbations per explanation")
    fairness_window_s: float = Field(15.0, gt=0, description="longest wait for a fairness window")
    fairness_minimum: int = Field(30, ge=1, description="decisions a group needs for a verdict")
    explainer: bool = Field(True, description="start the explainer service")
    fast_path: bool = Field(True, description="answer /v1 and /v2 before BentoML's middleware")
    allow_force: bool = Field(False, description="honour x-weighbridge-arm")
    grpc_always_raw: bool = Field(False, description="answer gRPC with raw tensors only")
    workers: int = Field(
        1, ge=1, le=64, description="gateway processes; more than one needs WEIGHBRIDGE_NOTARY"
    )
    base_path: str = Field("", description="a path that may stand in front of every other")
    read_timeout_s: float = Field(
        30.0, gt=0, description="longest wait for an HTTP request's head, or for its body to move"
    )
    max_head_bytes: int = Field(
        64 << 10, ge=4096, description="largest HTTP request line and headers together"
    )
    notice_s: float = Field(
        1.0, ge=0, le=10, description="at SIGTERM: not ready, but still answering, for so long"
    )
    drain_s: float = Field(10.0, ge=0, description="longest wait for running requests at stop")
    auth: Literal["none", "keys", "jwt", "keys,jwt"] = Field(
        "none", description="how callers prove who they are"
    )
    allow_open: bool = Field(False, description="listen beyond loopback without authentication")
    api_keys: str = Field("", description="file of API keys; empty is one below keys/")
    jwt_issuer: str = Field("", description="the iss that tokens must hold")
    jwt_audience: str = Field("", description="the aud that tokens must hold")
    jwt_jwks: str = Field("", description="URL or file of the issuer's public keys")
    jwt_algorithms: str = Field("RS256,PS256,ES256,EdDSA", description="signatures accepted")
    jwt_roles_claim: str = Field("roles", description="claim that lists the roles")
    tls_cert: str = Field("", description="PEM certificate chain; with it both doors speak TLS")
    tls_key: str = Field("", description="PEM key of the certificate")
    tls_client_ca: str = Field("", description="PEM CA whose certificates clients must show")
    rate_per_s: float = Field(
        0, ge=0, le=1e6, description="calls per second and principal; 0 is no limit"
    )
    rate_burst: int = Field(0, ge=0, description="calls at once after a rest; 0 is one second's")
    concurrency: str = Field("", description="calls at once per model, MODEL=PLACES,...")

    @field_validator("concurrency")
    @classmethod
    def _readable(cls, text: str) -> str:
        parse_concurrency(text)
        return text

    @field_validator("witnesses")
    @classmethod
    def _witnesses(cls, text: str) -> str:
        parse_witnesses(text)
        return text

    @field_validator("notary", "notary_listen")
    @classmethod
    def _notary(cls, text: str) -> str:
        if text:
            NotaryAddress.parse(text)
        return text

    @field_validator("high_risk")
    @classmethod
    def _durable_enough(cls, text: str, info: ValidationInfo) -> str:
        parse_durability(info.data.get("durability", "strict"), text)
        return text

    @field_validator("durability")
    @classmethod
    def _durabilities(cls, text: str) -> str:
        parse_durability(text)
        return text

    @field_validator("payloads")
    @classmethod
    def _policy(cls, text: str) -> str:
        parse_policy(text)
        return text

    @field_validator("retention")
    @classmethod
    def _retention(cls, text: str) -> str:
        parse_retention(text)
        return text

    @field_validator("base_path")
    @classmethod
    def _plain_path(cls, path: str) -> str:
        parts = path.rstrip("/").split("/")[1:]
        plain = all(re.fullmatch(r"[\w.~-]*[\w~-][\w.~-]*", part, re.ASCII) for part in parts)
        if path and (not path.startswith("/") or not plain or parts[:1] in (["v1"], ["v2"])):
            raise ValueError(
                "must be a path such as /ml/gateway that does not begin with /v1 or /v2"
            )
        return path.rstrip("/")

    @property
    def bentoml_home(self) -> Path:
        """The folder of BentoML's model store: `BENTOML_HOME`, else one below `home`."""
        given = os.environ.get("BENTOML_HOME")
        return Path(given).absolute() if given else self.home.absolute() / "bentoml"

    @property
    def keys_dir(self) -> Path:
        """The folder of the log's and the registry's keys."""
        return self.home.absolute() / "keys"

    @property
    def log_dir(self) -> Path:
        """The folder of the audit log."""
        return self.home.absolute() / "log"

    @property
    def data_dir(self) -> Path:
        """The cache of data packages."""
        return self.home.absolute() / "data"

    @property
    def run_dir(self) -> Path:
        """The folder of Unix sockets; a short one where `home` is too deep for a socket path."""
        path = self.home.absolute() / "run"
        if len(str(path)) <= _SOCKET_PATH_MAX:
            return path
        name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"weighbridge-{name}"

    def durabilities(self) -> DurabilityPolicy:
        """How durable each model's decisions are before their answers leave."""
        return parse_durability(self.durability, self.high_risk)

    def model_names(self) -> list[str] | None:
        """The models to serve, or None for all that the registry holds."""
        return [name.strip() for name in self.models.split(",") if name.strip()] or None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read at the first call.

    Raises:
        SettingsError: a variable holds what it may not; names it and says what it may be.
    """
    try:
        return Settings()
    except ValidationError as exc:
        lines = [
            f"WEIGHBRIDGE_{'_'.join(map(str, fault['loc'])).upper()}: "
            + fault["msg"].removeprefix("Value error, ")
            for fault in exc.errors()
        ]
        raise SettingsError("could not read the settings:\n" + "\n".join(lines)) from exc
