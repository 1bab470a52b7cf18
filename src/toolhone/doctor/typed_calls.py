"""Calls typed by hand into an assistant's text: finds their marks, and reads them back.

    text = 'Let me look. <tool_call>{"name": "f", "arguments": {}}</tool_call>'
    found = read_typed(text, {tool.name: tool})
    found.calls, found.content            # the calls, and the text that is left

Forms without marks count only for a tool on offer. Nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from toolhone.dialects.choose import SYNTAXES
from toolhone.dialects.interface import ParsedReply, ParseProblem
from toolhone.dialects.syntax.bodies import PythonCalls
from toolhone.dialects.syntax.delimited import DelimitedFormat, DelimitedSyntax
from toolhone.dialects.syntax.literals import read_value
from toolhone.dialects.syntax.model_text import Decoded, as_call, skip_space
from toolhone.dialects.syntax.parameters import Parameters
from toolhone.errors import Fault, FindingKind
from toolhone.schema import Json, Tool, ToolCall
from toolhone.schema.json_input import ARGUMENTS

MARK = re.compile(
    r"(?i:<[/|]{0,2}(?:start_|end_)?(?:tool|function)[_▁ ]?(?:calls?|use)"
    r"(?:[_▁][a-z_▁]{1,30})?\|?(?:\s{0,3}/)?>)"
    r"|<｜tool▁[a-z▁]{1,30}｜>"
    r"|<function=[^<>\n]{1,80}>|</function>|<invoke name=[^<>\n]{1,80}>|</invoke>"
    r"|\[/?TOOL_CALLS?(?:\s{0,3}/)?\]|<\|python_tag\|>"
)
"""Marks with which models and their templates begin and end calls."""
_RESULTS = (
    re.compile(
        r"\s*<(tool_response|tool_result|function_response|function_results?|functionresponse)>"
        r"(.*?)</\1>\s*",
        re.DOTALL | re.IGNORECASE,
    ),
    re.compile(r"\s*\[(RESULT|TOOL_RESULTS?)\](.*?)\[/\1\]\s*", re.DOTALL),
)
_QUICK = ("<", "[TOOL_CALL", "[/TOOL_CALL")
_CLOSING = re.compile(r"<\|?/|\[/|<end_|<[^=]*[_▁]end[|｜]?>")
_NAMED = re.compile(
    r"\s{0,8}([\w.:/-]{1,80})\s{0,8}(?:\[ARGS\]|<[|｜]tool[_▁]sep[|｜]>)?\s{0,8}(?=\{)"
)
_FUNCTION = re.compile(r"<function=[\"']?([^<>\"'\n]{1,80})[\"']?>")
_FENCE = re.compile(r"```[\w-]*[ \t]*\n")
_INLINE = re.compile(rf"`[^`\n]+`|[\"'“](?:{MARK.pattern})[\"'”]")
"""Code, and a mark between quotes: a text about marks."""
_ACTION = re.compile(
    r"^[ \t]*Action[ \t]*:([^\n]*)\n+[ \t]*Action[ _]?Input[ \t]*:[ \t]*(?=\{)", re.MULTILINE
)
_KEYS = (("name", ARGUMENTS), ("tool", ARGUMENTS))
_XML = Parameters("<parameter=", ">\n", "\n</parameter>\n")
_NAMED_XML = Parameters('<parameter name="', '">\n', "\n</parameter>\n")
_PAIRS = Parameters("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n")
_INVOKE, _END = '<invoke name="', "\n</invoke>"
_OUTER, _OUTER_END = "<function_calls>\n", "\n</function_calls>"


_FRAMED = [
    DelimitedSyntax(DelimitedFormat(*marks), body)
    for body, *marks in (
        (_XML, "<tool_call>\n<function=", "\n</function>\n</tool_call>", ">\n"),
        (_XML, "<function=", "\n</function>", ">\n"),
        (_PAIRS, "<tool_call>", "\n</tool_call>", "\n"),
        (_NAMED_XML, _OUTER + _INVOKE, _END + _OUTER_END, '">\n', f"{_END}\n{_INVOKE}"),
        (_NAMED_XML, _INVOKE, _END, '">\n'),
        (PythonCalls(), "<|tool_call_start|>[", "]<|tool_call_end|>", "", ", "),
    )
]
"""Forms that are not JSON, as people copy them from templates."""
_BARE = ("bare_json", "json", "calls")
"""Syntaxes without marks."""
_SAMPLE = re.compile(r"[\w.:/-]+\(|\{|\[")


class TypedCalls(NamedTuple):
    """Calls in a text, and the text that is left; `form` says how they are typed."""

    calls: tuple[ToolCall, ...]
    content: str | None
    form: str


def marks_in(text: str) -> list[str]:
    """Return the marks of calls in a text, in order, without those in code or between quotes."""
    if not any(sign in text for sign in _QUICK) or not MARK.search(text):
        return []
    pieces, position = list[str](), 0
    for start, end, _ in _fences(text):
        pieces.append(text[position:start])
        position = end
    plain = _INLINE.sub("", "".join([*pieces, text[position:]]))
    return [mark[0] for mark in MARK.finditer(plain)]


def _fences(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and inside of each code fence, in linear time."""
    position = 0
    while opening := _FENCE.search(text, position):
        close = text.find("```", opening.end())
        if close < 0:
            return
        position = close + 3
        code = text[opening.end() : close].rstrip(" \t").removesuffix("\n")
        yield opening.start(), position, code


