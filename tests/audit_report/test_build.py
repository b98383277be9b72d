from dataclasses import replace

import pytest

from audit.findings import Findings, Problem
from audit.record import AssignmentConfig, Decision, ExplanationRecord, Gap, ModelRegistered
from audit.report import render_html
from tests.audit_report.builder import DAY_US, START_US, add_window, make_log, make_report


@pytest.fixture(scope="module")
def log():
    return make_log()


@pytest.fixture(scope="module")
def report(log):
    return make_report(log)


def decisions(log):
    return [event for event in log.events if isinstance(event, Decision)]


def test_every_decision_is_counted_once(log, report):
    total = len(decisions(log))
    assert sum(row.decisions for row in report.traffic) == total
    assert sum(row.decisions for row in report.models) == total
    assert sum(row.n for row in report.latencies) == total
    assert sum(i.decisions for i in report.log.instances) == total
    for route in {row.route for row in report.traffic}:
        assert sum(r.share for r in report.traffic if r.route == route) == pytest.approx(1)


def test_what_decisions_name_counts_also_where_a_clock_dated_it_after_the_period(log, report):
    later_us = START_US + 2 * DAY_US
    named = AssignmentConfig | ModelRegistered
    twin = make_log()
    twin.events = [
        replace(event, time_us=later_us) if isinstance(event, named) else event
        for event in twin.events
    ]
    unused = next(event for event in twin.events if isinstance(event, ModelRegistered))
    twin.events.append(replace(unused, version="99", time_us=later_us))
    found = make_report(twin)
    assert (found.models, found.sticky, found.trials) == (
        report.models,
        report.sticky,
        report.trials,
    )


def test_selected_is_explained_plus_skipped_plus_pending(log, report):
    selected = sum(event.sampling["selected"] is True for event in decisions(log))
    assert sum(row.selected for row in report.explanations) == selected
    for row in report.explanations:
        assert row.selected == row.explained + row.skipped + row.pending
    assert report.skipped_by_reason == {"flat_prediction": 1}
    assert sum(row.pending for row in report.explanations) == 1


def test_units_keep_their_arm_and_slots_lead_to_it(report):
    assert [row.experiment for row in report.sticky] == [
        "digits-ab", "income-ab", "recommend-ab", "sentiment-ab"
    ]  # fmt: skip
    for row in report.sticky:
        assert (row.moved, row.mismatched, row.unknown) == (0, 0, 0)
        assert row.recomputed >= row.units
    assert report.sticky[-1].returning > 0


def test_a_changed_arm_shows_as_moved_and_mismatched(log):
    events = list(log.events)
    index = max(
        i for i, e in enumerate(events) if isinstance(e, Decision) and e.reason == "assigned"
    )
    other = {"control": "treatment", "treatment": "control"}[events[index].arm_assigned]
    twin = replace(events[index], id="twin", seq=log.seq[events[index].instance] + 1,
                   arm_assigned=other)  # fmt: skip
    changed = make_report(Copy(log, [*events, twin]))
    row = next(r for r in changed.sticky if r.experiment == twin.experiment)
    assert (row.moved, row.mismatched) == (1, 1)


class Copy:
    """The same log with other events."""

    def __init__(self, log, events):
        self.events, self.bodies, self.sealed = events, log.bodies, log.sealed


def test_the_numbering_is_complete_because_a_gap_explains_the_hole(report):
    assert report.log.complete
    assert [i.missing for i in report.log.instances] == [(), ()]
    assert sum(i.refused for i in report.log.instances) == 1


def test_a_lost_record_shows_as_missing(log):
    lost = next(e for e in decisions(log) if e.seq == 10)
    found = make_report(Copy(log, [e for e in log.events if e is not lost]))
    assert not found.log.complete
    bad = next(i for i in found.log.instances if i.missing)
    assert bad.missing == ((10, 10),)
    assert bad.instance == lost.instance
    assert "NOT complete: 1 answer missing" in " ".join(found.summary)


def test_a_number_used_twice_shows(log):
    twin = replace(decisions(log)[0], id="again")
    found = make_report(Copy(log, [*log.events, twin]))
    assert sum(i.duplicates for i in found.log.instances) == 1
    assert not found.log.complete


