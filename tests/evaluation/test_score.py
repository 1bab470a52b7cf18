"""Tests of `evaluation/score.py`: what a prediction may hold besides its text or calls."""

import pytest

from toolhone.errors import DataError
from toolhone.evaluation.score import score
from toolhone.schema import Expect, ExpectedCall, Message, Task, Tool

WEATHER = Tool("weather", "The weather.", {"type": "object", "properties": {"city": {}}})
TASK = Task(
    "t",
    (Message("user", "How is it in Rome?"),),
    (WEATHER,),
    Expect(calls=(ExpectedCall("weather", {"city": "Rome"}),)),
)
CALL = {"name": "weather", "arguments": {"city": "Rome"}}


def test_keys_of_predictions_that_are_not_read_are_counted_by_name() -> None:
    notes: list[str] = []
    prediction = {"id": "t", "calls": [CALL], "latency": 3, "notes": "slow", "model": "m", "x": ""}
    result = score([TASK], [prediction], report=notes.append)
    assert result.metrics["exact_match"].value == 1
    assert notes == [
        "keys not read: 'latency' of a prediction (1), 'notes' of a prediction (1); "
        "a prediction has 'id' and 'text' or 'calls'"
    ]


@pytest.mark.parametrize("key", ["tool_calls", "function_call", "toolInvocations"])
def test_calls_under_another_name_are_refused_and_not_scored_as_none(key: str) -> None:
    with pytest.raises(DataError, match=f"{key}.*write its calls as 'calls'"):
        score([TASK], [{"id": "t", "text": "", key: [CALL]}], "json")
