"""Constrained calls: what a grammar allows is read as valid calls, in every form of calls."""

from __future__ import annotations

import builtins
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import typer

from support.dialect_kinds import KINDS, opened
from support.dialect_models import QWEN_LIKE, small_tokenizer
from support.made_up_templates import ADDRESSED, CALLS, OWN_THOUGHT, WITHOUT_END, made_up
from support.template_zoo import zoo_dialect, zoo_parameters
from toolhone.api import evaluate, open_model
from toolhone.backends import constraint as constraint_module
from toolhone.backends.base import SamplingParams, check_unconstrained
from toolhone.backends.constraint import GrammarConstraint, Grammars, compile_grammar
from toolhone.backends.toy import open_toy
from toolhone.cli.main import app
from toolhone.dialects.chat_template.dialect import ChatTemplateDialect
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.grammar import grammar_of
from toolhone.dialects.interface import Dialect, ParseProblem
from toolhone.dialects.probe.prove import prove_template
from toolhone.dialects.syntax.delimited import DelimitedSyntax
from toolhone.episodes.policy import TokenPolicy, Turn
from toolhone.errors import CapabilityError, DialectError, ModelError
from toolhone.rows import Row
from toolhone.schema import Conversation, Expect, Message, Task, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer


def tool(name: str, required: list[str] | None = None, **properties: Any) -> Tool:
    return Tool(
        name, "Does it.", {"type": "object", "properties": properties, "required": required or []}
    )


DEEP = {
    "type": "object",
    "properties": {
        "a": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 99},
            "maxItems": 2,
        },
        "b": {"type": ["null", "boolean"]},
    },
    "required": ["a"],
}
TOOLS = (
    tool(
        "get",
        ["city"],
        city={"enum": ["Oslo", "New York", "it's"]},
        days={"type": "integer", "minimum": 1, "maximum": 9},
    ),
    tool("get_more", ["deep"], unit={"type": "boolean"}, deep=DEEP),
    tool("stop"),
    tool("say", ["text"], text={"type": "string", "maxLength": 4}, n={"type": "number"}),
)
"""Names that begin alike, none of whose calls can become long."""
SAID = (
    (ToolCall("get", {"city": "Oslo", "days": 3}),),
    (ToolCall("get_more", {"unit": True, "deep": {"a": [1, 22], "b": None}}),),
    (ToolCall("stop"), ToolCall("get", {"city": "it's"})),
    (ToolCall("say", {"text": "h;x", "n": 2.5}),),
)
USER = Message("user", "What now?")


def written(tokenizer: TextTokenizer, dialect: Dialect) -> list[list[int]]:
    """The ids of the turns that the dialect writes for `SAID`, with and without text.

    No text stands beside calls whose mark plain text may hold: it could not be told from them.
    """
    turns = []
    beside = not (
        isinstance(dialect, ChatTemplateDialect)
        and isinstance(dialect.syntax, DelimitedSyntax)
        and dialect.syntax.frame.weak
    )
    for content in (None, "Let me see.") if beside else (None,):
        for calls in SAID:
            try:
                spans = dialect.render(
                    Conversation((USER, Message("assistant", content, None, calls)), TOOLS)
                )[-1]
            except DialectError:
                continue
            row = tokenizer.encode_spans(spans)
            turns.append(row.tokens[row.mask].tolist())
    return turns


def follow(constraint: GrammarConstraint, ids: list[int], tokenizer: TextTokenizer) -> None:
    """Take these ids, each of which must be allowed."""
    for place, token in enumerate(ids):
        said = tokenizer.decode(ids[:place])
        assert constraint.allowed()[token], (
            f"{tokenizer.decode([token])!r} is not allowed behind {said!r}"
        )
        constraint.advance(token)


def go_on(
    constraint: GrammarConstraint, stops: set[int], rng: np.random.Generator, most: int = 300
) -> list[int]:
    """Random allowed ids until a stop mark, which is chosen now and then where it is allowed."""
    ids: list[int] = []
    while len(ids) < most and not (ids and ids[-1] in stops):
        allowed = np.flatnonzero(constraint.allowed())
        ends = [token for token in allowed.tolist() if token in stops]
        ids.append(ends[0] if ends and rng.random() < 0.25 else int(rng.choice(allowed)))
        constraint.advance(ids[-1])
    return ids