def test_an_unexplained_hole_without_its_gap_record_shows(log):
    found = make_report(Copy(log, [e for e in log.events if not isinstance(e, Gap)]))
    assert not found.log.complete


def test_experiments_carry_both_intervals_and_a_verdict(report):
    trial = next(t for t in report.trials if t.experiment == "sentiment-ab")
    (comparison,) = trial.comparisons
    assert comparison.anytime[0] < comparison.fixed[0] < comparison.difference
    assert comparison.verdict in {"difference_found", "no_difference_shown"}
    assert trial.srm_verdict == "ok"
    income = next(t for t in report.trials if t.experiment == "income-ab")
    assert income.comparisons[0].verdict == "insufficient_evidence"
    assert report.outcome_tally["repeated"] == 30


def test_fairness_is_counted_over_all_decisions_of_the_period(log, report):
    wanted = sum(bool(log.sealed[e.id]["groups"]) for e in decisions(log) if e.model == "income")
    tables = [t for t in report.fairness if t.model == "income" and t.attribute == "sex"]
    assert sum(g.n for t in tables for g in t.groups) == wanted
    assert {t.source for t in tables} == {"sealed"}
    assert [t.attribute for t in report.fairness if t.model == "income"] == [
        "race", "race", "sex", "sex", "race × sex", "race × sex"
    ]  # fmt: skip


def test_a_group_of_a_few_people_is_not_named(log):
    of_income = [e for e in decisions(log) if e.model == "income" and log.sealed[e.id]["groups"]]
    one = of_income[0].unit_ref
    own = {e.id: [[{"sex": "Unique"}, ">50K", 1]] for e in of_income if e.unit_ref == one}

    def sealed(decision):
        part = log.sealed.get(decision.id)
        return {**part, "groups": own[decision.id]} if decision.id in own else part

    tables = [t for t in make_report(log, sealed=sealed).fairness if t.attribute == "sex"]
    named = {g.group: g.n for t in tables if t.model == "income" for g in t.groups}
    assert "Unique" not in named
    assert named["other"] == len(own)


def test_without_the_sealed_part_recorded_windows_are_added_up():
    log = make_log(scale=0.1)
    add_window(log)
    add_window(log)
    found = make_report(log, sealed=None)
    (table,) = found.fairness
    assert table.source == "windows"
    assert [(g.group, g.n, g.positive) for g in table.groups] == [("F", 100, 20), ("M", 120, 60)]
    assert table.groups[0].impact_ratio == pytest.approx(0.4)
    assert table.groups[0].verdict == "below_four_fifths"


def test_a_malformed_window_is_passed_over_and_said():
    log = make_log(scale=0.05)
    add_window(log, groups=[{}])
    add_window(log)
    found = make_report(log, sealed=None)
    assert found.log.malformed == (len(log.events) - 2,)
    said = f"1 malformed record was passed over; the first is leaf {len(log.events) - 2}."
    assert said in found.summary
    assert [t.groups[0].n for t in found.fairness if t.model == "income"] == [50]


def arms_of(**changes):
    return {"name": "x", "epoch": 1, "model": "income", "metric": "m"} | changes


@pytest.mark.parametrize(
    "definition",
    [
        {},
        {"name": "x", "epoch": "one"},
        {"name": [], "epoch": 1},
        arms_of(),
        arms_of(arms={}),
        arms_of(arms=[]),
        arms_of(arms=[7]),
        arms_of(arms=[{"name": "a", "version": "1"}]),
        arms_of(arms=[{"name": "a", "version": "1", "weight": 5}]),
        arms_of(arms=[{"name": "a", "version": {}, "weight": 10_000}]),
        arms_of(arms=[{"name": "a", "version": "1", "weight": w} for w in (-1, 10_001)]),
        *({"ranges": ranges} for ranges in (7, ["a"], [{}], [{"first": "0"}], [{"first": 0}])),
    ],
)
def test_a_malformed_definition_is_passed_over_and_counted(log, report, definition):
    events = list(log.events)
    index = next(i for i, e in enumerate(events) if isinstance(e, AssignmentConfig))
    model = events[index].model
    events[index] = replace(events[index], definition=definition)
    found = make_report(Copy(log, events), worked_per_model=0)
    assert found.definitions_malformed == 1
    assert found.trials == tuple(t for t in report.trials if t.model != model)
    assert [row.unknown > 0 for row in found.sticky] == [
        row.experiment == events[index].experiment for row in found.sticky
    ]


