r"""Glaive function calling v2: flat text, calls with their arguments as JSON in single quotes.

    {"system": "SYSTEM: You are a helpful assistant with access to ...\n{...}\n{...}",
     "chat": "USER: ...\n\n\nASSISTANT: <functioncall> {\"name\": \"f\", ...}
              <|endoftext|>\n\n\nFUNCTION RESPONSE: {...}\n\n\nASSISTANT: ... <|endoftext|>"}

A turn begins with a marker at the start or behind an empty line (three line ends if the row has
such); other markers are text, and noted. The apostrophes inside the quoted arguments are not
escaped: the arguments end where their JSON value does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.model_text import decode, open_at_end, skip_space
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.base import Context, Skip, Source
from toolhone.sources.files import Record
from toolhone.sources.text_calls import ConversationBuilder, TextTurn
from toolhone.sources.tool_specs import BAD_TOOLS, letters_of, read_tools

END = "<|endoftext|>"
OPEN = "<functioncall>"
NOT_THIS_FORMAT = "not a Glaive row"
BEHIND_END = "text behind the end mark of a turn"
UNREADABLE = "a call that cannot be read"
CUT_OFF = "a call that is cut off"
BRACE = "a brace too many or too few behind the arguments"
MARKER = "a turn marker inside a turn, kept as text"
_MARK = re.compile(r"<\s*/?\s*function[_ ]?call\s*>", re.IGNORECASE)
_NO_JSON_WORD = re.compile(r"(?<![\w\"])(?:-?Infinity|NaN)\b")
_WIDE = re.compile(r"\n\n\n+[ \t]*(?:USER|ASSISTANT|FUNCTION RESPONSE):")
_MARKERS = {
    gap: re.compile(rf"(?:\A\s*|{gap}[ \t]*)(USER|ASSISTANT|FUNCTION RESPONSE):[ \t]*")
    for gap in (r"\n\n\n+", r"\n\n+")
}
_INNER = re.compile(r"(?:USER|ASSISTANT|FUNCTION RESPONSE):")
_BETWEEN = re.compile(r"[\s,]*")


def looks_like(record: Record) -> bool:
    return isinstance(record.get("chat"), str) and isinstance(record.get("system"), str)


def convert(record: Record, context: Context) -> Conversation:
    system, chat = record.get("system"), record.get("chat")
    if not isinstance(system, str) or not isinstance(chat, str):
        raise Skip(NOT_THIS_FORMAT, f"wanted texts in 'system' and 'chat'; keys {sorted(record)}")
    words, listed = _split_system(system)
    tools = read_tools(listed, context)
    talk = ConversationBuilder(words)
    for marker, text in _turns(chat):
        _add(talk, marker, text, tools)
    if len({tool.name for tool in tools}) < len(tools):
        tools = _one_definition_each(tools, talk.messages)
        talk.repairs.add("a function declared twice: the definition that the calls fit was kept")
    context.repairs |= talk.repairs
    if any(_INNER.search(message.content or "") for message in talk.messages):
        context.notes.append(MARKER)
    return Conversation(tuple(talk.messages), tools)


def _split_system(text: str) -> tuple[str, list[Json]]:
    """Return the words of the system text, and the functions that it lists."""
    text = text.strip().removeprefix("SYSTEM:").strip()
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=len(text))
    listed: list[Json] = []
    position = start
    while position < len(text):
        found = decode(text, position)
        if found.problem is not ParseProblem.NONE:
            raise Skip(BAD_TOOLS, f"not JSON: {text[position : position + 80]!r}")
        listed += found.value if isinstance(found.value, list) else [found.value]
        gap = _BETWEEN.match(text, found.end)
        position = found.end if gap is None else gap.end()
    return text[:start].strip().removesuffix("-").strip(), listed


def _turns(chat: str) -> Iterator[tuple[str, str]]:
    """Yield marker and text of each turn; one of the assistant ends at an end mark."""
    pattern = _MARKERS[r"\n\n\n+" if _WIDE.search(chat) else r"\n\n+"]
    parts = pattern.split(chat.rstrip())
    if len(parts) < 3 or parts[0].strip():
        raise Skip(NOT_THIS_FORMAT, f"a chat that begins with {chat[:60]!r}")
    waiting: list[str] = []
    for marker, text in zip(parts[1::2], parts[2::2], strict=True):
        if waiting and marker != "ASSISTANT":
            yield "ASSISTANT", "\n\nASSISTANT: ".join(waiting)
            waiting = []
        if marker != "ASSISTANT":
            yield marker, text
            continue
        waiting.append(text)
        if END in text:
            yield "ASSISTANT", "\n\nASSISTANT: ".join(waiting)
            waiting = []
    if waiting:
        yield "ASSISTANT", "\n\nASSISTANT: ".join(waiting)


def _add(talk: ConversationBuilder, marker: str, text: str, tools: Sequence[Tool]) -> None:
    if marker == "ASSISTANT":
        turn, end, behind = text.partition(END)
        if behind.replace(END, "").strip():
            raise Skip(BEHIND_END, f"{behind.strip()!r:.60}")
        talk.repairs |= set() if end else {"a turn without its end mark"}
        found = read_function_calls(turn)
        calls = tuple(_declared(call, tools, talk.repairs) for call in found.calls)
        talk.add_assistant(TextTurn(found.content, calls, found.repairs), tools)
        return
    talk.repairs |= (
        {"an end mark behind a turn of the user or of a function"} if END in text else set()
    )
    text = text.strip().removesuffix(END).strip()
    if END in text:
        raise Skip(BEHIND_END, f"{text!r:.60}")
    if marker == "USER":
        talk.add_text("user", text)
    else:
        talk.add_result(text)


def _declared(call: ToolCall, tools: Sequence[Tool], repairs: set[str]) -> ToolCall:
    """Return the call with its declared name where it spells exactly one in another way."""
    names = {tool.name for tool in tools}
    alike = {name for name in names if letters_of(name) == letters_of(call.name)}
    if call.name not in names and len(alike) == 1:
        repairs.add("a call name spelled otherwise than the declared one")
        return ToolCall(alike.pop(), call.arguments)
    return call


def _one_definition_each(tools: Sequence[Tool], messages: Sequence[Message]) -> tuple[Tool, ...]:
    """Keep the first definition of a name that all its calls fit, else the first."""
    calls = [call for message in messages for call in message.tool_calls]
    kept: dict[str, Tool] = {}
    for name in dict.fromkeys(tool.name for tool in tools):
        definitions = [tool for tool in tools if tool.name == name]
        made = [call for call in calls if call.name == name]
        kept[name] = next(
            (tool for tool in definitions if all(_fits(call, tool) for call in made)),
            definitions[0],
        )
    return tuple(kept.values())


def _fits(call: ToolCall, tool: Tool) -> bool:
    return (
        not tool.problems(call.arguments)
        and call.arguments.keys() <= (tool.parameters.get("properties") or {}).keys()
    )


def read_function_calls(text: str) -> TextTurn:
    """Read the words and calls of a turn of the assistant."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return TextTurn(text.strip() or None)
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    bodies = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    repairs: set[str] = (
        {"another spelling of the call mark"} if any(mark[0] != OPEN for mark in marks) else set()
    )
    calls = tuple(_read_call(body, repairs) for body in bodies if body or len(marks) == 1)
    content = text[: marks[0].start()].strip() or None
    return TextTurn(content, calls, frozenset(repairs))


