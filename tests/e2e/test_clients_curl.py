"""The program `curl`, as people type it: no content type of ours, files, pipes and compression."""

import gzip
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "services" / "example.json"


def curl(*words: str, data: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Run curl; returns the status, the headers and the body."""
    done = subprocess.run(
        ["curl", "-s", "-D", "/dev/stderr", "-m", "30", *words],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = done.stderr.decode().strip().split("\r\n\r\n")[-1].splitlines()
    headers = dict(line.lower().split(": ", 1) for line in last[1:] if ": " in line)
    return int(last[0].split()[1]), headers, done.stdout


def test_a_file_is_posted_as_curl_posts_files(gateway) -> None:
    url = f"{gateway.http}/v2/models/income/infer"
    status, headers, body = curl("-d", f"@{EXAMPLE}", "-H", "x-weighbridge-unit: alice", url)
    assert (status, headers["x-weighbridge-arm"]) == (200, "treatment")
    assert json.loads(body)["outputs"][0]["name"] == "probabilities"


@pytest.mark.parametrize(
    "words",
    [
        ("-H", "transfer-encoding: chunked"),
        ("-H", "expect: 100-continue"),
        ("-H", "content-type:"),
        ("-H", "content-type: text/plain"),
        ("--http1.0",),
        ("-X", "POST", "-G", "-d", "a=1", "-d", "b=2"),
    ],
)
def test_odd_but_lawful_ways_to_post(gateway, words) -> None:
    url = f"{gateway.http}/v1/models/sentiment:predict?trace=1"
    body = b'{"instances": ["a wonderful film"]}'
    if "-G" in words:
        status, _, reply = curl(*words, f"{gateway.http}/v1/models/sentiment:predict")
        assert status == 400
        assert b"JSON" in reply
        return
    status, _, reply = curl(*words, "--data-binary", "@-", url, data=body)
    assert status == 200, reply
    assert len(json.loads(reply)["predictions"]) == 1


def test_compression_both_ways(gateway) -> None:
    rows = ["a wonderful film"] * 200
    item = {"name": "text", "datatype": "BYTES", "shape": [200, 1], "data": rows}
    packed = gzip.compress(json.dumps({"inputs": [item]}).encode())
    coding = ("-H", "content-encoding: gzip", "--compressed", "--data-binary", "@-")
    url = f"{gateway.http}/v2/models/sentiment/infer"
    status, headers, body = curl(*coding, url, data=packed)
    assert (status, headers["content-encoding"]) in {(200, "gzip"), (200, "deflate")}
    assert json.loads(body)["outputs"][0]["shape"] == [200, 3]


def test_one_raw_tensor_is_a_whole_body(gateway, image: np.ndarray) -> None:
    url = f"{gateway.http}/v2/models/digits/infer"
    raw = ("-H", "inference-header-content-length: 0", "--data-binary", "@-")
    status, headers, body = curl(*raw, url, data=np.repeat(image, 3, axis=0).tobytes())
    assert status == 200
    size = int(headers["inference-header-content-length"])
    head = json.loads(body[:size])
    assert [output["shape"] for output in head["outputs"]] == [[3, 10], [3, 1]]
    sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
    assert size + sum(sizes) == len(body)
    probabilities = np.frombuffer(body[size : size + sizes[0]], "<f4").reshape(3, 10)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    status, _, body = curl(*raw, url, data=image.tobytes()[:-1])
    assert (status, b"multiple of 784" in body) == (400, True)


def test_questions_and_refusals(gateway) -> None:
    assert curl(f"{gateway.http}/v2/health/ready")[0] == 200
    assert curl("-I", f"{gateway.http}/v2/health/live")[0] == 200
    status, headers, body = curl("-d", "{}", f"{gateway.http}/v2/models/nothing/infer")
    assert (status, headers["content-type"]) == (400, "application/json")
    assert set(json.loads(body)) == {"error"}
    status, _, body = curl("-X", "POST", f"{gateway.http}/v2/repository/index")
    assert status == 200
    assert {"name", "version", "state", "reason"} == set(json.loads(body)[0])
