"""Prometheus figures of `/v1` and `/v2`, as a scraper reads them."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families


def figures(gateway) -> dict[tuple[str, ...], float]:
    text = httpx.get(f"{gateway.http}/metrics").text
    return {
        (sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("weighbridge_")
    }


def test_answers_and_refusals_are_counted_with_bounded_labels(gateway) -> None:
    before = figures(gateway)
    url = f"{gateway.http}/v1/models"
    for number in range(7):
        unit = {"x-weighbridge-unit": f"metric-{number}"}
        httpx.post(f"{url}/sentiment:predict", json={"instances": ["fine"]}, headers=unit)
    for name in ("nothing", "nothing/versions/1", "else"):
        reply = httpx.post(f"{gateway.http}/v2/models/{name}/infer", json={"inputs": []})
        assert reply.status_code in (400, 404)
    after = figures(gateway)

    def grown(name: str, *words: str) -> float:
        keys = [k for k in after if k[0] == name and set(words) <= set(k)]
        return sum(after[key] - before.get(key, 0) for key in keys)

    assert grown("weighbridge_decisions_total", "model=sentiment", "origin=v1") == 7
    assert grown("weighbridge_decision_seconds_count", "model=sentiment") == 7
    assert "nothing" not in " ".join(word for key in after for word in key)


def test_the_front_page_loads_nothing_from_elsewhere(gateway) -> None:
    page = httpx.get(f"{gateway.http}/")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert "//" not in page.text.replace("<!doctype", "")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs.json", "/schema.json"])
def test_what_is_bentomls_own_stays_reachable(gateway, path) -> None:
    assert httpx.get(f"{gateway.http}{path}").status_code == 200
