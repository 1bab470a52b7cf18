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
from collections.abc import Mapping, Sequence

from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.dialects.syntax.model_text import decode, open_at_end
from toolhone.schema import Conversation, Json, Tool, ToolCall
from toolhone.sources.files import Record
from toolhone.sources.source import Context, Skip, Source
from toolhone.sources.text_calls import ConversationBuilder, TextTurn
from toolhone.sources.tool_specs import BAD_TOOLS, letters_of, read_tools

END = "<|endoftext|>"
OPEN = "<functioncall>"
NOT_THIS_FORMAT = "not a Glaive row"
UNREADABLE = "a call that cannot be read"
CUT_OFF = "a call that is cut off"
BRACE = "a brace too many or too few behind the arguments"
_MARK = re.compile(r"(<\s*/?\s*function[_ ]?call\s*>)", re.IGNORECASE)
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
        if marker == "ASSISTANT":
            turn, end, behind = text.partition(END)
            behind = behind.replace(END, "").strip()
            repair = "" if end else "a turn without its end mark"
        else:
            turn = text.strip().removesuffix(END).strip()
            behind = turn if END in turn else ""
            repair = "an end mark behind a turn of the user or of a function" if END in text else ""
        talk.repairs |= {repair} if repair else set()
        if behind:
            raise Skip("text behind the end mark of a turn", f"{behind!r:.60}")
        if marker == "ASSISTANT":
            talk.add_assistant(_read_turn(turn, tools), tools)
        elif marker == "USER":
            talk.add_text("user", turn)
        else:
            talk.add_result(turn)
    if len({tool.name for tool in tools}) < len(tools):
        calls = [call for message in talk.messages for call in message.tool_calls]
        first, fitting = dict[str, Tool](), dict[str, Tool]()
        for tool in tools:
            first.setdefault(tool.name, tool)
            made = [call.arguments for call in calls if call.name == tool.name]
            known = tool.properties.keys()
            if all(not tool.problems(one) and one.keys() <= known for one in made):
                fitting.setdefault(tool.name, tool)
        tools = tuple((first | fitting).values())
        talk.repairs.add("a function declared twice: the definition that the calls fit was kept")
    talk.tell(context)
    if any(_INNER.search(message.content or "") for message in talk.messages):
        context.notes.append("a turn marker inside a turn, kept as text")
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


def _turns(chat: str) -> list[tuple[str, str]]:
    """Return marker and text of each turn; one of the assistant ends at an end mark."""
    pattern = _MARKERS[r"\n\n\n+" if _WIDE.search(chat) else r"\n\n+"]
    parts = pattern.split(chat.rstrip())
    if len(parts) < 3 or parts[0].strip():
        raise Skip(NOT_THIS_FORMAT, f"a chat that begins with {chat[:60]!r}")
    turns = [("", "")]
    for marker, text in zip(parts[1::2], parts[2::2], strict=True):
        if marker == turns[-1][0] == "ASSISTANT" and END not in turns[-1][1]:
            turns[-1] = (marker, f"{turns[-1][1]}\n\nASSISTANT: {text}")
        else:
            turns.append((marker, text))
    return turns[1:]


def _read_turn(text: str, tools: Sequence[Tool]) -> TextTurn:
    """Read the words and calls of a turn of the assistant.

    A call has its declared name where it spells exactly one in another way.
    """
    content, *rest = _MARK.split(text)
    marks, bodies = rest[0::2], [body.strip() for body in rest[1::2]]
    repairs = {"another spelling of the call mark"} if set(marks) - {OPEN} else set[str]()
    calls, names = [], {tool.name for tool in tools}
    for body in bodies:
        if body or len(marks) == 1:
            call = _read_call(body, repairs)
            alike = [name for name in names if letters_of(name) == letters_of(call.name)]
            if call.name not in names and len(alike) == 1:
                repairs.add("a call name spelled otherwise than the declared one")
                call = ToolCall(alike[0], call.arguments)
            calls.append(call)
    return TextTurn(content.strip() or None, tuple(calls), frozenset(repairs))


def _read_call(text: str, repairs: set[str]) -> ToolCall:
    """Read the call at the beginning of a text."""
    reader = _CallReader(text)
    try:
        call = reader.call()
    except (Skip, LiteralError) as error:
        if "\\'" in text:
            repairs.add("escaped apostrophes inside the arguments")
            return _read_call(text.replace("\\'", "'"), repairs)
        if isinstance(error, Skip):
            raise
        reason = CUT_OFF if error.problem is ParseProblem.UNCLOSED else UNREADABLE
        raise Skip(reason, f"{text[:80]!r}") from None
    repairs |= reader.repairs
    return call


class _CallReader(LiteralReader):
    """A position in the text of a call, and the repairs of the call."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repairs: set[str] = set()

    def call(self) -> ToolCall:
        """Read an object whose arguments may be between single quotes; they may be empty there."""
        fields: dict[str, Json] = {}
        self.expect("{")
        while not fields or self.take(","):
            key = self._json()
            self.expect(":")
            if not isinstance(key, str) or key in fields:
                raise LiteralError
            quoted = self.take("'")
            if quoted and self.take("'"):
                fields[key] = {}
                continue
            fields[key] = self._json()
            if quoted:
                while self.take("}"):
                    self.repairs.add(BRACE)
                self.expect("'")
            elif isinstance(fields[key], dict) and key in ("arguments", "parameters"):
                self.repairs.add("arguments as an object instead of a text")
        braces = 0
        while self.take("}"):
            braces += 1
        self.repairs |= {BRACE} if braces != 1 else set()
        if not self.at_end():
            self.repairs.add("words behind a call left out")
        return self._call_of(fields)

    def _call_of(self, fields: Mapping[str, Json]) -> ToolCall:
        name = fields.get("name")
        keys = [key for key in ("arguments", "parameters") if key in fields]
        others = fields.keys() - {"name", *keys}
        if not isinstance(name, str) or not name or len(keys) > 1 or others:
            raise Skip(UNREADABLE, f"wanted 'name' and 'arguments', got {sorted(fields)}")
        arguments = fields[keys[0]] if keys else {}
        if keys == ["parameters"]:
            self.repairs.add("arguments under the key 'parameters'")
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
            if _NO_JSON_WORD.search(self.text, self.position):
                reason = "arguments with a value that JSON has no word for"
                raise Skip(reason, f"{self.text[self.position :]!r:.80}")
            raise LiteralError(unclosed=self.at_end() or open_at_end(self.text, self.position))
        self.position = found.end
        return found.value


GLAIVE = Source("glaive", looks_like, convert, {"": {"system", "chat"}})