def wrong(turn_text: str, dialect: Dialect, tools: tuple[Tool, ...] = TOOLS) -> list[str]:
    """The faults of a finished turn: a problem of reading, a call that is not allowed."""
    reply = dialect.parse(turn_text, tools)
    known = {one.name: one for one in tools}
    faults = [] if reply.problem is ParseProblem.NONE else [f"{reply.problem.value}: {turn_text!r}"]
    for call in reply.calls:
        faults += (
            [f"no tool {call.name}"]
            if call.name not in known
            else known[call.name].problems(call.arguments)
        )
    return faults


def random_turns(
    tokenizer: TextTokenizer, dialect: Dialect, many: int, begun: bool = True
) -> Iterator[tuple[str, bool]]:
    """Turns that begin as the dialect's own and continue at random; whether each stopped."""
    grammars, rng = Grammars(dialect, tokenizer), np.random.default_rng(0)
    stops = set(tokenizer.stop_ids(dialect.stop))
    turns = written(tokenizer, dialect)
    for k in range(many):
        start = (
            turns[k % len(turns)][: int(rng.integers(0, len(turns[k % len(turns)])))]
            if k % 8 and begun
            else []
        )
        constraint = grammars(TOOLS)
        follow(constraint, start, tokenizer)
        ids = [*start, *go_on(constraint, stops, rng)]
        yield tokenizer.decode(ids, tuple(stops)), ids[-1] in stops


def check_form(tokenizer: TextTokenizer, dialect: Dialect, many: int) -> None:
    """The dialect's own turns are allowed, and no random turn that is allowed is wrong."""
    turns = written(tokenizer, dialect)
    assert turns
    for ids in turns:
        follow(Grammars(dialect, tokenizer)(TOOLS), ids, tokenizer)
    seen: Counter[int] = Counter()
    for text, stopped in random_turns(tokenizer, dialect, many):
        assert not stopped or not wrong(text, dialect)
        seen[len(dialect.parse(text, TOOLS).calls) if stopped else -1] += 1
    assert seen[1] + seen[2] > many / 4


def spoilt(rng: random.Random, own: list[str]) -> str:
    """One of the dialect's own turns with a part lost and pieces of marks in its place."""
    text = rng.choice(own)
    pieces = [*re.findall(r"\s+|\w+|[^\w\s]+|[^\w\s]", text), *"{[(<\"'", "\n", "a", "1"]
    return "".join(
        [
            text[: rng.randrange(len(text))],
            *(rng.choice(pieces) for _ in range(rng.randrange(4))),
            text[rng.randrange(len(text)) :],
        ]
    )


def check_spoilt(tokenizer: TextTokenizer, dialect: Dialect, many: int) -> None:
    """No text out of pieces of calls is allowed and then read as something wrong."""
    grammars, rng = Grammars(dialect, tokenizer), random.Random(0)
    own = [tokenizer.decode(ids) for ids in written(tokenizer, dialect)]
    stops = tokenizer.stop_ids(dialect.stop)
    allowed = 0
    for _ in range(many):
        ids = [*tokenizer.encode(spoilt(rng, own), control=True), stops[0]]
        ids = ids[: next(place for place, token in enumerate(ids) if token in stops) + 1]
        try:
            follow(grammars(TOOLS), ids, tokenizer)
        except AssertionError:
            continue
        allowed += 1
        assert not wrong(tokenizer.decode(ids, stops), dialect)
    assert 0 < allowed < many


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "json"])
def test_texts_that_imitate_calls_are_allowed_only_where_they_are_read_as_text(kind: str) -> None:
    check_spoilt(*opened(kind), many=150)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_grammar_allows_is_well_formed_and_what_the_dialect_writes_is_allowed(
    kind: str,
) -> None:
    check_form(*opened(kind), many=60)


