"""What the documents name exists, and what their examples say is what a real server does."""

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import yaml
from typer.main import get_command

from audit.record import ALL
from services.cli import app
from services.oip import METHODS
from services.settings import Settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import server as servers

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROOMS = ("services", "runners", "experiments", "audit")
FENCE = re.compile(
    r"^(?:<!-- example: (?P<name>\w+) -->\n)?```(?P<language>\w*)\n(?P<body>.*?)^```", re.M | re.S
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    return FENCE.sub("", text_of(page))


def spans_of(page: Path) -> list[str]:
    """Everything between single backticks."""
    return re.findall(r"`([^`\n]+)`", prose_of(page))


def shell_of(page: Path) -> list[str]:
    """Every line of a shell block, and every backticked span."""
    blocks = [m["body"] for m in FENCE.finditer(text_of(page)) if m["language"] == "sh"]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    return [line.partition("#")[0] for line in lines] + spans_of(page)


def example(page: Path, name: str) -> str:
    return next(m["body"] for m in FENCE.finditer(text_of(page)) if m["name"] == name)


def rows_of(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    below = re.split(rf"^#+ {re.escape(heading)}$", text_of(page), flags=re.M)[1]
    table = itertools.takewhile(
        lambda line: line.startswith("|"),
        itertools.dropwhile(lambda line: not line.startswith("|"), below.splitlines()),
    )
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table][2:]


@each_page
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if not target.startswith("https://"):
            assert (page.parent / target.partition("#")[0]).exists(), target


@each_page
def test_named_files_exist(page: Path) -> None:
    folders = "|".join((*ROOMS, "tests", "docs", "k8s", "bench"))
    inside = {path.name for room in (*ROOMS, "tests", "bench") for path in (ROOT / room).rglob("*")}
    inside |= {path.name for path in ROOT.iterdir()} | ARTEFACT_FILES
    for span in spans_of(page):
        if re.fullmatch(rf"({folders})/[\w./-]*", span):
            assert (ROOT / span).exists(), span
        elif re.fullmatch(r"[\w-]+\.(py|proto|binpb|yaml|toml|md|json|png|txt)", span):
            assert span in inside, span


ARTEFACT_FILES = {
    *("manifest.json", "pipeline.json", "background.json", "evaluation.json", "model.yaml"),
    *("curves.png", "confusion.png", "roc.png", "report.json", "README.txt"),
}


@each_page
def test_named_attributes_are_in_the_code(page: Path) -> None:
    code = "\n".join(text_of(path) for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    for span in spans_of(page):
        found = re.fullmatch(r"([A-Z][A-Za-z]+)\.(_{0,2}[a-z]\w*)", span)
        if found and found[1] != "Service" and span not in ARTEFACT_FILES:  # BentoML's
            assert f"class {found[1]}" in code, span
            assert f"def {found[2]}(" in code, span


@each_page
def test_make_targets_and_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.M)
    for line in shell_of(page):
        for target in re.findall(r"\bmake ([a-z][a-z-]*)", line):
            assert target in targets, line
        for words in re.findall(r"(?:^|/)weighbridge ([a-z].*)", line):
            check_command(words.replace("[", "").replace("]", ""), line)


def commands_of(command: object) -> dict[str, Any]:
    if not isinstance(command, typer.core.TyperGroup):
        return {}
    context = typer.Context(command)
    return {name: command.get_command(context, name) for name in command.list_commands(context)}


def check_command(words: str, line: str) -> None:
    command = get_command(app)
    for word in words.split():
        commands = commands_of(command)
        if word.startswith("--"):
            options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
            assert word in options, line
        elif commands:
            assert word in commands, line
            command = commands[word]


def test_every_command_is_in_the_readme() -> None:
    for name in commands_of(get_command(app)):
        assert f"weighbridge {name}" in text_of(ROOT / "README.md"), name


def test_the_settings_table_is_the_settings() -> None:
    rows = {name.strip("`"): (default, meaning) for name, default, meaning in settings_rows()}
    fields = {f"WEIGHBRIDGE_{name.upper()}": f for name, f in Settings.model_fields.items()}
    assert list(rows) == list(fields), "same names, same order"
    for name, field in fields.items():
        default = field.default
        if isinstance(default, Path) and default.is_absolute():
            default = default.relative_to(ROOT)
        shown, meaning = rows[name]
        assert shown == (f"`{default}`" if str(default) else "(empty)"), name
        assert meaning, name
        assert field.description, name


def settings_rows() -> list[list[str]]:
    return rows_of(ROOT / "README.md", "Settings")


@each_page
def test_named_settings_exist(page: Path) -> None:
    known = {f"WEIGHBRIDGE_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"WEIGHBRIDGE_[A-Z_]+[A-Z]", text_of(page))) <= known


@each_page
def test_python_examples_compile(page: Path) -> None:
    for found in FENCE.finditer(text_of(page)):
        if found["language"] == "python":
            compile(found["body"], str(page), "exec")


@each_page
def test_no_page_names_a_machine_or_a_workplace(page: Path) -> None:
    for word in ("/home/", "/root/", "/work/", "/tmp/", "localhost", "TODO"):
        assert word not in text_of(page), word


def test_event_types_are_those_of_the_log() -> None:
    page = ROOT / "docs" / "audit-log.md"
    rows = rows_of(page, "Records")
    written = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert written == {kind.type for kind in ALL}


def test_grpc_methods_are_those_of_the_service() -> None:
    table = rows_of(ROOT / "docs" / "protocol.md", "gRPC")
    assert {name for row in table for name in re.findall(r"`(\w+)`", row[0])} == set(METHODS)


def test_every_decision_page_has_its_parts_and_is_listed() -> None:
    listed = text_of(ROOT / "docs" / "adr" / "README.md")
    for page in sorted((ROOT / "docs" / "adr").glob("0*.md")):
        parts = re.findall(r"^## (.*)$", text_of(page), re.M)
        assert parts == ["Context", "Options", "Decision", "Consequences"], page.name
        assert page.name in listed


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs").glob("*.png"):
        assert picture.stat().st_size < 400_000, picture.name


# --- against a real server ------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(
    trained_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Server]:
    """A gateway of this module's own."""
    home = tmp_path_factory.mktemp("docs")
    (home / "bentoml").symlink_to(trained_home / "bentoml")
    with servers.running(home, WEIGHBRIDGE_EXPLAIN_SAMPLES="50") as started:
        yield started


def aimed(text: str, gateway: servers.Server) -> str:
    """An example with the ports of this test's server."""
    return text.replace("127.0.0.1:3000", f"127.0.0.1:{gateway.http_port}").replace(
        "127.0.0.1:3001", gateway.grpc
    )


def curl(name: str, gateway: servers.Server, **words: str) -> str:
    """Run a curl example of the README; returns what it printed."""
    command = aimed(example(ROOT / "README.md", name), gateway).replace("\\\n", " ")
    for word, value in words.items():
        command = command.replace(word, value)
    done = subprocess.run(
        shlex.split(command), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown_after(name: str) -> str:
    """The block that the README shows behind an example."""
    blocks = list(FENCE.finditer(text_of(ROOT / "README.md")))
    place = next(i for i, block in enumerate(blocks) if block["name"] == name)
    return blocks[place + 1]["body"]


def test_the_readmes_http_examples_answer_in_the_shown_form(gateway: servers.Server) -> None:
    found, shown = curl("v2", gateway), shown_after("v2")
    for text in (found, shown):
        assert text.startswith("HTTP/1.1 200")
    names = [re.findall(r"^([a-z-]+): ", text, re.M) for text in (found, shown)]
    assert names[0] == names[1]
    keys = [re.findall(r'"(\w+)":', text) for text in (found, shown)]
    assert keys[0] == keys[1]
    assert "x-weighbridge-arm: treatment" in found, "alice's arm is a matter of arithmetic"

    predicted = httpx.Response(200, text=curl("v1", gateway)).json()["predictions"]
    assert [set(row) for row in predicted] == [{"probabilities", "label"}] * 2

    explained = httpx.Response(200, text=curl("explain", gateway)).json()
    assert explained["explanation"]["explainer"] == "lime-text"
    assert "wonderful" in {item["value"] for item in explained["explanation"]["features"]}


def test_the_readmes_grpc_example_runs_and_its_decision_is_proved(
    gateway: servers.Server, tmp_path: Path
) -> None:
    script = aimed(example(ROOT / "README.md", "grpc"), gateway)
    said = run_python(script)
    assert [line.split()[0] for line in said.splitlines()] == ["label", "version", "decision"]
    assert [line.split()[0] for line in shown_after("grpc").splitlines()] == [
        line.split()[0] for line in said.splitlines()
    ]
    decision = said.split()[-1]

    told = httpx.Response(200, text=curl("outcome", gateway, DECISION=decision)).json()
    assert told["recorded"] == 1

    record, proof = tmp_path / "record.json", tmp_path / "proof.txt"
    record.write_text(gateway.cli("audit", "show", decision).stdout, encoding="utf-8")
    for _ in range(50):  # a checkpoint covers the leaf within about a second
        done = gateway.cli("audit", "prove", decision, "--out", str(proof))
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    key = gateway.cli("audit", "key").stdout.strip()
    verifier = example(ROOT / "docs" / "audit-log.md", "proof")
    assert run_python(verifier, str(record), str(proof), key).startswith("leaf ")


def test_the_registering_example_says_what_is_shown(tmp_path: Path) -> None:
    page = ROOT / "docs" / "models.md"
    script, command = example(page, "double"), shlex.split(example(page, "register"))
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=60, check=True)
    words = [word.replace("double.onnx", str(tmp_path / "double.onnx")) for word in command[1:]]
    done = servers.stopped(tmp_path).cli(*words)
    assert done.returncode == 0, done.stderr
    blocks = list(FENCE.finditer(text_of(page)))
    place = next(i for i, block in enumerate(blocks) if block["name"] == "register")
    shown, said = blocks[place + 1]["body"], done.stdout
    form = re.compile(r"sha256:[0-9a-f]+…?|onnxruntime [0-9.]+|[ ]+$", re.M)
    assert form.sub("", said).split() == form.sub("", shown).split()


def run_python(script: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def http_paths() -> list[tuple[str, str]]:
    """Every verb and path of docs/protocol.md, on the model `digits`, with and without version."""
    found = []
    for cell, _ in rows_of(ROOT / "docs" / "protocol.md", "HTTP"):
        verb = "GET"
        for span in re.findall(r"`([^`]+)`", cell):
            head, _, path = span.rpartition(" ")
            verb = head or verb
            if path in ("/unload",):
                path = "/v2/repository/models/{m}[/versions/{v}]/unload"
            for version in ("", "/versions/1"):
                full = path.replace("[/versions/{v}]", version).replace("{m}", "digits")
                if (verb, full) not in found:
                    found.append((verb, full))
    return found


def test_the_openapi_document_has_the_paths_of_the_protocol_page_and_no_others() -> None:
    page = ROOT / "docs" / "protocol.md"
    text = text_of(ROOT / "services" / "openapi.yaml")
    paths = yaml.safe_load(text)["paths"].items()
    written = {
        (verb.upper(), path) for path, entry in paths for verb in entry if verb != "parameters"
    }
    native = {("POST", row[0].strip("`")) for row in rows_of(page, "Native endpoints")}
    assert len(native) == 3
    told = {
        (verb, path.replace("digits", "{model}").replace("versions/1", "versions/{version}"))
        for verb, path in http_paths()
    }
    assert written == told | native


def test_every_path_of_the_protocol_page_is_served(gateway: servers.Server) -> None:
    paths = http_paths()
    assert len(paths) > 20
    for verb, path in paths:
        if path.endswith("/unload"):
            continue
        reply = httpx.request(verb, gateway.http + path, content=b"", timeout=30)
        assert reply.headers["content-type"] == "application/json", path
        assert reply.status_code in (200, 400), (verb, path, reply.text)


def test_what_is_said_to_be_missing_is_missing(gateway: servers.Server) -> None:
    assert httpx.options(f"{gateway.http}/v2").status_code == 404
    forced = httpx.post(
        f"{gateway.http}/v2/models/income/infer",
        content=(ROOT / "services" / "example.json").read_bytes(),
        headers={"x-weighbridge-arm": "control"},
    )
    assert forced.status_code == 403
