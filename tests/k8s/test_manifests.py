"""Every folder of k8s/ renders with kubectl and validates strictly against Kubernetes' own schemas.

Schemas: PyPI `kubernetes-validate`, which carries those of the Kubernetes releases.
"""

import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from services.access.checks import AccessError, check_access
from services.access.needs import ANYBODY, http_need
from services.settings import Settings

ROOT = Path(__file__).resolve().parents[2] / "k8s"
pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl renders the folders; .ci/run installs it"
)
FOLDERS = ["base", "overlays/blue", "overlays/green", "edge"]


def rendered(folder: str) -> list[dict]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("release", ["1.32", "1.37"])
def test_every_object_validates_strictly(folder: str, release: str) -> None:
    objects = rendered(folder)
    assert objects
    for item in objects:
        kubernetes_validate.validate(item, release, strict=True)


def test_an_unknown_field_would_be_found() -> None:
    service = next(item for item in rendered("base") if item["kind"] == "Service")
    service["spec"]["prots"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, "1.32", strict=True)


def test_selectors_and_ports_of_the_service_meet_the_pods() -> None:
    objects = {item["kind"]: item for item in rendered("overlays/green")}
    template = objects["StatefulSet"]["spec"]["template"]
    selector = objects["Service"]["spec"]["selector"]
    assert selector.items() <= template["metadata"]["labels"].items()
    names = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in objects["Service"]["spec"]["ports"]} <= names


def test_the_pod_asks_for_keys_that_come_from_a_secret() -> None:
    """What the ConfigMap says is what the settings take, and it opens nothing to strangers."""
    objects = {item["kind"]: item for item in rendered("overlays/blue")}
    data = objects["ConfigMap"]["data"]
    names = {f"WEIGHBRIDGE_{name.upper()}": name for name in Settings.model_fields}
    settings = Settings(**{names[k]: v for k, v in data.items() if k.startswith("WEIGHBRIDGE_")})
    assert settings.auth == "keys"
    assert not settings.allow_open
    spec = objects["StatefulSet"]["spec"]["template"]["spec"]
    mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}
    assert Path(settings.api_keys).parent == Path(mounts["access"]["mountPath"])
    assert mounts["access"]["readOnly"]
    secret = next(v["secret"] for v in spec["volumes"] if v["name"] == "access")
    assert secret == {"secretName": "weighbridge-access", "defaultMode": 0o440}
    with pytest.raises(AccessError, match="no API key"):
        check_access(settings)  # the address passes; only the Secret is not here


def test_every_probe_is_open() -> None:
    objects = {item["kind"]: item for item in rendered("base")}
    container = objects["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert http_need("GET", container[probe]["httpGet"]["path"]) == ANYBODY


def test_the_edge_points_at_one_colour_and_both_colours_exist() -> None:
    edge = rendered("edge")[0]["spec"]["selector"]
    colours = {
        colour: next(i for i in rendered(f"overlays/{colour}") if i["kind"] == "StatefulSet")
        for colour in ("blue", "green")
    }
    labels = {c: s["spec"]["template"]["metadata"]["labels"] for c, s in colours.items()}
    assert sum(edge.items() <= label.items() for label in labels.values()) == 1