@pytest.mark.parametrize("name", zoo_parameters())
def test_every_published_template_with_a_dialect_has_a_grammar(name: str) -> None:
    tokenizer, dialect = zoo_dialect(name)
    if isinstance(dialect, str):
        pytest.skip(dialect)
    check_form(tokenizer, dialect, many=24)


@pytest.mark.parametrize("way", CALLS)
def test_forms_that_nobody_uses_have_a_grammar_in_every_body(way: str) -> None:
    tokenizer = made_up(CALLS[way][0])
    dialect = prove_template(tokenizer)
    if way.startswith("text of json"):
        with pytest.raises(DialectError, match="as text inside JSON"):
            grammar_of(dialect, TOOLS, tokenizer)
        return
    if (
        way == "values without quotes"
    ):  # objects are Python's there; a grammar writes them as JSON, which is read as well
        finished = [
            text for text, stopped in random_turns(tokenizer, dialect, 40, begun=False) if stopped
        ]
        assert finished
        assert not [fault for text in finished for fault in wrong(text, dialect)]
        return
    check_form(tokenizer, dialect, many=40)
    check_spoilt(tokenizer, dialect, many=100)


@pytest.mark.parametrize(
    "tokenizer",
    [
        made_up(CALLS["name and object"][0], OWN_THOUGHT),
        made_up(CALLS["name and object"][0], chat=WITHOUT_END),
        made_up("", chat=ADDRESSED),
    ],
    ids=["thoughts of its own", "no end of turns", "name in the header"],
)
def test_chats_of_other_kinds_have_a_grammar(tokenizer: TextTokenizer) -> None:
    check_form(tokenizer, prove_template(tokenizer), many=40)


# -------------------------------------------------------------------------- sampling from a policy


def toy_policy(kind: str, constrained: bool, max_tokens: int = 300) -> TokenPolicy:
    """A random policy, with stop marks more likely than other tokens, so that turns end."""
    tokenizer, dialect = opened(kind)
    trainer = open_toy(tokenizer.vocab_size, seed=1, orders=(0, 1), buckets=64, max_context=4096)
    for stop in tokenizer.stop_ids(dialect.stop):
        trainer._policy.tables[0][0, stop] += 3.0
    for mark in ("<tool_call>", "[TOOL_CALL]"):
        if (token := tokenizer.control_id(mark)) is not None:
            trainer._policy.tables[0][0, token] += 5.0
    params = SamplingParams(max_tokens, temperature=1.0, seed=3)
    grammar = Grammars(dialect, tokenizer).text if constrained else None
    sampler = trainer.snapshot()
    sampler.compile_grammar = partial(compile_grammar, tokenizer)
    return TokenPolicy(sampler, dialect, tokenizer, params, 4096, grammar)


def turns_of(
    policy: TokenPolicy, many: int, offers: Sequence[Sequence[Tool]] = (TOOLS,)
) -> list[Turn]:
    stream = policy.stream()
    for key in range(many):
        stream.submit(key, policy.open([USER], offers[key % len(offers)]))
    answered: dict[int, Turn] = {}
    while polled := stream.poll():
        answered.update(polled)
    return [answered[key] for key in range(many)]


@pytest.mark.parametrize("kind", ["native", "json"])
def test_constrained_turns_of_a_random_policy_are_right_and_free_ones_are_not(kind: str) -> None:
    dialect = opened(kind)[1]
    bound = [
        turn
        for turn in turns_of(toy_policy(kind, constrained=True), 200)
        if turn.stop_reason == "stop"
    ]
    assert len(bound) > 150
    assert [wrong(turn.text, dialect) for turn in bound] == [[]] * len(bound)
    assert {bool(turn.message.tool_calls) for turn in bound} == {True, False}, (
        "calls, and free text"
    )
    free = turns_of(toy_policy(kind, constrained=False), 200)
    tried = [
        turn for turn in free if turn.message.tool_calls or turn.problem is not ParseProblem.NONE
    ]
    assert len(tried) > 50
    assert sum(not wrong(turn.text, dialect) for turn in tried) == 0


