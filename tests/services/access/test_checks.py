"""What does not start, and what TLS files must be."""

import datetime as dt
import ssl
from pathlib import Path

import pytest
from rich.console import Console

from services.access.checks import AccessError, check_access, gated, open_guard
from services.access.tls import TlsError, TlsFiles, bentoml_ssl, grpc_credentials
from services.demo import run as run_demo
from services.settings import Settings
from tests.services.access.authority import Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("server")


def files(cert: Path, key: Path, ca: Path | None = None) -> TlsFiles:
    found = TlsFiles.of(str(cert), str(key), str(ca) if ca else "")
    assert found is not None
    return found


def test_good_files_are_taken(authority, pair) -> None:
    good = files(*pair, authority.path)
    good.check()
    pair.key.chmod(0o440)  # as Kubernetes mounts a Secret for a group
    good.check()
    options = bentoml_ssl(good)["ssl"]
    assert options["cert_reqs"] == ssl.CERT_REQUIRED
    assert options["certfile"] == str(pair.cert)
    assert grpc_credentials(good) is not None
    assert "cert_reqs" not in bentoml_ssl(good._replace(client_ca=None))["ssl"]
    assert bentoml_ssl(None) == {}
    assert grpc_credentials(None) is None


def test_files_that_would_fail_later_are_refused(authority, pair, tmp_path) -> None:
    other = authority.issue("other")
    text = tmp_path / "text.pem"
    text.write_text("canary")
    text.chmod(0o600)
    gone = tmp_path / "gone.pem"
    cases = [
        (files(pair.cert, other.key), "is not the key of"),
        (files(gone, pair.key), "could not read"),
        (files(pair.cert, gone), "could not read"),
        (files(text, pair.key), "not a PEM certificate"),
        (files(pair.cert, text), "not a PEM key"),
        (files(pair.cert, pair.cert), "others may read|not a PEM key"),
        (files(*pair, text), "not a PEM certificate"),
        (files(*pair, gone), "could not read"),
        (files(*authority.issue("old", days=-1)), "expired"),
    ]
    for found, said in cases:
        with pytest.raises(TlsError, match=said) as refused:
            found.check()
        assert "canary" not in str(refused.value)
    with pytest.raises(TlsError, match="not valid yet"):
        files(*pair).check(dt.datetime.now(dt.UTC) - dt.timedelta(days=1))


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o601, 0o620])
def test_a_key_that_others_may_read_is_refused(pair, mode) -> None:
    pair.key.chmod(mode)
    with pytest.raises(TlsError, match="chmod 600"):
        files(*pair).check()


@pytest.mark.parametrize("given", [("c", "", ""), ("", "k", ""), ("", "", "a"), ("c", "", "a")])
def test_certificate_and_key_go_together(given) -> None:
    with pytest.raises(TlsError):
        TlsFiles.of(*given)
    assert TlsFiles.of("", "", "") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_no_authentication(host, tmp_path) -> None:
    check_access(Settings(home=tmp_path, host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.test", "::ffff:10.0.0.1"])
def test_other_addresses_do(host, tmp_path) -> None:
    with pytest.raises(AccessError, match="WEIGHBRIDGE_AUTH=keys"):
        check_access(Settings(home=tmp_path, host=host))
    check_access(Settings(home=tmp_path, host=host, allow_open=True))


JWT = {"jwt_issuer": "https://i.test/", "jwt_audience": "w", "jwt_jwks": "https://i.test/jwks"}


def test_tokens_need_an_issuer_and_asymmetric_signatures(tmp_path) -> None:
    with pytest.raises(AccessError, match="JWT_ISSUER, WEIGHBRIDGE_JWT_AUDIENCE, WEIGHBRIDGE_JWT_"):
        check_access(Settings(home=tmp_path, auth="jwt"))
    check_access(Settings(home=tmp_path, auth="jwt", host="0.0.0.0", **JWT))
    for bad in ("none", "HS256", "RS256,HS512", "", "rs256"):
        with pytest.raises(AccessError, match="JWT_ALGORITHMS"):
            check_access(Settings(home=tmp_path, auth="jwt", jwt_algorithms=bad, **JWT))
    with pytest.raises(AccessError, match="JWT_JWKS"):
        check_access(Settings(home=tmp_path, auth="jwt", **JWT | {"jwt_jwks": "http://i.test/"}))


def test_keys_need_a_key(tmp_path) -> None:
    with pytest.raises(AccessError, match="weighbridge apikey add"):
        check_access(Settings(home=tmp_path, auth="keys"))
    check_access(Settings(home=tmp_path, auth="keys,jwt", **JWT))


async def test_a_guard_without_its_means_does_not_open(tmp_path) -> None:
    with pytest.raises(AccessError):
        await open_guard(Settings(home=tmp_path, auth="jwt"), print)
    assert not (await open_guard(Settings(home=tmp_path, auth="keys"), print)).open
    assert (await open_guard(Settings(home=tmp_path), print)).open


def test_without_authentication_and_rates_there_is_no_gate(tmp_path) -> None:
    assert not gated(Settings(home=tmp_path, concurrency="income=3"))
    assert gated(Settings(home=tmp_path, rate_per_s=1))
    assert gated(Settings(home=tmp_path, auth="keys"))


def test_the_demo_says_that_it_has_no_credentials(tmp_path) -> None:
    for asked in ({"auth": "keys"}, {"tls_cert": "c.pem"}):
        with pytest.raises(ValueError, match="the demo calls without credentials"):
            run_demo(Settings(home=tmp_path, **asked), rows=1, console=Console())


def test_settings_hold_no_secret(tmp_path) -> None:
    """Every setting of access is a path, a name or a number: what is secret stays in its file."""
    shown = repr(Settings(home=tmp_path, auth="keys,jwt", tls_key="k.pem", **JWT))
    assert "k.pem" in shown
    with pytest.raises(ValueError, match="MODEL=PLACES"):
        Settings(home=tmp_path, concurrency="income")
