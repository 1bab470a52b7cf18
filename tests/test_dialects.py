"""Call syntaxes: exact text, round trip, malformed texts; and dialects: which tokens are trained, prompt and suffix, refusals."""

from __future__ import annotations

import pytest

from dialect_cases import MALFORMED, MESSAGES, REFUSED, SYNTAX_NAMES, TEXTS
from toolhone.dialects.base import Problem, Reply, Syntax
from toolhone.dialects.choose import open_syntax
from toolhone.dialects.roundtrip import check_reading
from toolhone.errors import DialectError
from toolhone.schema import Message, ToolCall

EVERY_MESSAGE = [pytest.param(name, *message, id=f"{name}-{message[0]}") for name in SYNTAX_NAMES for message in MESSAGES]
EVERY_MALFORMED = [(name, *case) for name in SYNTAX_NAMES for case in MALFORMED[name]]


def write_and_check(syntax: Syntax, message: Message) -> None:
    text = syntax.write(message.content, message.tool_calls)
    check_reading(message, syntax.read(text), text)


@pytest.mark.parametrize(("name", "case", "content", "calls"), EVERY_MESSAGE)
def test_each_message_has_one_exact_text_and_is_read_back_from_it(
    name: str, case: str, content: str | None, calls: tuple[ToolCall, ...]
) -> None:
    syntax = open_syntax(name)
    wanted = TEXTS[name][case]
    if wanted == REFUSED:
        with pytest.raises(DialectError):
            write_and_check(syntax, Message("assistant", content, None, calls))
        return
    assert syntax.write(content, calls) == wanted
    assert syntax.read(wanted) == Reply(content, calls)


@pytest.mark.parametrize(("name", "text", "problem", "names", "content"), EVERY_MALFORMED)
def test_a_malformed_text_has_its_problem_and_keeps_what_can_be_read(
    name: str, text: str, problem: Problem, names: tuple[str, ...], content: str | None
) -> None:
    reply = open_syntax(name).read(text)
    assert (reply.problem, tuple(call.name for call in reply.calls), reply.content) == (problem, names, content)
