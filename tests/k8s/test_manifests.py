"""Every folder of k8s/ renders with kubectl and validates strictly against Kubernetes' own schemas.

Schemas: PyPI `kubernetes-validate`, which carries those of the Kubernetes releases.
"""

import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

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


def test_the_edge_points_at_one_colour_and_both_colours_exist() -> None:
    edge = rendered("edge")[0]["spec"]["selector"]
    colours = {
        colour: next(i for i in rendered(f"overlays/{colour}") if i["kind"] == "StatefulSet")
        for colour in ("blue", "green")
    }
    labels = {c: s["spec"]["template"]["metadata"]["labels"] for c, s in colours.items()}
    assert sum(edge.items() <= label.items() for label in labels.values()) == 1
