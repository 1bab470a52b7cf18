"""The kind of error of an episode, one for each."""

import pytest

from toolhone.evaluation.error_kinds import ErrorKind as Kind
from toolhone.evaluation.score import score
from toolhone.schema import Task

TOOLS = [
    {
        "name": name,
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    }
    for name in ("weather", "hotel")
]
ROME = {"name": "weather", "arguments": {"city": "Rome", "days": 2}}
OSLO = {"name": "hotel", "arguments": {"city": "Oslo", "days": 1}}


def task(expect):
    given = {"id": "t", "messages": [{"role": "user", "content": "?"}], "tools": TOOLS}
    return Task.from_dict({**given, "expect": expect})


def call(name="weather", **arguments):
    return {"name": name, "arguments": arguments}


ONE, TWO = {"calls": [ROME]}, {"calls": [ROME, OSLO], "order": "strict"}
NONE = {"no_call": True}


@pytest.mark.parametrize(
    ("expect", "calls", "kind"),
    [
        (ONE, [ROME], Kind.NONE),
        (ONE, [], Kind.NO_CALL),
        (TWO, [ROME], Kind.NO_CALL),
        (NONE, [], Kind.NONE),
        (NONE, [ROME], Kind.NEEDLESS_CALL),
        (ONE, [ROME, OSLO], Kind.NEEDLESS_CALL),
        (ONE, [call("hotel", city="Rome", days=2)], Kind.WRONG_TOOL),
        (ONE, [call(city="Rome")], Kind.MISSING_ARGUMENT),
        (ONE, [call(city="Rome", days=2, unit="C")], Kind.EXTRA_ARGUMENT),
        (ONE, [call(city="Rome", days=[2])], Kind.WRONG_TYPE),
        (ONE, [call(city="Rome", days=3)], Kind.WRONG_ARGUMENT),
        (ONE, [call(city="Paris", unit="C")], Kind.MISSING_ARGUMENT),
        (TWO, [OSLO, ROME], Kind.WRONG_ORDER),
    ],
)
def test_each_wrong_reply_has_one_kind_of_error(expect, calls, kind):
    (sample,) = score([task(expect)], [{"id": "t", "calls": calls}]).samples
    assert sample.error == kind
    assert (sample.error == "") == (not sample.reasons)


def test_a_reply_that_cannot_be_read_is_malformed_whatever_it_calls():
    (sample,) = score([task(ONE)], [{"id": "t", "text": "<tool_call>{"}], "tool_call_tags").samples
    assert sample.error == Kind.MALFORMED


def test_the_kind_of_error_is_kept_in_the_evaluation_folder():
    (sample,) = score([task(ONE)], [{"id": "t", "calls": []}]).samples
    assert type(sample).from_dict(sample.to_dict()).error == "no call"
