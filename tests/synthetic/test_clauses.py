"""Arguments in words: a clause that fits the name and the value."""

from __future__ import annotations

import random
from typing import Any

import pytest

from toolhone.schema import Tool
from toolhone.synthetic.described import DescribedPhrase
from toolhone.synthetic.later_turns import correction, ends, thanks, unsaid_request
from toolhone.tools.schema_sampler import SchemaSampler

DATE = {"type": "string", "format": "date"}
MOMENT = {"type": "string", "format": "date-time"}


def phrase(
    name: str, properties: dict[str, Any], required: tuple[str, ...] = ()
) -> DescribedPhrase:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    tool = Tool.of({"name": name, "parameters": parameters})
    return DescribedPhrase(tool, SchemaSampler(tool))


def said(one: DescribedPhrase, held: bool = False, **arguments: Any) -> set[str]:
    """The questions for these arguments, in a hundred draws."""
    draws = (one.ask(arguments, (), random.Random(seed), held) for seed in range(100))
    return {"".join(piece.text for piece in draw.pieces) for draw in draws}


@pytest.mark.parametrize(
    ("properties", "arguments", "question"),
    [
        ({"min": {}, "max": {}}, {"min": 2, "max": 9}, "search trips with between 2 and 9"),
        ({"max_price": {}}, {"max_price": 9}, "search trips with price up to 9"),
        ({"limit": {}}, {"limit": 5}, "search trips with at most 5 results"),
        ({"limit": {}}, {"limit": 1}, "search trips with limit 1"),
        ({"sort_by": {}}, {"sort_by": "price"}, "search trips sorted by price"),
        ({"city": {}}, {"city": "Oslo"}, "search trips in Oslo"),
        ({"from": {}, "to": {}}, {"from": "Oslo", "to": "Bern"}, "search trips from Oslo to Bern"),
        (
            {"amount": {}, "currency": {}},
            {"amount": 5, "currency": "EUR"},
            "search trips for 5 EUR",
        ),
        ({"include_full": {}}, {"include_full": False}, "search trips without full"),
        ({"notify_owner": {}}, {"notify_owner": True}, "search trips and notify the owner"),
        ({"start": DATE, "end": DATE}, {"start": "2026-05-01"}, "search trips since 2026-05-01"),
        (
            {"start": MOMENT},
            {"start": "2026-05-01T09:00:00Z"},
            "search trips at 2026-05-01T09:00:00Z",
        ),
        (
            {"guests": {}},
            {"guests": [{"name": "Ada", "age": 40}]},
            "search trips with first guest (name Ada, age 40)",
        ),
    ],
)
def test_a_clause_fits_the_name_and_the_value(
    properties: dict[str, Any], arguments: dict[str, Any], question: str
) -> None:
    assert question in said(phrase("search_trips", properties), **arguments)


def test_the_object_of_a_verb_follows_it() -> None:
    cancel = phrase("cancel_order", {"order_id": {"type": "string"}}, ("order_id",))
    assert "cancel order A-1" in said(cancel, order_id="A-1")
    convert = phrase("convert_money", {"amount": {}, "from_currency": {}, "to_currency": {}})
    arguments = {"amount": 5, "from_currency": "EUR", "to_currency": "SEK"}
    assert "convert 5 EUR to SEK" in said(convert, **arguments)


def test_held_out_questions_have_clauses_of_their_own() -> None:
    trips = phrase("search_trips", {"city": {}, "max_price": {}})
    arguments = {"city": "Oslo", "max_price": 9}
    assert not said(trips, **arguments) & said(trips, held=True, **arguments)


def test_what_is_missing_is_asked_for_and_then_given() -> None:
    refund = phrase(
        "refund_order",
        {"order_id": {"type": "string"}, "reason": {"enum": ["late", "broken"]}},
        ("order_id", "reason"),
    )
    asked, given = set[str](), 0
    for seed in range(60):
        request = unsaid_request(refund, random.Random(seed), False)
        question = "".join(piece.text for piece in request.draw.pieces)
        asked.add(str(request.later[0].content))
        assert ends(request.later[0])
        (call,) = request.draw.calls
        missing = [value for value in call.arguments.values() if value not in question]
        assert missing
        if len(request.later) > 1:
            given += 1
            assert all(value in str(request.later[1].content) for value in missing)
            assert request.later[2].tool_calls[0].arguments == call.arguments
    assert 20 < given < 60
    assert "Which reason: late or broken?" in asked
    assert "What is the order id?" in asked
    assert "What are the order id and reason?" in asked


def test_a_correction_changes_one_argument_and_says_it() -> None:
    refund = phrase("refund_order", {"order_id": {"type": "string"}, "amount": {"type": "integer"}})
    for seed in range(30):
        rng = random.Random(seed)
        (call,) = refund.ask({"order_id": "A-1", "amount": 5}, (), rng, False).calls
        user, again = correction(refund, call, rng, False) or thanks(rng, False)
        arguments = again.tool_calls[0].arguments
        (changed,) = [name for name in arguments if arguments[name] != call.arguments[name]]
        assert str(arguments[changed]) in str(user.content)