def test_the_log_probabilities_of_constrained_samples_are_those_of_the_policy() -> None:
    policy = toy_policy("native", constrained=True)
    for turn in turns_of(policy, 8):
        row = Row.of(
            [*turn.prompt, *turn.tokens], [False] * len(turn.prompt) + [True] * len(turn.tokens)
        )
        again = policy.sampler.logprobs([row])[0][len(turn.prompt) :]
        np.testing.assert_allclose(turn.logprobs, again, atol=1e-5)


def test_prompts_of_one_batch_are_bound_to_their_own_tools() -> None:
    policy = toy_policy("native", constrained=True)
    offers = [(TOOLS[0],), (TOOLS[2],), ()]
    turns = turns_of(policy, 90, offers)
    names = {
        k: {call.name for turn in turns[k::3] for call in turn.message.tool_calls} for k in range(3)
    }
    assert names == {0: {"get"}, 1: {"stop"}, 2: set()}


# -------------------------------------------------------------------------------- tokens and texts


def test_control_tokens_in_marks_are_tokens_and_their_texts_are_not() -> None:
    tokenizer, dialect = opened("native")
    spelt = tokenizer.encode('<tool_call>{"name":"stop","arguments":{}}</tool_call>', control=False)
    constraint = Grammars(dialect, tokenizer)(TOOLS)
    with pytest.raises(AssertionError, match="is not allowed"):
        follow(constraint, spelt, tokenizer)


def test_no_control_token_stands_in_an_argument_or_in_free_text() -> None:
    tokenizer, dialect = opened("native")
    inside = tokenizer.encode('<tool_call>{"name":"say","arguments":{"text":"', control=True)
    for begun in (inside, tokenizer.encode("Let me see")):
        constraint = Grammars(dialect, tokenizer)(TOOLS)
        follow(constraint, begun, tokenizer)
        allowed = constraint.allowed()
        marks = {text for text in tokenizer.control_texts if allowed[tokenizer.control_id(text)]}
        assert marks == (
            set() if begun is inside else {"<|im_end|>", "<|endoftext|>", "<tool_call>"}
        )


def test_a_mark_that_is_an_ordinary_added_token_stands_in_no_argument_either() -> None:
    tokenizer = small_tokenizer(added=("[TOOL_CALL]", "[/TOOL_CALL]", "@@end@@"))
    dialect = open_dialect(tokenizer, "tagged", "chatml")
    constraint = Grammars(dialect, tokenizer)([tool("say", text=TEXT)])
    follow(
        constraint,
        tokenizer.encode('[TOOL_CALL]{"name": "say", "parameters": {"text": "', control=True),
        tokenizer,
    )
    allowed = constraint.allowed()
    assert not any(allowed[tokenizer.control_id(text)] for text in tokenizer.control_texts)


def test_a_thought_may_stand_first_and_must_end_where_the_header_opens_it() -> None:
    tokenizer, dialect = opened("thinking")
    thought = tokenizer.encode("<think>\nhm {} [x]\n</think>\n\n", control=True)
    constraint = Grammars(dialect, tokenizer)(TOOLS)
    follow(constraint, thought, tokenizer)
    follow(
        constraint,
        tokenizer.encode(
            '<tool_call>{"name":"stop","arguments":{}}</tool_call><|im_end|>', control=True
        ),
        tokenizer,
    )


def test_free_text_begins_no_thought_that_does_not_end() -> None:
    tokenizer, dialect = opened("chatml")
    assert tokenizer.control_id("<think>") is None
    for text, right in (
        ("<think>hm</think>So.", True),
        ("So <think>.", True),
        ("<think>hm", False),
        ("\n<think>", False),
    ):
        constraint = Grammars(dialect, tokenizer)(TOOLS)
        follow(constraint, tokenizer.encode(text), tokenizer)
        assert constraint.allowed()[tokenizer.stop_ids(dialect.stop)[0]] == right, text


