"""Results of parallel calls stand at their calls, by id, name or order, in every dialect."""

from __future__ import annotations

from itertools import permutations

import pytest

from support.dialect_models import QWEN_LIKE, small_tokenizer
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.interface import Dialect
from toolhone.errors import DialectError, FindingKind
from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.schema.message import match_results
from toolhone.sources.source import conversation_faults

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = tuple(Tool(name, name, CITY) for name in ("weather", "news", "tides"))
CALLS = tuple(ToolCall(tool.name, {"city": "Oslo"}, f"c{i}") for i, tool in enumerate(TOOLS))
RESULTS = tuple(
    Message("tool", f"answer {call.name}", tool_call_id=call.id, name=call.name) for call in CALLS
)


def without(results: tuple[Message, ...], *keys: str) -> list[Message]:
    kept = {"tool_call_id", "name"} - set(keys)
    return [
        Message("tool", one.content, **{key: getattr(one, key) for key in kept}) for one in results
    ]


def talk(*results: Message, calls: tuple[ToolCall, ...] = CALLS) -> Conversation:
    asked = (Message("user", "How is it?"), Message("assistant", None, None, calls))
    return Conversation((*asked, *results, Message("assistant", "Fine.")), TOOLS, "t")


@pytest.fixture(scope="module", params=["native", "json"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return open_dialect(small_tokenizer(QWEN_LIKE), request.param)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("lost", [(), ("name",), ("tool_call_id",)])
def test_moved_results_are_rendered_as_in_order(
    dialect: Dialect, order: tuple[int, ...], lost: tuple[str, ...]
) -> None:
    results = without(RESULTS, *lost)
    moved, whole = [results[place] for place in order], talk(*results)
    assert dialect.render(talk(*moved)) == dialect.render(whole)
    asked = whole.messages[:2]
    assert dialect.prompt((*asked, *moved), TOOLS) == dialect.prompt((*asked, *results), TOOLS)
    assert dialect.suffix(asked, TOOLS, moved) == dialect.suffix(asked, TOOLS, results)


@pytest.mark.parametrize(
    ("places", "kind"),
    [
        ((0, 2), FindingKind.CALL_WITHOUT_RESULT),
        ((0, 1, 1, 2), FindingKind.RESULT_WITHOUT_CALL),
        ((0, 0, 2), FindingKind.RESULT_WITHOUT_CALL),
    ],
)
@pytest.mark.parametrize("lost", [(), ("name",), ("tool_call_id",)])
def test_a_missing_or_doubled_result_is_a_fault_and_is_not_rendered(
    dialect: Dialect, places: tuple[int, ...], kind: FindingKind, lost: tuple[str, ...]
) -> None:
    results = without(RESULTS, *lost)
    row = talk(*(results[place] for place in places))
    assert kind in [fault.kind for fault in conversation_faults(row)]
    with pytest.raises(DialectError, match="one is missing, doubled or of another call"):
        dialect.render(row)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("lost", [(), ("name",), ("tool_call_id",)])
@pytest.mark.parametrize("after", [(), (Message("user", "And?"),)])
def test_a_prompt_is_refused_where_the_last_results_are_missing(
    dialect: Dialect, count: int, lost: tuple[str, ...], after: tuple[Message, ...]
) -> None:
    asked = talk().messages[:2]
    results = without(RESULTS, *lost)
    with pytest.raises(DialectError, match=r"messages\[1\].tool_calls.* has no result, though oth"):
        dialect.prompt((*asked, *results[:count], *after), TOOLS)
    assert dialect.prompt((*asked, *results, *after), TOOLS)


def test_a_result_is_matched_by_id_then_by_name_then_by_order() -> None:
    weather, news, tides = RESULTS
    bare = Message("tool", "bare")
    assert match_results(CALLS, [bare, tides, weather]) == [1, 2, 0]
    assert match_results(CALLS, [bare, Message("tool", "x", name="weather")]) == [1, 0]
    assert match_results(CALLS, [bare, bare, bare]) == [0, 1, 2]
    assert match_results(CALLS, [news, news]) == [1, None]
    assert match_results(CALLS, [Message("tool", "x", tool_call_id="other")]) == [None]


def test_calls_of_two_messages_are_answered_by_one_run_of_results() -> None:
    asked = (Message("user", "?"), *(Message("assistant", None, None, (one,)) for one in CALLS))
    row = Conversation((*asked, *RESULTS[::-1], Message("assistant", "Fine.")), TOOLS, "t")
    assert not list(conversation_faults(row))
