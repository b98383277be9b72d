"""What share of a card's bare throughput arrives through the gateway, at batch sizes 1 to 256.

Run `python -m bench.gpu [--seconds S] [--sizes 1,8,64] [--device cpu]`. For a small CNN and for a
network of ResNet-50's form (random weights; speed does not ask for good ones) it measures, one
after the other so that the card is never shared: the bare backend in a process of its own, calling
`infer` back to back; then HTTP binary requests of as many rows through a gateway that records
every decision. Last line: `BENCH {json}`. Without a card it says so, and exits with 0.
`--device cpu` tries the machinery where there is no card; its figures are about the CPU.
"""

import argparse
import contextlib
import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from bentoml._internal.resource import system_resources
from torch import nn

from audit.keys import Keyring
from runners.backends import Opening, open_model
from runners.intake.draft import Wish
from runners.intake.onnx import read_onnx
from runners.intake.register import register
from runners.intake.torch import read_torch
from runners.registry import Registry
from services.models import registry_signer

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONNECTIONS = 4
START_S = 180.0
SHAPES = {"cnn": (28, 28, 1), "resnet50": (224, 224, 3)}


class Pixels(nn.Module):
    """Bytes (n, height, width, channels) to what a network takes, (n, channels, height, width)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Images to probabilities."""
        return torch.softmax(self.network(image.permute(0, 3, 1, 2).float() / 255), 1)


class Block(nn.Module):
    """A bottleneck: 1x1, 3x3, 1x1, and the way around. Source: He et al. (2015), figure 5."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
        )
        around = nn.Conv2d(channels, 4 * width, 1, stride, bias=False)
        self.around: nn.Module = nn.Identity()
        if stride > 1 or channels != 4 * width:
            self.around = nn.Sequential(around, nn.BatchNorm2d(4 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block."""
        return torch.relu(self.main(x) + self.around(x))