def read_typed(text: str, tools: Mapping[str, Tool]) -> TypedCalls | None:
    """Return the calls typed into a text; None if there are none, or one cannot be read whole."""
    if marks_in(text):
        return _between_marks(text, tools) or _behind_marks(text)
    if not text or not tools:
        return None
    return _fenced(text, tools) or _bare(text, tools) or _action(text, tools)


def _between_marks(text: str, tools: Mapping[str, Tool]) -> TypedCalls | None:
    """Read the marks of a call syntax; in forms that are not JSON only calls of tools on offer."""
    for name, make in SYNTAXES.items():
        reply = make().read(text) if name not in _BARE else ParsedReply(text)
        if _is_complete(reply):
            return TypedCalls(reply.calls, reply.content, f"between the marks of {name}")
    for form in _FRAMED:
        reply = form.read(text, tuple(tools.values()))
        if _is_complete(reply) and all(call.name in tools for call in reply.calls):
            return TypedCalls(reply.calls, reply.content, f"in the form {form.name}")
    return None


def _is_complete(reply: ParsedReply) -> bool:
    whole = bool(reply.calls) and reply.problem is ParseProblem.NONE
    return whole and not marks_in(reply.content or "")


def _behind_marks(text: str) -> TypedCalls | None:
    """Read JSON or Python literals behind opening marks; the closing marks may be missing."""
    pieces, calls, position, first = list[str](), list[ToolCall](), 0, ""
    while mark := MARK.search(text, position):
        if _CLOSING.match(mark[0]):
            return None
        inside, behind = _FUNCTION.fullmatch(mark[0]), _NAMED.match(text, mark.end())
        named = inside or behind
        read = _value_at(text, mark.end() if behind is None or inside else behind.end())
        found = [] if read is None else _calls(read.value, named[1] if named else None)
        if read is None or not found:
            return None
        pieces.append(text[position : mark.start()])
        calls += found
        first = first or mark[0]
        closing = MARK.match(text, skip_space(text, read.end))
        position = closing.end() if closing is not None and _CLOSING.match(closing[0]) else read.end
    return _typed(calls, [*pieces, text[position:]], f"behind {first}")


def _fenced(text: str, offered: Collection[str]) -> TypedCalls | None:
    """Read code fences that hold calls of tools on offer and nothing else."""
    calls, pieces, position = list[ToolCall](), list[str](), 0
    for start, end, code in _fences(text):
        inside = _bare(code, offered)
        if inside is not None and inside.content is None:
            calls += inside.calls
            pieces.append(text[position:start])
            position = end
    return _typed(calls, [*pieces, text[position:]], "in a code fence")


def _bare(text: str, offered: Collection[str]) -> TypedCalls | None:
    """Read a text that is calls of tools on offer, as JSON or as Python, and nothing else."""
    sample = _SAMPLE.match(text, skip_space(text, 0))
    if not sample or not any(name in text for name in offered):
        return None
    read = _value_at(text, 0)
    if read is not None and not text[read.end :].strip():
        found = _calls(read.value, None)
        known = all(call.name in offered for call in found)
        return _typed(found, (), "as bare JSON") if known else None
    for name in _BARE:
        reply = SYNTAXES[name]().read(text)
        known = all(call.name in offered for call in reply.calls)
        if known and reply.calls and reply.problem is ParseProblem.NONE and not reply.content:
            return _typed(reply.calls, (), f"in the form {name}")
    return None