def _read_call(text: str, repairs: set[str]) -> ToolCall:
    """Read the call at the beginning of a text."""
    reader = _GlaiveReader(text)
    try:
        call = reader.call()
    except Skip:
        if "\\'" not in text:
            raise
        reader = _GlaiveReader(text.replace("\\'", "'"))
        call = reader.call()
        reader.repairs.add("escaped apostrophes inside the arguments")
    repairs |= reader.repairs
    return call


class _GlaiveReader:
    """A position in the text of a call, and the repairs of the call."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0
        self.repairs: set[str] = set()

    def call(self) -> ToolCall:
        fields: dict[str, Json] = {}
        self._expect("{")
        while True:
            key = self._json()
            self._expect(":")
            if not isinstance(key, str) or key in fields:
                raise Skip(UNREADABLE, self._seen(0))
            fields[key] = self._quoted() if self._take("'") else self._unquoted(key)
            if not self._take(","):
                break
        if not self._take("}"):
            self.repairs.add(BRACE)
        while self._take("}"):
            self.repairs.add(BRACE)
        if self.position < len(self.text):
            self.repairs.add("words behind a call left out")
        return self._call_of(fields)

    def _quoted(self) -> Json:
        """Read a JSON value, or none, and the single quote behind it."""
        if self._take("'"):
            return {}
        value = self._json()
        while self._take("}"):
            self.repairs.add(BRACE)
        if not self._take("'"):
            raise Skip(
                CUT_OFF if self.position == len(self.text) else UNREADABLE,
                self._seen(self.position),
            )
        return value

    def _unquoted(self, key: str) -> Json:
        value = self._json()
        if isinstance(value, dict) and key in ("arguments", "parameters"):
            self.repairs.add("arguments as an object instead of a text")
        return value

    def _call_of(self, fields: Mapping[str, Json]) -> ToolCall:
        name = fields.get("name")
        keys = [key for key in ("arguments", "parameters") if key in fields]
        others = fields.keys() - {"name", *keys}
        if not isinstance(name, str) or not name or len(keys) > 1 or others:
            raise Skip(UNREADABLE, f"wanted 'name' and 'arguments', got {sorted(fields)}")
        arguments = fields[keys[0]] if keys else {}
        self.repairs |= (
            {"arguments under the key 'parameters'"} if keys == ["parameters"] else set()
        )
        if isinstance(arguments, str):
            found = decode(arguments or "{}", 0)
            whole = found.problem is ParseProblem.NONE and not arguments[found.end :].strip()
            arguments = found.value if whole else arguments
        if arguments is None:
            self.repairs.add("arguments of null instead of none")
            arguments = {}
        if not isinstance(arguments, dict):
            raise Skip("arguments that are no object", f"{name}: {arguments!r:.60}")
        return ToolCall(name, arguments)

    def _json(self) -> Json:
        found = decode(self.text, self.position)
        if found.problem is not ParseProblem.NONE:
            reason = UNREADABLE
            if not self.text[self.position :].strip() or open_at_end(self.text, self.position):
                reason = CUT_OFF
            if _NO_JSON_WORD.search(self.text, self.position):
                reason = "arguments with a value that JSON has no word for"
            raise Skip(reason, self._seen(self.position))
        self.position = found.end
        return found.value

    def _take(self, token: str) -> bool:
        start = skip_space(self.text, self.position)
        if not self.text.startswith(token, start):
            self.position = start
            return False
        self.position = start + len(token)
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise Skip(CUT_OFF if self.position >= len(self.text) else UNREADABLE, self._seen(0))

    def _seen(self, start: int) -> str:
        return f"{self.text[start : start + 80]!r}"


GLAIVE = Source("glaive", looks_like, convert)