def resnet50() -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    ]  # fmt: skip
    channels = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for place in range(depth):
            layers.append(Block(channels, width, stride if place == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def add(registry: Registry, name: str, keyring: Keyring, opening: Opening, backend: str) -> None:
    """Export a network and register it."""
    torch.manual_seed(1)
    network = Pixels(cnn() if name == "cnn" else resnet50()).eval()
    image = torch.zeros((2, *SHAPES[name]), dtype=torch.uint8)
    path = Path(registry.home) / f"{name}.{'onnx' if backend == 'onnx' else 'pt2'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if backend == "onnx":
            stream = io.BytesIO()
            axes = {"image": {0: "rows"}, "probabilities": {0: "rows"}}
            torch.onnx.export(
                network, (image,), stream, input_names=["image"], output_names=["probabilities"],
                dynamic_axes=axes, opset_version=17, dynamo=False,
            )  # fmt: skip
            path.write_bytes(stream.getvalue())
            draft = read_onnx(path)
        else:
            rows = {"image": {0: torch.export.Dim("rows")}}
            torch.export.save(torch.export.export(network, (image,), dynamic_shapes=rows), path)
            draft = read_torch(path, "torch-export", outputs=["probabilities"])
    register(
        registry,
        draft,
        Wish(name=name, version="1", kind="cnn", batch="yes"),
        signer=registry_signer(keyring),
        open_model=lambda artefact: open_model(artefact, opening),
    )
    path.unlink()


def rows_of(name: str, size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (size, *SHAPES[name]), dtype=np.uint8)


def bare(home: str, device: str, names: list[str], sizes: list[int], seconds: float) -> dict:
    """Rows per second of each model's own `infer`, by size; run in a process of its own."""
    found: dict[str, dict[int, float]] = {}
    for name in names:
        model = open_model(Registry(Path(home)).open(name, "1"), Opening(device=device))
        model.warm_up()
        found[name] = {}
        for size in sizes:
            batch = {"image": rows_of(name, size)}
            model.infer(batch)
            calls, began = 0, time.perf_counter()
            while calls == 0 or time.perf_counter() - began < seconds:
                model.infer(batch)
                calls += 1
            found[name][size] = calls * size / (time.perf_counter() - began)
    return found


@contextlib.contextmanager
def gateway(home: Path, device: str) -> Iterator[int]:
    """A gateway on a free port; stopped at the end."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    environment = os.environ | {
        "WEIGHBRIDGE_HOME": str(home), "BENTOML_HOME": str(home / "bentoml"),
        "WEIGHBRIDGE_HTTP_PORT": str(ports[0]), "WEIGHBRIDGE_GRPC_PORT": str(ports[1]),
        "WEIGHBRIDGE_DEVICE": device, "WEIGHBRIDGE_MAX_BATCH_ROWS": str(max(SIZES)),
        "WEIGHBRIDGE_EXPLAINER": "false", "BENTOML_DO_NOT_TRACK": "True",
    }  # fmt: skip
    log = home / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", "services.gateway:Gateway"],
            env=environment, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_S
        while not ready(ports[0]):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the gateway did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield ports[0]
    finally:
        process.terminate()
        process.wait(60)


def ready(port: int) -> bool:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        client.request("GET", "/v2/health/ready")
        return client.getresponse().status == 200
    except OSError:
        return False
    finally:
        client.close()


def served(port: int, name: str, size: int, seconds: float) -> float:
    """Rows per second through the gateway, over a few kept connections."""
    raw = rows_of(name, size).tobytes()
    tensor = {"name": "image", "datatype": "UINT8", "shape": [size, *SHAPES[name]]}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    path, done, lock = f"/v2/models/{name}/infer", [0], threading.Lock()
    began = time.perf_counter()

    def calls() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while done[0] < CONNECTIONS or time.perf_counter() - began < seconds:
            client.request("POST", path, head + raw, headers)
            reply = client.getresponse()
            body = reply.read()
            if reply.status != 200:
                raise SystemExit(f"the gateway said {reply.status}: {body[:300]!r}")
            with lock:
                done[0] += 1
        client.close()

    workers = [threading.Thread(target=calls) for _ in range(CONNECTIONS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return done[0] * size / (time.perf_counter() - began)


def card_name() -> str | None:
    """The first card's name, or None when there is none that a backend here can use."""
    usable = "CUDAExecutionProvider" in ort.get_available_providers() or torch.cuda.is_available()
    if not system_resources()["nvidia.com/gpu"] or not usable:
        return None
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    if shutil.which(query[0]) is None:
        return "a card without nvidia-smi"
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")[0]


def measure(home: Path, device: str, sizes: list[int], names: list[str], seconds: float) -> dict:
    keyring = Keyring.load_or_create(home / "keys")
    registry = Registry(home / "bentoml")
    cuda_here = "CUDAExecutionProvider" in ort.get_available_providers()
    backend = "onnx" if device == "cpu" or cuda_here else "torch"
    (home / "bentoml").mkdir()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        for name in names:  # exported and tried on the CPU: this process must not hold the card
            add(registry, name, keyring, Opening(device="cpu"), backend)
        job = apart.submit(bare, str(registry.home), device, names, sizes, seconds)
        alone = job.result()
    found: dict = {"backend": backend}
    print(f"{'model':10}{'rows':>6}{'bare rows/s':>14}{'gateway rows/s':>16}{'share':>8}")
    with gateway(home, device) as port:
        for name in names:
            found[name] = {}
            for size in sizes:
                rate = served(port, name, size, seconds)
                share = rate / alone[name][size]
                print(f"{name:10}{size:6}{alone[name][size]:14.0f}{rate:16.0f}{share:8.2f}")
                found[name][size] = {
                    "bare_per_s": round(alone[name][size], 1),
                    "gateway_per_s": round(rate, 1),
                    "share": round(share, 3),
                }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each figure")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="rows of a request")
    parser.add_argument("--models", default="cnn,resnet50")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    card = card_name()
    if asked.device == "cuda" and card is None:
        print("no card that ONNX Runtime or PyTorch can use is at hand: nothing was measured")
        print('BENCH {"gpu": null}')
        return
    sizes = [int(size) for size in asked.sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="weighbridge-gpu-") as name:
        found = measure(Path(name), asked.device, sizes, asked.models.split(","), asked.seconds)
    gpu = card if asked.device == "cuda" else None
    print("BENCH " + json.dumps({"gpu": gpu, "device": asked.device, **found}))


if __name__ == "__main__":
    main()
