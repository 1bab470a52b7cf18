"""Calls that were typed by hand into an assistant's text, read back: by the call syntaxes of `dialects`, and a few looser habits.

    found = read_typed('Let me look. <tool_call>{"name": "f", "arguments": {}}</tool_call>', {tool.name: tool})
    found.calls, found.content            # the calls, and the text that is left

Read are marks of any call syntax, JSON behind a mark that is not closed by the book (`<functioncall> {...}`, `[TOOL_CALLS]
[...]`), a code fence that holds a call, a text that is a call and nothing else (JSON or Python), and `Action:` / `Action
Input:`. Forms without marks count only where the tool is on offer: a JSON object with a name may be an honest answer. Whether
calls fit their tools is not looked at, and nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.choose import SYNTAXES
from toolhone.dialects.syntax.delimited import DelimitedFormat, DelimitedSyntax
from toolhone.dialects.syntax.json_reading import as_call, decode
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.dialects.syntax.parameters import Parameters
from toolhone.dialects.syntax.python_calls import PythonCalls
from toolhone.schema import Json, Tool, ToolCall

MARK = re.compile(
    r"(?i:<[/|]{0,2}(?:start_|end_)?(?:tool|function)[_▁ ]?(?:calls?|use)(?:[_▁][a-z_▁]{1,30})?\|?>)"
    r"|<｜tool▁[a-z▁]{1,30}｜>"
    r"|<function=[^<>\n]{1,80}>|</function>|<invoke name=[^<>\n]{1,80}>|</invoke>"
    r"|\[/?TOOL_CALLS?\]|<\|python_tag\|>"
)
"""Marks with which models and their templates begin and end calls."""
_QUICK = ("<", "[TOOL_CALL", "[/TOOL_CALL")
_CLOSING = re.compile(r"<\|?/|\[/|<end_|<[^=]*[_▁]end[|｜]?>")
_NAMED = re.compile(
    r"\s{0,8}([\w.:/-]{1,80})\s{0,8}(?:\[ARGS\]|<[|｜]tool[_▁]sep[|｜]>)?\s{0,8}(?=\{)"
)
_FUNCTION = re.compile(r"<function=[\"']?([^<>\"'\n]{1,80})[\"']?>")
_FENCE = re.compile(r"```[\w-]*[ \t]*\n")
_INLINE = re.compile(r"`[^`\n]+`")
_ACTION = re.compile(
    r"^[ \t]*Action[ \t]*:([^\n]*)\n+[ \t]*Action[ _]?Input[ \t]*:[ \t]*(?=\{)", re.MULTILINE
)
_KEYS = (
    ("name", ("arguments", "parameters", "args", "input")),
    ("tool", ("args", "arguments", "parameters")),
)
_XML = Parameters("<parameter=", ">\n", "\n</parameter>\n")
_NAMED_XML = Parameters('<parameter name="', '">\n', "\n</parameter>\n")
_FRAMED = (
    DelimitedSyntax(
        DelimitedFormat("<tool_call>\n<function=", "\n</function>\n</tool_call>", ">\n"), _XML
    ),
    DelimitedSyntax(DelimitedFormat("<function=", "\n</function>", ">\n"), _XML),
    DelimitedSyntax(
        DelimitedFormat("<tool_call>", "\n</tool_call>", "\n"),
        Parameters("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
    ),
    DelimitedSyntax(
        DelimitedFormat(
            '<function_calls>\n<invoke name="',
            "\n</invoke>\n</function_calls>",
            '">\n',
            '\n</invoke>\n<invoke name="',
        ),
        _NAMED_XML,
    ),
    DelimitedSyntax(DelimitedFormat('<invoke name="', "\n</invoke>", '">\n'), _NAMED_XML),
    DelimitedSyntax(
        DelimitedFormat("<|tool_call_start|>[", "]<|tool_call_end|>", "", ", "), PythonCalls()
    ),
)
"""Forms that are not JSON, as people copy them from templates."""
_BARE = ("bare_json", "json", "calls")
"""Syntaxes without marks."""
_SAMPLE = re.compile(r"[\w.:/-]+\(|\{|\[")


@dataclass(frozen=True)
class TypedCalls:
    """Calls found in a text, and the text that is left; `form` says how they were typed."""

    calls: tuple[ToolCall, ...]
    content: str | None
    form: str


def marks_in(text: str) -> list[str]:
    """The marks of calls in a text, in order; what stands in code (between backticks) only mentions them."""
    if not any(sign in text for sign in _QUICK) or not MARK.search(text):
        return []
    return MARK.findall(_without_code(text))


def _without_code(text: str) -> str:
    if "`" not in text:
        return text
    pieces, position = list[str](), 0
    for start, end, _ in _fences(text):
        pieces.append(text[position:start])
        position = end
    return _INLINE.sub("", "".join([*pieces, text[position:]]))


def _fences(text: str) -> Iterator[tuple[int, int, str]]:
    """Code fences, each looked for behind the one before it: where it begins, where it ends, and what is inside."""
    position = 0
    while opening := _FENCE.search(text, position):
        close = text.find("```", opening.end())
        if close < 0:
            return
        yield (
            opening.start(),
            close + 3,
            text[opening.end() : close].rstrip(" \t").removesuffix("\n"),
        )
        position = close + 3


def is_closing(mark: str) -> bool:
    """Whether a mark ends a call."""
    return _CLOSING.match(mark) is not None


def read_typed(text: str, tools: Mapping[str, Tool]) -> TypedCalls | None:
    """The calls that were typed into a text; None where there are none, or none that can be read whole."""
    marks = marks_in(text)
    if marks:
        return _by_syntax(text) or _by_frame(text, tools) or _behind_marks(text)
    if not text or not tools:
        return None
    offered = tools.keys()
    return _fenced(text, offered) or _bare(text, offered) or _action(text, offered)


def _by_syntax(text: str) -> TypedCalls | None:
    """What a call syntax with marks reads without a problem, and without a mark left over."""
    for name, make in SYNTAXES.items():
        reply = make().read(text) if name not in _BARE else ParsedReply(text)
        if reply.calls and reply.problem is ParseProblem.NONE and not marks_in(reply.content or ""):
            return TypedCalls(reply.calls, reply.content, f"between the marks of {name}")
    return None


def _by_frame(text: str, tools: Mapping[str, Tool]) -> TypedCalls | None:
    """Calls of tools on offer in a form that is not JSON, without a mark left over."""
    for form in _FRAMED:
        reply = form.read(text, tuple(tools.values()))
        known = bool(reply.calls) and all(call.name in tools for call in reply.calls)
        if known and reply.problem is ParseProblem.NONE and not marks_in(reply.content or ""):
            return TypedCalls(reply.calls, reply.content, f"in the form {form.name}")
    return None


def _behind_marks(text: str) -> TypedCalls | None:
    """JSON, or Python literals, behind an opening mark; the closing mark may be missing."""
    pieces: list[str] = []
    calls: list[ToolCall] = []
    position, first = 0, ""
    while mark := MARK.search(text, position):
        before = text[position : mark.start()]
        if is_closing(mark[0]):
            return None
        inside, behind = _FUNCTION.fullmatch(mark[0]), _NAMED.match(text, mark.end())
        named = inside or behind
        read = _value_at(text, mark.end() if behind is None or inside else behind.end())
        found = [] if read is None else list(_calls(read[0], named[1] if named else None))
        if read is None or not found:
            return None
        pieces, calls, first = [*pieces, before], [*calls, *found], first or mark[0]
        closing = MARK.match(text, _skip(text, read[1]))
        position = closing.end() if closing is not None and is_closing(closing[0]) else read[1]
    pieces.append(text[position:])
    return TypedCalls(tuple(calls), _joined(pieces), f"behind {first}") if calls else None


def _fenced(text: str, offered: Collection[str]) -> TypedCalls | None:
    """Code fences that hold calls of tools on offer and nothing else; other fences are text."""
    if "```" not in text:
        return None
    calls: list[ToolCall] = []
    pieces, position = list[str](), 0
    for start, end, code in _fences(text):
        inside = _bare(code, offered)
        if inside is not None and inside.content is None:
            calls += inside.calls
            pieces.append(text[position:start])
            position = end
    return (
        TypedCalls(tuple(calls), _joined([*pieces, text[position:]]), "in a code fence")
        if calls
        else None
    )


def _bare(text: str, offered: Collection[str]) -> TypedCalls | None:
    """A text that is calls of tools on offer, as JSON or as Python, and nothing else."""
    if not _SAMPLE.match(text, _skip(text, 0)) or not any(name in text for name in offered):
        return None
    read = _value_at(text, 0)
    if read is not None and not text[read[1] :].strip():
        calls = tuple(_calls(read[0], None))
        return (
            TypedCalls(calls, None, "as bare JSON")
            if calls and all(call.name in offered for call in calls)
            else None
        )
    for name in _BARE:
        reply = SYNTAXES[name]().read(text)
        known = reply.calls and all(call.name in offered for call in reply.calls)
        if known and reply.problem is ParseProblem.NONE and not reply.content:
            return TypedCalls(reply.calls, None, f"in the form {name}")
    return None


def _action(text: str, offered: Collection[str]) -> TypedCalls | None:
    """`Action:` and `Action Input:`, as in prompts that ask for reasoning and acting in turns."""
    pieces, calls, position = list[str](), list[ToolCall](), 0
    while found := _ACTION.search(text, position):
        read = _value_at(text, found.end())
        name = found[1].strip()
        if name not in offered or read is None or not isinstance(read[0], dict):
            return None
        pieces.append(text[position : found.start()])
        calls.append(ToolCall(name, read[0]))
        position = read[1]
    return (
        TypedCalls(tuple(calls), _joined([*pieces, text[position:]]), "as an action")
        if calls
        else None
    )


def _value_at(text: str, start: int) -> tuple[Json, int] | None:
    """The JSON value, or Python literal, that begins at `start` after white space, if it is an object or a list."""
    start = _skip(text, start)
    if text[start : start + 1] not in ("{", "["):
        return None
    found = decode(text, start)
    if found.problem is ParseProblem.NONE:
        return found.value, found.end
    reader = LiteralReader(text, start)
    try:
        return reader.value(), reader.position
    except LiteralError:
        return None


def _calls(value: Json, name: str | None) -> Iterator[ToolCall]:
    """The calls of a decoded value, an object or a list of them; nothing when one of them is none. `name`: told by the mark."""
    entries = value if isinstance(value, list) else [value]
    if name is not None and isinstance(value, dict):
        yield ToolCall(name, value)
        return
    calls = [_call(entry) for entry in entries]
    yield from (
        [call for call in calls if call is not None]
        if all(call is not None for call in calls)
        else []
    )


def _call(entry: Json) -> ToolCall | None:
    body = entry.get("function", entry) if isinstance(entry, dict) else entry
    for name_key, argument_keys in _KEYS:
        if (
            isinstance(body, dict)
            and isinstance(body.get(name_key), str)
            and any(key in body for key in argument_keys)
        ):
            return as_call(body, name_key, argument_keys).call
    return None


def _skip(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _joined(pieces: Sequence[str]) -> str | None:
    return "\n".join(filter(None, map(str.strip, pieces))) or None
