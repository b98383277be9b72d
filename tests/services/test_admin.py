"""Questions and operations: protocol-free answers, and operations that are never half done."""

import asyncio
from types import SimpleNamespace

import pytest

from runners.errors import ModelNotFound
from runners.fleet import Fleet, Slot
from runners.tensor import Signature, TensorSpec
from services.admin import Admin
from services.faults import BadRequest, NotFound, Unsupported

SIGNATURE = Signature(
    (TensorSpec("text", "BYTES", (-1, 1)),), (TensorSpec("label", "INT64", (-1, 1)),)
)


class Registry:
    """Holds version 1 of `m`; loading waits for `gate`."""

    def __init__(self) -> None:
        self.home = "nowhere"
        self.opened = 0

    def names(self) -> list[str]:
        return ["m"]

    def versions(self, name: str) -> list[str]:
        return ["1"] if name == "m" else []

    def manifest(self, name: str, version: str) -> SimpleNamespace:
        return SimpleNamespace(
            name=name,
            version=version,
            runtime="onnxruntime 1.31.1",
            kind="lstm",
            backend="onnx",
            signature=SIGNATURE,
            labels=("a", "b"),
            digest="sha256:00",
        )

    def open(self, name: str, version: str) -> None:
        self.opened += 1


class Model:
    name, version, device, runtime, inline = "m", "1", "cpu", "test", False
    signature = SIGNATURE

    def warm_up(self) -> None:
        """Nothing to do."""


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def admin(registry: Registry) -> Admin:
    fleet = Fleet(registry, lambda _: Model())
    router = SimpleNamespace(snapshot={}, last_error="")
    return Admin(fleet, router, SimpleNamespace(), ready=lambda: True)


async def ask(admin: Admin, method: str, path: str, body: bytes = b""):
    return await admin.answer(method, path.split("/"), body)


async def test_health_and_metadata(admin) -> None:
    await admin.repository.change("m", "load")
    assert (await ask(admin, "GET", "v2/health/ready")).body == {"ready": True, "live": True}
    assert (await ask(admin, "GET", "v2/models")).body == {"models": ["m"]}
    found = (await ask(admin, "GET", "v2/models/m/versions/1")).body
    assert found["platform"] == "onnxruntime_onnx"
    assert found["versions"] == ["1"]
    assert found["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}]
    admin.ready = lambda: False
    assert (await ask(admin, "GET", "v2/health/ready")).status == 503


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "v2/nothing", NotFound),
        ("GET", "v2/models/x", ModelNotFound),
        ("GET", "v2/models/m/versions/9", ModelNotFound),
        ("GET", "v2/models/m/versions/1/nothing", NotFound),
        ("GET", "v2/models/x/stats", ModelNotFound),
        ("GET", "v2/models/m/versions/9/stats", ModelNotFound),
        ("POST", "v2/repository/models/m/versions/9/load", ModelNotFound),
        ("POST", "v2/repository/models/m/versions/9/unload", ModelNotFound),
        ("POST", "v2/repository/models/m/odd/1/load", NotFound),
        ("POST", "v2/repository/models/x/load", ModelNotFound),
        ("POST", "v2/repository/models/x/unload", ModelNotFound),
        ("PUT", "v1/outcomes", NotFound),
        ("GET", "v1", NotFound),
    ],
)
async def test_what_is_not_there_is_refused(admin, method, path, error) -> None:
    await admin.repository.change("m", "load")
    with pytest.raises(error) as refused:
        await ask(admin, method, path)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", BadRequest),
        (b"[]", BadRequest),
        (b'{"parameters": [1]}', BadRequest),
        (b'{"parameters": {"config": "{\\"max_batch_size\\": 4}"}}', Unsupported),
        (b'{"parameters": {"file:1/model.onnx": ""}}', Unsupported),
    ],
)
async def test_a_load_that_asks_for_more_is_refused_and_loads_nothing(
    admin, registry, body, error
) -> None:
    with pytest.raises(error):
        await ask(admin, "POST", "v2/repository/models/m/load", body)
    assert registry.opened == 0


@pytest.mark.parametrize("body", [b"", b" ", b"{}", b'{"parameters": {"unload_dependents": true}}'])
async def test_the_body_of_a_load_may_be_empty(admin, body) -> None:
    assert (await ask(admin, "POST", "v2/repository/models/m/load", body)).status == 200
    assert (await ask(admin, "POST", "v2/repository/models/m/unload", body)).status == 200
    index = await ask(admin, "POST", "v2/repository/index", body)
    assert index.body == [
        {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    ]
    assert (await ask(admin, "POST", "v2/repository/index", b'{"ready": true}')).body == []


async def test_two_loads_at_once_load_once_and_both_wait_until_it_is_ready(admin, registry) -> None:
    await asyncio.gather(admin.repository.change("m", "load"), admin.repository.change("m", "load"))
    assert registry.opened == 1
    assert admin.slot("m", None).state == "READY"
    await asyncio.gather(
        admin.repository.change("m", "unload"), admin.repository.change("m", "unload")
    )
    assert admin.slot("m", None).state == "UNAVAILABLE"


async def test_a_caller_who_leaves_does_not_stop_a_load(admin) -> None:
    call = asyncio.create_task(admin.repository.change("m", "load"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await admin.repository.change("m", "load")
    assert admin.slot("m", None).state == "READY"


async def test_a_load_that_cannot_be_put_on_record_can_be_repeated(admin) -> None:
    async def refuse(_: Slot) -> None:
        raise OSError("canary")

    admin.fleet.on_ready, accept = refuse, admin.fleet.on_ready
    with pytest.raises(OSError, match="canary"):
        await admin.repository.change("m", "load")
    assert admin.slot("m", None).state == "UNAVAILABLE"
    assert "canary" not in admin.slot("m", None).reason
    admin.fleet.on_ready = accept
    await admin.repository.change("m", "load")
    assert admin.slot("m", None).state == "READY"


async def test_a_version_of_another_process_comes_back_as_it_was(admin, registry) -> None:
    served = SimpleNamespace()
    await admin.fleet.attach("m", "1", served, device="cuda:0", runtime="test")
    await admin.repository.change("m", "unload")
    assert admin.slot("m", None).state == "UNAVAILABLE"
    await admin.repository.change("m", "load")
    slot = admin.slot("m", None)
    assert (slot.state, slot.served, slot.device) == ("READY", served, "cuda:0")
    assert registry.opened == 0


async def test_a_version_that_is_being_loaded_is_not_ready_and_says_so(admin) -> None:
    seen = []

    async def look(_: Slot) -> None:
        seen.append(await ask(admin, "GET", "v2/models/m/ready"))
        seen.append(await ask(admin, "GET", "v2/models/m/versions/1/ready"))

    admin.fleet.on_ready = look
    await admin.repository.change("m", "load")
    assert [one.status for one in seen] == [503, 503]
    assert seen[0].body == {"error": "model 'm' is LOADING"}
    assert (await ask(admin, "GET", "v2/models/m/ready")).status == 200