def test_the_page_says_how_many_definitions_were_not_analysed(report):
    assert "could not be analysed" not in render_html(report)
    page = render_html(replace(report, definitions_malformed=2))
    assert "2 definitions could not be analysed: malformed" in page


@pytest.mark.parametrize("name", ["fit_r2", "local_error"])
def test_an_explanation_of_no_numbers_is_passed_over(log, name):
    events = list(log.events)
    leaf = next(i for i, e in enumerate(events) if isinstance(e, ExplanationRecord))
    events[leaf] = replace(events[leaf], **{name: "abc"})
    found, whole = make_report(Copy(log, events)), make_report(log)
    assert found.log.malformed == (leaf,)
    assert sum(r.pending for r in found.explanations) == 1 + sum(
        r.pending for r in whole.explanations
    )


def test_a_malformed_decision_is_passed_over_but_its_number_is_accounted_for(log):
    events = list(log.events)
    leaf = next(i for i, e in enumerate(events) if isinstance(e, Decision) and e.seq == 10)
    events[leaf] = replace(events[leaf], latency_us={"total": "long"})
    found = make_report(Copy(log, events))
    assert found.log.complete
    assert found.log.malformed == (leaf,)
    events[leaf] = replace(events[leaf], seq="ten")
    assert not make_report(Copy(log, events)).log.complete


def test_what_cannot_be_opened_is_counted_not_guessed(log):
    found = make_report(log, sealed=lambda decision: None, payload=lambda *_: None)
    assert found.fairness_unread == sum(e.model in {"income", "recommend"} for e in decisions(log))
    assert found.fairness == ()
    assert found.worked == ()
    assert found.worked_unreadable == sum(r.explained for r in found.explanations)


def test_a_body_of_another_form_is_unreadable(log):
    for body in (b"", b"[]", b"{}", b'{"features": 3}', b"\xff"):
        found = make_report(log, payload=lambda *_, body=body: body)
        assert found.worked == ()
        assert found.worked_unreadable > 0


def test_worked_examples_are_chosen_by_the_log_and_may_be_left_out(log, report):
    assert make_report(log).worked == report.worked
    per_version = {}
    for worked in report.worked:
        key = worked.model, worked.version
        per_version[key] = per_version.get(key, 0) + 1
    assert max(per_version.values()) == 2
    assert make_report(log, worked_per_model=0).worked == ()


def test_a_period_counts_its_own_decisions_but_knows_the_past(log):
    middle = decisions(log)[400].time_us
    late = make_report(log, since_us=middle)
    early = make_report(log, until_us=middle)
    assert sum(r.decisions for r in early.traffic) == 400
    assert sum(r.decisions for r in late.traffic) == len(decisions(log)) - 400
    assert len(late.models) == 8
    assert all(row.unknown == 0 for row in late.sticky)
    assert late.log.complete
    with pytest.raises(ValueError, match="empty"):
        make_report(log, since_us=middle, until_us=middle)


def test_an_empty_log_is_reported_as_such(log):
    found = make_report(Copy(log, []))
    assert "no decisions were recorded" in found.summary[0]
    assert found.log.first_leaf is None


def test_a_verification_that_failed_is_said_first(log):
    problem = Problem(3, "the leaves do not give the signed root")
    findings = Findings("o", 1, 1, (problem,), (), ())
    found = make_report(log, completeness=findings)
    assert found.log.verified == "no"
    assert "FAILED" in found.summary[1]
    assert found.log.problems == (str(problem),)
    good = make_report(log, completeness=Findings("o", 1, 1, (), (), ()))
    assert good.log.verified == "yes"


def test_the_period_is_where_the_builder_says(report):
    assert (report.period.since_us, report.period.until_us) == (START_US, START_US + DAY_US)