def test_names_and_values_beyond_ascii_are_allowed_as_they_are() -> None:
    odd = (
        tool(
            "größe_messen",
            ["straße"],
            straße={"enum": ["漢字 🙂", 'say "hi"\\', "a/b"]},
            naïve={"type": "string"},
        ),
    )
    call = ToolCall("größe_messen", {"straße": 'say "hi"\\', "naïve": "Łódź 漢 🙂"})
    for kind in ("native", "json", "calls", "tagged"):
        tokenizer, dialect = opened(kind)
        spans = dialect.render(
            Conversation((USER, Message("assistant", None, None, (call,))), odd)
        )[-1]
        row = tokenizer.encode_spans(spans)
        follow(Grammars(dialect, tokenizer)(odd), row.tokens[row.mask].tolist(), tokenizer)


# ----------------------------------------------------------------------------------------- schemas


def allows(parameters: dict[str, Any], arguments: dict[str, Any], kind: str = "native") -> bool:
    """Whether the grammar lets a call with these arguments through."""
    tokenizer, dialect = opened(kind)
    one = Tool("f", "", parameters)
    constraint = Grammars(dialect, tokenizer)([one])
    body = json.dumps(
        {"name": "f", "arguments": arguments}, separators=(",", ":"), ensure_ascii=False
    )
    try:
        follow(
            constraint,
            tokenizer.encode(f"<tool_call>{body}</tool_call><|im_end|>", control=True),
            tokenizer,
        )
    except AssertionError:
        return False
    return True


