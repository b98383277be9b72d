"""JSON Web Tokens against a real key server: what holds, and every way not to."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from services.access import jwks as module
from services.access.jwks import ALGORITHMS, KeySet, check_source, parse_jwks
from services.access.tokens import Expected, Tokens, roles_of
from services.faults import TryLater, Unauthenticated
from tests.services.access import issuer as issuers
from tests.services.access.issuer import AUDIENCE, ISSUER, Issuer, JwksServer, b64, serving

ALL = frozenset(ALGORITHMS)
EXPECTED = Expected(ISSUER, AUDIENCE, "roles", ALL)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def one() -> Issuer:
    return Issuer("one")


@pytest.fixture(scope="module")
def two() -> Issuer:
    return Issuer("two", "RS256")


@pytest.fixture
def server(one: Issuer) -> Iterator[JwksServer]:
    with serving(one) as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def tokens(server: JwksServer, clock: Clock) -> AsyncIterator[Tokens]:
    found = Tokens(KeySet(server.url, ALL, clock=clock), EXPECTED)
    yield found
    await found.keys.close()


async def refused(tokens: Tokens, text: str) -> None:
    with pytest.raises(Unauthenticated) as found:
        await tokens.verify(text)
    assert str(found.value) == "the credential does not hold: it is unknown, expired or revoked"
    assert tokens.size == 0


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "PS256", "EdDSA"])
async def test_a_good_token_is_its_subject_with_its_roles(algorithm: str) -> None:
    signer = Issuer("k", algorithm)
    with serving(signer) as server:
        tokens = Tokens(KeySet(server.url, ALL), EXPECTED)
        found = await tokens.verify(signer.token(roles=["infer", "operate", "emperor"]))
    assert found.name == "jwt:alice"
    assert found.roles == {"infer", "operate"}


async def test_a_verified_token_is_remembered_until_it_expires(one, server, clock) -> None:
    now = time.time()
    times = iter([now, now + 599, now + 601])
    tokens = Tokens(KeySet(server.url, ALL, clock=clock), EXPECTED, now=lambda: next(times))
    text = one.token(exp=int(now) + 600)
    await tokens.verify(text)
    assert tokens.recall(text) is not None
    assert tokens.recall(text) is not None
    assert tokens.recall(text) is None
    assert tokens.size == 0


async def test_the_memory_of_tokens_is_bounded(one, server) -> None:
    tokens = Tokens(KeySet(server.url, ALL), EXPECTED, remembered=3)
    for number in range(10):
        await tokens.verify(one.token(sub=f"user-{number}"))
    assert tokens.size == 3


def attacks(one: Issuer, two: Issuer) -> dict[str, str]:
    now = int(time.time())
    good = one.token()
    head, body, signature = good.split(".")
    stranger = Issuer("one")
    return {
        "alg none": one.unsigned(),
        "alg None": f"{b64({'alg': 'None', 'kid': 'one'})}.{body}.",
        "hs256 with the public key": one.confused(),
        "hs256 with the public key, rsa": two.confused(),
        "another key of the same name": stranger.token(),
        "an unknown key id": two.token(),
        "no key id, another key": two.token(head={"kid": None}),
        "its own key in the header": stranger.token(head={"jwk": stranger.jwk()}),
        "an address of keys in the header": stranger.token(head={"jku": "http://127.0.0.1:1/"}),
        "other claims under the signature": one.tampered(roles=["operate"]),
        "wrong issuer": one.token(iss="https://other.test/"),
        "issuer without its slash": one.token(iss=ISSUER.rstrip("/")),
        "wrong audience": one.token(aud="other"),
        "no audience": one.token(aud=None),
        "no issuer": one.token(iss=None),
        "no expiry": one.token(exp=None),
        "no subject": one.token(sub=None),
        "empty subject": one.token(sub=""),
        "long subject": one.token(sub="x" * 300),
        "expired": one.token(exp=now - 60),
        "not yet": one.token(nbf=now + 300),
        "issued in the future": one.token(iat=now + 300),
        "expiry is a text": one.token(exp="soon"),
        "a critical extension": one.token(head={"crit": ["b64"], "b64": True}),
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "five parts": f"{good}.{good}",
        "a JWE": f"{b64({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.a.b.c.d",
        "not a token": "hello",
        "empty parts": "..",
        "a header that is a list": f"{b64([1])}.{body}.{signature}",
        "a header that is deep": f"{issuers.raw(b'[' * 5000)}.{body}.{signature}",
        "a key id that is a list": f"{b64({'alg': 'ES256', 'kid': [1]})}.{body}.{signature}",
        "an algorithm that is a list": f"{b64({'alg': ['ES256'], 'kid': 'one'})}.{body}.x",
        "zero signature": f"{head}.{body}.{issuers.raw(bytes(64))}",
        "a letter of the signature": f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}"
        f"{signature[1:]}",
    }


NAMES = list(attacks(Issuer(), Issuer("two", "RS256")))


@pytest.mark.parametrize("name", NAMES)
async def test_a_bad_token_is_refused_with_one_sentence(name, tokens, one, two) -> None:
    await refused(tokens, attacks(one, two)[name])


async def test_the_good_token_of_the_attacks_is_good(tokens, one) -> None:
    assert (await tokens.verify(one.token(nbf=int(time.time()) + 10))).name == "jwt:alice"
    assert (await tokens.verify(one.token(exp=int(time.time()) - 10))).name == "jwt:alice"


async def test_only_configured_algorithms_hold(two) -> None:
    with serving(two) as server:
        narrow = frozenset({"ES256"})
        tokens = Tokens(KeySet(server.url, narrow), EXPECTED._replace(algorithms=narrow))
        await refused(tokens, two.token())


async def test_a_key_signs_by_its_own_algorithm_only(two) -> None:
    with serving(two) as server:
        tokens = Tokens(KeySet(server.url, ALL), EXPECTED)
        other = Issuer("two", "PS256", two.key)
        assert (await tokens.verify(two.token())).name == "jwt:alice"
        with pytest.raises(Unauthenticated):
            await tokens.verify(other.token())


@settings(max_examples=300)
@given(
    st.text(st.characters(codec="ascii"), max_size=200)
    | st.binary(max_size=80).map(
        lambda data: f"{issuers.raw(data)}.{issuers.raw(data)}.{issuers.raw(data)}"
    )
)
def test_no_bytes_are_more_than_a_refusal(text: str) -> None:
    keys = KeySet("/dev/null", ALL)
    with pytest.raises((Unauthenticated, TryLater)):
        asyncio.run(Tokens(keys, EXPECTED).verify(text))


# --- the key set ----------------------------------------------------------------------------


async def test_a_rotated_key_is_fetched_when_its_name_turns_up(tokens, server, clock, one, two):
    old = one.token()
    await tokens.verify(old)
    server.body = issuers.jwks(two)
    clock.now += 11
    assert (await tokens.verify(two.token())).name == "jwt:alice"
    with pytest.raises(Unauthenticated):
        await tokens.verify(old)  # remembered, but its key is withdrawn


async def test_strangers_cannot_make_us_call_the_issuer(tokens, server, clock, one) -> None:
    await tokens.verify(one.token())
    before = server.asked
    for number in range(50):
        with pytest.raises(Unauthenticated):
            await tokens.verify(one.token(head={"kid": f"made-up-{number}"}))
    assert server.asked == before
    clock.now += 11
    unknown = [one.token(head={"kid": f"again-{number}"}) for number in range(20)]
    found = await asyncio.gather(*map(tokens.verify, unknown), return_exceptions=True)
    assert all(isinstance(item, Unauthenticated) for item in found)
    assert server.asked == before + 1


async def test_an_algorithm_that_is_not_ours_calls_nobody(tokens, server, clock, one) -> None:
    await tokens.verify(one.token())
    clock.now += 11
    before = server.asked
    for text in (one.unsigned(), one.confused()):
        with pytest.raises(Unauthenticated):
            await tokens.verify(text)
    assert server.asked == before


async def test_the_same_keys_fetched_again_forget_nothing(tokens, one) -> None:
    await tokens.verify(one.token())
    await tokens.keys.refresh()
    assert tokens.keys.version == 1
    tokens.recall("other")
    assert tokens.size == 1


async def test_old_keys_serve_while_the_issuer_is_away_for_a_day(tokens, server, clock, one):
    await tokens.verify(one.token())
    for status, body in ((500, b""), (200, b"not json"), (200, b'{"keys": 1}')):
        server.status, server.body = status, body
        clock.now += 3600
        await tokens.verify(one.token(sub=f"s{clock.now}"))
        await tokens.keys.refresh()
    clock.now += 24 * 3600
    with pytest.raises(TryLater):
        await tokens.verify(one.token(sub="late"))
    server.status, server.body = 200, issuers.jwks(one)
    clock.now += 11
    await tokens.verify(one.token(sub="later"))


async def test_an_issuer_that_never_answered_is_not_the_callers_fault(clock, one) -> None:
    with serving(one) as server:
        url = server.url
    tokens = Tokens(KeySet(url, ALL, clock=clock), EXPECTED)
    await tokens.keys.refresh()
    with pytest.raises(TryLater):
        await tokens.verify(one.token())


async def test_keys_are_fetched_again_in_the_background(tokens, server, clock, one) -> None:
    text = one.token()
    await tokens.verify(text)
    before = server.asked
    clock.now += 301
    assert tokens.recall(text) is not None  # nobody waits for it
    await tokens.keys.refresh()
    assert server.asked == before + 1


async def test_redirects_and_large_sets_are_not_taken(tokens, server, one) -> None:
    good = server.body
    with serving(one) as elsewhere:
        server.status, server.location = 302, elsewhere.url
        with pytest.raises(TryLater):
            await tokens.verify(one.token())
        assert elsewhere.asked == 0
    server.status, server.body = 200, good + b" " * (1 << 20)
    await tokens.keys.refresh()
    with pytest.raises(TryLater):
        await tokens.verify(one.token())


async def test_a_file_of_keys_is_followed(tmp_path, clock, one, two) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(issuers.jwks(one))
    tokens = Tokens(KeySet(str(path), ALL, clock=clock), EXPECTED)
    await tokens.verify(one.token())
    path.write_bytes(issuers.jwks(one, two))
    clock.now += 11
    await tokens.verify(two.token())


def test_only_public_signature_keys_are_taken(one, two) -> None:
    weak = Issuer("weak", "RS256", rsa.generate_private_key(65537, 1024))
    exotic = Issuer("k1", "ES256", ec.generate_private_key(ec.SECP256K1())).jwk()
    del exotic["alg"]
    private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(one.key)) | {"kid": "private"}
    odd = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct2", "alg": "RS256"},
        {"kty": "RSA", "kid": "halved", "n": "AQAB"},
        two.jwk(kid="enc", use="enc"),
        two.jwk(kid="wrap", key_ops=["wrapKey"]),
        two.jwk(kid="hs", alg="HS256"),
        two.jwk(kid="none", alg="none"),
        weak.jwk(),
        exotic,
        private,
        "text",
        None,
        {},
    ]
    data = json.dumps({"keys": [*odd, one.jwk(), two.jwk(kid=7)]}).encode()
    assert set(parse_jwks(data, ALL)) == {("one", "ES256"), (None, "RS256")}
    free = {name: value for name, value in two.jwk().items() if name != "alg"}
    found = parse_jwks(json.dumps({"keys": [free]}).encode(), frozenset({"RS256", "PS256"}))
    assert set(found) == {("two", "RS256"), ("two", "PS256")}


@pytest.mark.parametrize(
    "where",
    [
        "http://issuer.test/jwks",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "https://",
        "https://user:secret@issuer.test/",
        "http://127.0.0.1.issuer.test/",
    ],
)
def test_keys_come_from_https_loopback_or_a_file(where: str) -> None:
    with pytest.raises(ValueError) as found:
        check_source(where)
    assert "secret" not in str(found.value)
    for good in ("https://issuer.test/jwks", "http://127.0.0.1:80/", "http://[::1]/", "keys.json"):
        check_source(good)


@pytest.mark.parametrize(
    ("claims", "name", "roles"),
    [
        ({"roles": ["infer", 7]}, "roles", ["infer", 7]),
        ({"scope": "infer review"}, "scope", ["infer", "review"]),
        ({"realm_access": {"roles": ["erase"]}}, "realm_access.roles", ["erase"]),
        ({"https://a.test/roles": ["infer"]}, "https://a.test/roles", ["infer"]),
        ({"roles": {"infer": True}}, "roles", []),
        ({"realm_access": "x"}, "realm_access.roles", []),
        ({}, "roles", []),
    ],
)
def test_roles_are_read_from_one_claim(claims, name, roles) -> None:
    assert roles_of(claims, name) == roles


async def test_an_issuer_that_drips_is_not_waited_for(server, one, monkeypatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.3)
    server.drip_s = 0.1  # each byte in time, all of them never
    keys = KeySet(server.url, ALL)
    async with asyncio.timeout(5):
        await keys.refresh()
    with pytest.raises(TryLater):
        await Tokens(keys, EXPECTED).verify(one.token())