def _action(text: str, offered: Collection[str]) -> TypedCalls | None:
    """Read `Action:` and `Action Input:`, the form of ReAct prompts."""
    pieces, calls, position = list[str](), list[ToolCall](), 0
    while found := _ACTION.search(text, position):
        read, name = _value_at(text, found.end()), found[1].strip()
        if name not in offered or read is None or not isinstance(read.value, dict):
            return None
        pieces.append(text[position : found.start()])
        calls.append(ToolCall(name, read.value))
        position = read.end
    return _typed(calls, [*pieces, text[position:]], "as an action")


def _typed(calls: Sequence[ToolCall], pieces: Sequence[str], form: str) -> TypedCalls | None:
    """Return the calls with the text that is left in pieces; None without calls."""
    content = "\n".join(filter(None, map(str.strip, pieces))) or None
    return TypedCalls(tuple(calls), content, form) if calls else None


def _value_at(text: str, start: int) -> Decoded | None:
    """Read the JSON or Python object or list that begins at `start`."""
    start = skip_space(text, start)
    found = read_value(text, start, literal=True)
    opens = text[start : start + 1] in ("{", "[")
    return found if opens and found.problem is ParseProblem.NONE else None


def _calls(value: Json, name: str | None) -> list[ToolCall]:
    """Return the calls of an object or a list of objects; none if one of them is no call.

    name: the tool that the mark names; the object is then its arguments.
    """
    if name is not None and isinstance(value, dict):
        return [ToolCall(name, value)]
    calls = list[ToolCall]()
    for entry in value if isinstance(value, list) else [value]:
        body = entry.get("function", entry) if isinstance(entry, dict) else entry
        fields = body if isinstance(body, dict) else {}
        usable = (keys for keys in _KEYS if isinstance(fields.get(keys[0]), str))
        keys = next((keys for keys in usable if not fields.keys().isdisjoint(keys[1])), None)
        found = None if keys is None else as_call(fields, *keys)
        if found is None or found.problem is not ParseProblem.NONE:
            return []
        calls += found.calls
    return calls


def typed_results(text: str) -> tuple[str, ...]:
    """Return the results between marks in a text; none if the text holds anything else."""
    for pattern in _RESULTS:
        results, position = list[str](), 0
        while found := pattern.match(text, position):
            results.append(found[2].strip())
            position = found.end()
        if results and position == len(text):
            return tuple(results)
    return ()


def mark_faults(field: str, text: str, tools: Mapping[str, Tool]) -> Iterator[Fault]:
    """Yield the calls and the stray marks in a text of the assistant."""
    shown, right = repr(text.strip()[:60]), "wanted it in tool_calls"
    found = read_typed(text, tools)
    marks = marks_in(text) if found is None else []
    closing = [mark for mark in marks if _CLOSING.match(mark)]
    empty = next((mark for mark in marks if mark[-2:] in ("/>", "/]")), None)
    if found is not None:
        names = ", ".join(repr(call.name) for call in found.calls[:3])
        what = f"the text holds a call of {names}, {found.form}: {shown}"
        yield Fault(FindingKind.TYPED_CALL, field, what, right)
    elif empty is not None:
        right = "wanted no marks in text; calls belong in tool_calls"
        yield Fault(FindingKind.STRAY_MARK, field, f"{empty!r} holds no call: {shown}", right)
    elif closing and 2 * len(closing) == len(marks) and marks[0] not in closing:
        what = f"the call between {marks[0]} and {marks[1]} in the text cannot be read: {shown}"
        yield Fault(FindingKind.TYPED_CALL, field, what, right)
    elif marks:
        counts = f"{len(marks) - len(closing)} marks open and {len(closing)} close"
        what = f"{counts}, the first is {marks[0]!r}: {shown}"
        right = "wanted no marks in text; calls belong in tool_calls"
        yield Fault(FindingKind.STRAY_MARK, field, what, right)
