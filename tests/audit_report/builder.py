"""A synthetic but realistic log: four models, two arms each, seeded; and the ways into it."""

import hashlib
import uuid
from pathlib import Path

import numpy as np

from audit.explain import ExplainError, explain, seed_for
from audit.record import (
    Alert,
    AssignmentConfig,
    Decision,
    ExplanationRecord,
    ExplanationSkipped,
    FairnessWindow,
    Gap,
    ModelRegistered,
    Outcome,
    Override,
)
from audit.report import build
from experiments import assign, load_folder
from experiments.estimate import analyse
from tests.audit_explain.builders import (
    BACKGROUND,
    DigitModel,
    digit,
    table_model,
    table_row,
    text_model,
    text_row,
)

START_US = 1_763_596_800_000_000  # 2025-11-20 00:00 UTC
DAY_US = 86_400_000_000
DEFINITIONS = load_folder(Path(__file__).parents[2] / "experiments" / "definitions")
LABELS = {
    "digits": [str(i) for i in range(10)],
    "sentiment": ["negative", "neutral", "positive"],
    "income": ["<=50K", ">50K"],
    "recommend": ["dislike", "like"],
}
RATES = {"digits": (0.955, 0.975), "sentiment": (0.7, 0.86), "income": (0.85, 0.86)}
TEXTS = [
    "Good story, good actors, not a single bad scene!",
    "这本书很好，故事很好看",
    "The plot is bad and the end is not good.",
    "坏了，不好用，退货",
]
CHECKPOINT = (
    "weighbridge.example/log-1\n{size}\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— weighbridge.example/log-1 Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1"
    "gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)


class Log:
    """Grows an event list; everything random comes from one seed."""

    def __init__(self, *, scale=1.0, seed=7):
        self.rng = np.random.default_rng(seed)
        self.scale = scale
        self.events = []
        self.bodies = {}
        self.sealed = {}
        self.seq = {"3fa1c09e": 0, "b7d20714": 0}
        self.time_us = START_US

    def add(self, event_type, /, **fields):
        self.time_us += int(self.rng.integers(1_000, 90_000_000 / self.scale / 2))
        event_id = str(uuid.UUID(int=int(self.rng.integers(1 << 62)), version=4))
        fields = {"id": event_id, "time_us": self.time_us} | fields
        self.events.append(event_type(**fields))
        return self.events[-1]

    def digest(self, model, version):
        return "sha256:" + hashlib.sha256(f"{model}{version}".encode()).hexdigest()

    def start(self):
        for model, definition in DEFINITIONS.items():
            for version in "12":
                self.add(
                    ModelRegistered, model=model, version=version,
                    digest=self.digest(model, version), device="cpu",
                    runtime="onnxruntime 1.31.1",
                    manifest_evaluation={"accuracy": "0.97", "macro_f1": "0.96", "rows": 1000},
                )  # fmt: skip
            self.add(
                AssignmentConfig, experiment=definition.name,
                experiment_version=definition.version, epoch=1, model=model,
                definition=definition.canonical(), reason="start",
            )  # fmt: skip

    def decide(self, model, unit, label, group=None, /, **changes):
        definition = DEFINITIONS[model]
        found = assign(definition, unit)
        instance = list(self.seq)[int(self.rng.integers(2))]
        self.seq[instance] += 1
        infer = int(self.rng.lognormal(6.2 if model != "sentiment" else 7.4, 0.35))
        queue = int(self.rng.exponential(60))
        score = f"{self.rng.uniform(0.5, 1):.4f}"
        fields = {
            "instance": instance, "seq": self.seq[instance],
            "origin": ["http", "http", "grpc"][int(self.rng.integers(3))],
            "route": model, "unit_ref": hashlib.sha256(unit.encode()).hexdigest()[:32],
            "unit_source": "header", "experiment": definition.name,
            "experiment_version": definition.version, "epoch": 1, "slot": found.slot,
            "arm_assigned": found.arm, "arm_served": found.arm, "propensity": "0.5",
            "reason": "assigned", "model": model, "version": found.model_version,
            "digest": self.digest(model, found.model_version), "runtime": "onnxruntime 1.31.1",
            "device": "cpu", "input_commitment": "00", "output_commitment": "00", "rows": 1,
            "label_counts": {label: 1}, "label": label, "score": score,
            "sampling": {"rule": "base", "probability": "0.05", "selected": False},
            "latency_us": {"queue": queue, "infer": infer, "total": queue + infer + 900},
            "durability": "strict",
        } | changes  # fmt: skip
        decision = self.add(Decision, **fields)
        groups = [] if group is None else [[group, label, 1]]
        self.sealed[decision.id] = {"nonce": "00", "groups": groups}
        return decision

    def outcome(self, decision, metric, value):
        self.add(
            Outcome, decision=decision.id, metric=metric, value=str(int(value)),
            event_id=f"e-{decision.id}", observed_us=self.time_us + 1,
        )  # fmt: skip

    def explained(self, decision, modality, row, predict, labels, target=None):
        try:
            found = explain(
                modality, row, predict, background=BACKGROUND, labels=labels, target=target,
                seed=seed_for(decision.id), samples=300, clock_ns=iter([0, 23_000_000]).__next__,
            )  # fmt: skip
        except ExplainError as exc:
            self.skipped(decision, exc.reason)
            return
        self.bodies[decision.id] = found.body()
        self.add(
            ExplanationRecord, decision=decision.id, model=decision.model,
            version=decision.version, digest=decision.digest, body_commitment="00",
            **found.summary(),
        )  # fmt: skip

    def skipped(self, decision, reason):
        self.add(ExplanationSkipped, decision=decision.id, reason=reason, detail_code="")


SELECTED = {"sampling": {"rule": "base", "probability": "0.05", "selected": True}}


def make_log(*, scale=1.0, seed=7):
    """A day of traffic; about 1,300 events at scale 1."""
    log = Log(scale=scale, seed=seed)
    log.start()
    rng = log.rng
    for i in range(int(220 * scale)):
        label = str(rng.integers(10))
        arm = assign(DEFINITIONS["digits"], f"scan-{i}").arm
        decision = log.decide("digits", f"scan-{i}", label)
        log.outcome(decision, "correct", rng.random() < RATES["digits"][arm == "treatment"])
    for i in range(int(260 * scale)):
        unit = f"reader-{i % int(230 * scale)}"
        arm = assign(DEFINITIONS["sentiment"], unit).arm
        label = LABELS["sentiment"][int(rng.choice(3, p=[0.35, 0.2, 0.45]))]
        decision = log.decide("sentiment", unit, label)
        log.outcome(decision, "correct", rng.random() < RATES["sentiment"][arm == "treatment"])
    for i in range(int(420 * scale)):
        sex = "Male" if rng.random() < 0.62 else "Female"
        race = ["White", "Black", "Asian", "Other"][int(rng.choice(4, p=[0.7, 0.17, 0.1, 0.03]))]
        rich = rng.random() < (0.36 if sex == "Male" else 0.2)
        group = {"sex": sex, "race": race}
        log.decide("income", f"person-{i}", LABELS["income"][int(rich)], group)
    for i in range(int(40 * scale)):
        group = {"gender": "MF"[int(rng.integers(2))], "age_band": "18–29"}
        log.decide("recommend", f"viewer-{i}", "like", group)
    _extras(log)
    return log


def _extras(log):
    log.decide("digits", "scan-0", "7", reason="version_named", arm_assigned=None,
               arm_served=None, experiment=None, experiment_version=None, slot=None,
               propensity=None, epoch=0, origin="grpc")  # fmt: skip
    last = log.seq["3fa1c09e"]
    log.seq["3fa1c09e"] += 1
    log.add(Gap, instance="3fa1c09e", first_seq=last + 1, last_seq=last + 1, reason="refused")
    model = DigitModel()
    for index in (0, 3, 5, 4):
        decision = log.decide("digits", f"explained-{index}", str(index), **SELECTED)
        log.explained(decision, "image", digit(index), model, LABELS["digits"])
    for text in TEXTS:
        decision = log.decide("sentiment", f"reader-{text}", "positive", **SELECTED)
        log.explained(decision, "text", text_row(text), text_model, LABELS["sentiment"])
    for age, education in ((52, b"PhD"), (23, b"HS"), (40, b"BA")):
        decision = log.decide("income", f"p-{age}", ">50K", **SELECTED)
        row = table_row(age=age, education=education)
        log.explained(decision, "table", row, table_model, LABELS["income"], target=1)
    skipped = log.decide("digits", "blank", "1", **SELECTED)
    log.skipped(skipped, "flat_prediction")
    log.decide("sentiment", "waiting", "neutral", **SELECTED)
    overridden = log.decide("income", "complaint", "<=50K", {"sex": "Female", "race": "White"})
    log.add(Override, decision=overridden.id, actor="officer-3", reason="documents corrected",
            label_before="<=50K", label_after=">50K")  # fmt: skip
    log.add(Alert, name="drift", severity="warn", message="input drift on sentiment",
            model="sentiment", details={})  # fmt: skip


def add_window(log, **changes):
    group = {"group": "F", "n": 50, "positive": 10, "selection_rate": "0.2",
             "impact_ratio": None, "verdict": "insufficient_evidence"}  # fmt: skip
    fields = {
        "model": "income", "arm": "control", "version": "1", "from_leaf": 0, "to_leaf": 9,
        "from_us": 0, "to_us": 1, "attribute": "sex",
        "groups": [group, group | {"group": "M", "n": 60, "positive": 30}],
        "reference_group": None, "minimum_count": 30,
    } | changes  # fmt: skip
    log.add(FairnessWindow, **fields)


def make_report(log, **changes):
    """The report of a whole log."""
    options = {
        "payload": lambda decision, name: {"explanation": log.bodies}[name].get(decision),
        "sealed": lambda decision: log.sealed.get(decision.id),
        "checkpoint": CHECKPOINT.format(size=len(log.events)),
        "since_us": START_US,
        "until_us": START_US + DAY_US,
        "analyse": analyse,
        "positive_labels": {"income": ">50K", "recommend": "like"},
    } | changes  # fmt: skip
    return build(enumerate(log.events), **options)
