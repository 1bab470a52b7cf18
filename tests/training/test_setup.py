"""Scores of a validation: our metrics, and any that `evaluation.metrics` names."""

from __future__ import annotations

import pytest

from toolhone.api import experiment
from toolhone.errors import ConfigError
from toolhone.evaluation.metrics import Evaluation, JudgedEpisode
from toolhone.schema import Expect
from toolhone.training.setup import named_metrics, scores_of, validation_names

SAMPLE = JudgedEpisode(
    *("one", "calculator", 0, "2+2?", "{}", (), Expect(no_call=True), "answered"),
    scores={"exact_match": 0.5, "content_right": 1.0, "tool_accuracy": 0.25},
    legacy_scores={"json_answers.valid_json": 1.0, "playground.tool_accuracy": 0.75},
)


@pytest.mark.parametrize(
    ("names", "more"),
    [
        (None, {}),
        (["valid_json"], {"valid_json": 1.0}),
        (["valid_json_rate", "exact_match"], {"valid_json_rate": 1.0}),
        (["content_right"], {"content_right": 1.0}),
        (["tool_accuracy", "tool_format_correctness"], {"playground.tool_accuracy": 0.75}),
        (["mine.py:brief"], {}),
    ],
)
def test_a_metric_that_is_named_is_measured_in_validation(
    names: list[str] | None, more: dict[str, float]
) -> None:
    plan = experiment({"evaluation": {"metrics": names}})
    scores, _ = scores_of(Evaluation((SAMPLE,)), named_metrics(plan))
    assert scores == {"exact_match": 0.5, "tool_accuracy": 0.25, **more}
    assert set(more) <= set(validation_names(plan, ()))


def test_a_metric_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no metric 'valid_jsn'"):
        named_metrics(experiment({"evaluation": {"metrics": ["valid_jsn"]}}))
