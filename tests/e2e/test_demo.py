"""The demo as a user runs it: starts a server, replays, explains, reports, verifies, tidies up."""

import json
import os
import re
import subprocess
import sys

import psutil
import server as servers


def test_the_demo_leaves_a_verified_report_and_no_process(home) -> None:
    environment = os.environ | {
        "WEIGHBRIDGE_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "WEIGHBRIDGE_HTTP_PORT": str(servers.free_port()),
        "WEIGHBRIDGE_GRPC_PORT": str(servers.free_port()),
        "WEIGHBRIDGE_EXPLAIN_SAMPLES": "100",
        "WEIGHBRIDGE_FAIRNESS_WINDOW_S": "3",
        "WEIGHBRIDGE_SAMPLE_BASE": "0.5",  # so that some digit is explained, whatever the draw
        "COLUMNS": "200",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from services.cli import main; main()", "demo", "--rows", "60"],
        cwd=servers.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "240 decisions made, 240 outcomes reported" in done.stdout
    assert re.search(r"0 pending; [1-9]\d* fairness windows written", done.stdout)
    assert "everything verifies" in done.stdout
    report = json.loads((home / "reports" / "report.json").read_text())
    assert report
    page = (home / "reports" / "report.html").read_text()
    assert "data:image/png" in page
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page), "it needs no network"
    assert "<script" not in page
    names = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    assert not any(str(home) in name for name in names)
