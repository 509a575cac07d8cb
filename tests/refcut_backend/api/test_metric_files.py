"""Alert rules, dashboard and the Helm chart's scaling ask only for metrics, labels and values that the server has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from refcut_backend.errors import BusyError, ClickTimeoutError
from refcut_backend.training.runs import Outcome
from tests.support.fake_wiring import click_body, queue_state
from tests.support.recorded import REPOSITORY, click_result

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((REPOSITORY / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = json.loads((REPOSITORY / "deploy/grafana/refcut.json").read_text())["panels"]
CHART: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker/helm/values.yaml").read_text())
EXPRESSIONS = [
    *(rule["expr"] for rule in RULES),
    *(target["expr"] for panel in PANELS for target in panel["targets"]),
    CHART["worker"]["autoscaling"]["metric"],
]
VALUES = {
    "outcome": {BusyError.code, ClickTimeoutError.code, Outcome.FAILED.value},
    "phase": {"total"},
    "status": {"5.."},
}
"""Label to the values that rules and panels compare it with."""


TRAININGS = {"refcut_trainings": {"stage"}, "refcut_trainings_ended_total": {"outcome"}}
"""Metrics that have no sample before the first training, with their labels."""


def samples_of(client: Any, queue: Any) -> dict[str, set[str]]:
    """Name of each sample of /metrics to its labels, after one click."""
    queue.state = queue_state(3, 2, click_s=0.75)
    client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        if not family.samples:
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = TRAININGS.get(name, set())
        for sample in family.samples:
            found[sample.name] = set(sample.labels)
    return found


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each metric of an expression with the labels and values in its braces."""
    for name, braces in re.findall(r"\b(refcut_\w+)(?:\{([^}]*)\})?", expression):
        yield name, re.findall(r'(\w+)\s*[=!~]+\s*"([^"]*)"', braces)


def test_every_metric_and_label_of_rules_dashboard_and_scaling_exists(client, queue):
    found = samples_of(client, queue)
    for expression in EXPRESSIONS:
        names = [name for name, _ in selectors(expression)]
        assert names, expression
        for name, labels in selectors(expression):
            assert name in found, expression
            for label, value in labels:
                assert label in found[name], expression
                assert value in VALUES[label], expression
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            for label in re.split(r"\s*,\s*", grouped):
                assert any(label in found[name] for name in names), expression


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_is_wrong_and_what_to_do(rule):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert len(rule["annotations"]["summary"]) > 20
    assert len(rule["annotations"]["remedy"]) > 20
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_the_panels_do_not_overlap_and_fit_the_sheet():
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in PANELS)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