def schema(required: tuple[str, ...] = (), /, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


INTEGER, TEXT = {"type": "integer"}, {"type": "string"}
SCHEMAS: list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = [
    (schema((), a=INTEGER), [{}, {"a": -7}], [{"b": 1}, {"a": 1.5}, {"a": "1"}, {"a": None}]),
    (
        schema(("a",), a=INTEGER, b=TEXT),
        [{"a": 1}, {"a": 1, "b": "x"}],
        [{}, {"b": "x"}, {"b": "x", "a": 1}],
    ),
    ({**schema((), a=INTEGER), "additionalProperties": TEXT}, [{"a": 1, "c": "x"}], [{"c": 1}]),
    (schema((), a={"type": "object"}), [{"a": {"x": [1, {"y": None}]}}], [{"a": 1}]),
    (schema((), a={}), [{"a": [1, "x", {"y": True}]}, {"a": None}], []),
    (
        schema((), a={"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 2}),
        [{"a": [1, 2]}],
        [{"a": []}, {"a": [1, 2, 3]}],
    ),
    (schema((), a={"anyOf": [INTEGER, TEXT]}), [{"a": 1}, {"a": "x"}], [{"a": 1.5}]),
    (schema((), a={"oneOf": [INTEGER, TEXT]}), [{"a": 1}, {"a": "x"}], [{"a": True}]),
    (schema((), a={"const": {"k": [1]}}), [{"a": {"k": [1]}}], [{"a": {"k": [2]}}]),
    (
        schema((), a={"enum": [1, "x", None], "type": ["integer", "null"]}),
        [{"a": 1}, {"a": None}],
        [{"a": "x"}],
    ),
    (schema((), a={"type": "string", "pattern": "^[a-c]+$"}), [{"a": "abc"}], [{"a": "abd"}]),
    (
        schema((), a={"type": "string", "format": "date"}),
        [{"a": "2026-01-31"}],
        [{"a": "tomorrow"}],
    ),
    (schema((), a={"type": "string", "format": "int32"}), [{"a": "anything"}], []),
    (
        schema((), a={"type": "string", "minLength": 2, "maxLength": 3}),
        [{"a": "éé"}, {"a": "\n\n"}],
        [{"a": "x"}, {"a": "abcd"}],
    ),
    (
        schema((), a={"type": "number", "minimum": 0, "exclusiveMaximum": 2}),
        [{"a": 1.5}],
        [{"a": 2}, {"a": -1}],
    ),
    (schema((), a={"type": "number"}), [{"a": 6.02e23}, {"a": -0.001}], []),
    (
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/n"}},
            "$defs": {"n": schema(("x",), x=INTEGER, n={"$ref": "#/$defs/n"})},
        },
        [{"a": {"x": 1, "n": {"x": 2}}}],
        [{"a": {"n": {"x": 2}}}, {"a": {"x": 1, "y": 2}}],
    ),
    (
        {**schema((), a=INTEGER, b=INTEGER), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": 1}],
        [{}, {"a": 1, "c": 2}],
    ),
    (
        {"allOf": [schema(("a",), a=INTEGER), schema((), b=TEXT)]},
        [{"a": 1, "b": "x"}],
        [{"b": "x"}],
    ),
]


@pytest.mark.parametrize(
    ("parameters", "right", "bad"), SCHEMAS, ids=lambda value: json.dumps(value)[:40]
)
def test_a_grammar_holds_what_the_schema_says(
    parameters: dict[str, Any], right: list[Any], bad: list[Any]
) -> None:
    for arguments in right:
        assert not Tool("f", "", parameters).problems(arguments)
        assert allows(parameters, arguments), arguments
    for arguments in bad:
        assert not allows(parameters, arguments), arguments


def test_numbers_cannot_become_too_large_to_read() -> None:
    tokenizer, dialect = opened("native")
    constraint = Grammars(dialect, tokenizer)([tool("f", a={"type": "number"})])
    begun = tokenizer.encode('<tool_call>{"name":"f","arguments":{"a":1e99', control=True)
    follow(constraint, begun, tokenizer)
    assert not constraint.allowed()[tokenizer.encode("9")[0]]


@pytest.mark.parametrize(
    ("kind", "parameters", "says"),
    [
        ("native", schema((), a={"type": "array", "uniqueItems": True}), "'f'.*uniqueItems"),
        ("native", schema((), a={"not": TEXT}), "'f'.*not"),
        ("native", schema(("z",), a=INTEGER), "'f'.*'required'.*'z'"),
        ("native", schema((), a={"$ref": "#/$defs/none"}), r"'f'.*'\$ref'.*none"),
        ("native", schema((), a={"enum": ["x"], "type": "integer"}), "'f'.*'enum'"),
        ("calls", {**schema((), a=INTEGER), "minProperties": 1}, "'f'.*'minProperties'"),
        (
            "calls",
            {"type": "object", "additionalProperties": INTEGER},
            "'f'.*'additionalProperties'",
        ),
    ],
)
def test_a_schema_without_a_grammar_is_refused_by_tool_and_keyword(
    kind: str, parameters: dict[str, Any], says: str
) -> None:
    tokenizer, dialect = opened(kind)
    with pytest.raises(DialectError, match=says) as refused:
        Grammars(dialect, tokenizer)([TOOLS[0], Tool("f", "", parameters)])
    assert "\n" not in str(refused.value)


def test_a_tool_name_that_the_form_cannot_write_is_refused() -> None:
    tokenizer, dialect = opened("calls")
    with pytest.raises(DialectError, match="'two words'"):
        grammar_of(dialect, [tool("two words")], tokenizer)


def test_many_tools_with_large_schemas_have_a_grammar() -> None:
    many = [
        tool(
            f"tool_{k}",
            [f"p{k}"],
            **{f"p{i}": {"type": ["string", "integer"]} for i in range(k, k + 12)},
        )
        for k in range(60)
    ]
    for kind in ("native", "json", "calls"):
        tokenizer, dialect = opened(kind)
        constraint = Grammars(dialect, tokenizer)(many)
        ids = go_on(
            constraint, set(tokenizer.stop_ids(dialect.stop)), np.random.default_rng(0), most=60
        )
        assert not constraint._matcher.is_error(), tokenizer.decode(ids)


# --------------------------------------------------------------------------- other modules


def test_without_the_library_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "llguidance":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    tokenizer = small_tokenizer(QWEN_LIKE)
    with pytest.raises(CapabilityError, match=r"pip install 'llguidance>=1\.7'"):
        Grammars(open_dialect(tokenizer), tokenizer)


def test_where_the_library_gives_up_the_turn_ends_and_is_read_as_broken_off() -> None:
    tokenizer, dialect = opened("native")
    constraint = Grammars(dialect, tokenizer)(TOOLS)
    begun = tokenizer.encode('<tool_call>{"name":"say"', control=True)
    follow(constraint, begun, tokenizer)
    constraint.advance(tokenizer.encode("]")[0])
    stops = tokenizer.stop_ids(dialect.stop)
    assert set(np.flatnonzero(constraint.allowed()).tolist()) == set(stops)
    assert (
        dialect.parse(tokenizer.decode([*begun, stops[0]], stops), TOOLS).problem
        is ParseProblem.UNCLOSED
    )


def test_a_learning_method_refuses_constrained_and_truncated_sampling() -> None:
    check_unconstrained(SamplingParams(temperature=0.7), "grpo")
    for params, grammar, says in (
        (SamplingParams(), True, "grpo.*grammar"),
        (SamplingParams(top_p=0.9), False, "top_p"),
        (SamplingParams(top_k=5), False, "top_k"),
    ):
        with pytest.raises(CapabilityError, match=says):
            check_unconstrained(params, "grpo", grammar)


def test_a_policy_refuses_tools_without_a_grammar_before_anything_is_played() -> None:
    bad = Tool("f", "", schema((), a={"not": TEXT}))
    with pytest.raises(DialectError, match="'f'"):
        toy_policy("native", constrained=True).check_tools([TOOLS, (*TOOLS, bad)])
    toy_policy("native", constrained=False).check_tools([(bad,)])


def test_grammars_are_written_and_compiled_once_for_a_set_of_tools(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constraint_module, "KEPT", 2)
    tokenizer, dialect = opened("native")
    grammars = Grammars(dialect, tokenizer)
    written: list[str] = []
    monkeypatch.setattr(
        constraint_module,
        "grammar_of",
        lambda dialect, tools, tokenizer: (
            written.append(tools[0].name) or grammar_of(dialect, tools, tokenizer)
        ),
    )
    missed = constraint_module._compile.cache_info().misses
    for name in ("a", "b", "b", "c", "a"):
        grammars([tool(f"once_{name}")])
    assert written == ["once_a", "once_b", "once_c", "once_a"]
    assert constraint_module._compile.cache_info().misses == missed + 3


def test_a_grammar_is_text_that_compiles_without_the_dialect() -> None:
    tokenizer, dialect = opened("native")
    text, stops = Grammars(dialect, tokenizer).text(TOOLS), tokenizer.stop_ids(dialect.stop)
    assert text == grammar_of(dialect, TOOLS, tokenizer)
    for ids in written(tokenizer, dialect):
        follow(compile_grammar(tokenizer, text, stops), ids, tokenizer)
    with pytest.raises(DialectError, match="nothing"):
        compile_grammar(tokenizer, "start: nothing", stops)


def test_the_setting_binds_what_a_model_says_and_refuses_tools_before_it_plays() -> None:
    model = open_model(
        "pico",
        overrides=[
            "evaluation.constrained=true",
            "evaluation.temperature=1",
            "evaluation.max_new_tokens=24",
        ],
    )
    assert model.policy().grammar is not None
    assert open_model("pico").policy().grammar is None
    good = Task("a", (USER,), TOOLS, Expect(no_call=True))
    assert evaluate(model, [good]).outcomes
    bad = Task(
        "b", (USER,), (*TOOLS, Tool("f", "", schema((), a={"not": TEXT}))), Expect(no_call=True)
    )
    with pytest.raises(DialectError, match="'f'"):
        evaluate(model, [good, bad])


@pytest.mark.parametrize("verb", ["eval", "chat"])
def test_the_flag_is_another_spelling_of_the_setting(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def seen(*given: Any) -> None:
        asked.append(given[2])
        raise ModelError("seen")

    monkeypatch.setattr(f"toolhone.cli.{verb}.open_model", seen)
    with pytest.raises(ModelError, match="seen"):
        typer.main.get_command(app)([verb, "pico", "--constrained"], standalone_mode=False)
    assert list(asked[0]) == ["evaluation.constrained=true"]
