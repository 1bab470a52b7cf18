"""Messages as programs log them, of whatever API, become messages of ours.

    turns = LogTurns(unread)
    turns.add({"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]})
    turns.messages()

Items of the assistant in a row are one turn. Pictures and files are counted by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from toolhone.errors import DataError
from toolhone.schema import Json, Message, ToolCall
from toolhone.schema.json_input import (
    ARGUMENTS,
    IDS,
    check_flags,
    check_keys,
    first_value,
    identity_of,
    read_reasoning,
    read_weight,
)
from toolhone.sources.log_agents import plain_messages
from toolhone.sources.log_parts import (
    CALL_PART_KEYS,
    FAILED,
    KINDS,
    LOG_KEYS,
    NAMES,
    OUTPUTS,
    PART_KEYS,
    RESULT_KEYS,
    ROLES,
    TEXTS,
    decode,
    decode_record,
    holds_results,
    is_cut,
    kind_of,
    output_of,
    parts_of,
    role_of,
    text_of,
    thought_of,
    unwrap,
    without_media,
)

_PLAIN = frozenset({"role", "content"})


@dataclass
class _LogTurn:
    """A turn of the assistant that may go on, and results of its calls."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    weight: float = 1


class LogTurns:
    """Messages of one log record; parts and items of the assistant in a row become one turn.

    unread: gets what is passed over. joined: whether turns of two messages became one. failed: the
    messages that the log marks as failed calls. cut: whether a turn ended before its end; it has
    weight 0. tools: what messages say of the tools on offer.
    """

    def __init__(self, unread: set[str]) -> None:
        self.unread, self.joined, self.cut = unread, False, False
        self.failed, self.tools = list[Message](), list[Json]()
        self._done, self._turn = list[Message](), _LogTurn()

    def messages(self) -> list[Message]:
        self._close()
        return self._done

    def add_all(self, messages: Json, role: str = "user") -> None:
        """Add a list of messages or items, also one inside another, or one text."""
        if isinstance(messages, list):
            for message in messages:
                self.add_all(decode_record(message), role)
        elif isinstance(messages, str):
            self.say(role, messages)
        else:
            self.add(messages, role)

    def say(self, role: str, text: str) -> None:
        """Add a message that is a text."""
        if role == "assistant":
            self._boundary(goes_on=not self._turn.calls)
            self._turn.texts.append(text)
        elif text:
            self._close()
            self._done.append(Message(role, text))

    def cut_off(self) -> None:
        """Mark the turn of the assistant that was added last as one that ended before its end."""
        self._close()
        for place in range(len(self._done) - 1, -1, -1):
            if self._done[place].role == "assistant":
                self._done[place] = replace(self._done[place], weight=0)
                self.cut = True
                return

    def add(self, message: Json, default: str = "user") -> None:
        """Add one message or item; `default` is the role of one that names none."""
        if not isinstance(message, dict):
            raise DataError(f"a message must be an object, got {message!r:.60}")
        if message.keys() == _PLAIN and isinstance(text := message["content"], str):
            plain = ROLES.get(message["role"]) if isinstance(message["role"], str) else None
            if plain in ("system", "user"):
                self.say(plain, text)
                return
        for one in plain_messages(message):
            self._add(unwrap(one, self.unread), default)

    def _add(self, message: Mapping[str, Json], default: str) -> None:
        role = role_of(message, self._called)
        kind, part = kind_of(message)
        if role is None and kind:
            self._part("user" if default == "tool" else default, kind, part)
            return
        if role is None and message.get("type") not in (None, "message"):
            self.unread.add(f"{message.get('type')!r} items of a log")
            return
        role = role or default
        check_keys(message, LOG_KEYS, "a message", self.unread)
        if role != "assistant" and read_weight(message):
            check_flags(message, role, self.unread)
        if message.get("tools"):
            self.tools.append(message["tools"])
        declared = decode(message.get("content")) if role == "tool" else None
        if isinstance(declared, dict) and isinstance(declared.get("function"), dict):
            self.tools.append(declared)
        elif role == "tool" and not message.get("parts") and not holds_results(message):
            self._result(message, first_value(message, ("content", *OUTPUTS), "a result"))
        elif role == "assistant":
            self._assistant(message)
            if is_cut(message):
                self.cut_off()
        else:
            self._other(role, message)

    def _called(self) -> list[str]:
        """Return the names of the tools that were called so far."""
        calls = [call for one in self._done for call in one.tool_calls]
        return [call.name for call in (*calls, *self._turn.calls)]

    def _assistant(self, message: Mapping[str, Json]) -> None:
        self._boundary()
        weight, thought = read_weight(message), read_reasoning(message, self.unread)
        if weight != self._turn.weight and (self._turn.texts or self._turn.calls):
            self._close()
        self._turn.weight = weight
        if thought:
            self._turn.thoughts.append(thought)
        before, turn, texts = len(self._turn.calls), self._turn, len(self._turn.texts)
        for part in parts_of(message, self.unread):
            kind, body = kind_of(part)
            found = decode(part) if isinstance(part, str) and part.startswith('[{"') else None
            if isinstance(found, list) and all(
                isinstance(one, dict)
                and isinstance(own := one.get("function"), dict)
                and isinstance(own.get("name"), str)
                and "arguments" in own
                for one in found
            ):  # a text that was a list of calls
                message = {**message, "tool_calls": found}
                continue
            if kind == "text" and len(turn.texts) > texts and not turn.results:
                turn.texts[-1] += self._text(body)
                continue
            self._part("assistant", kind, body)
            if self._turn is not turn:
                before, turn, texts = 0, self._turn, 0
        listed = decode(message.get("tool_calls")) or []
        if old := decode(message.get("function_call")):
            listed = listed or [old]
        if not isinstance(listed, list):
            raise DataError(f"'tool_calls' must be a list, got {listed!r:.60}")
        known = {call.id for call in self._turn.calls[before:]} - {None}
        for call in listed:
            body = call.get("function") if isinstance(call, dict) else None
            outer = call if isinstance(body, dict) and isinstance(call, dict) else {}
            given = body if outer else call
            identity = identity_of({**(given if isinstance(given, dict) else {}), **outer})
            if identity not in known:
                self._call(given, outer)
        used = decode(message.get("toolInvocations")) or []
        if not isinstance(used, list):
            raise DataError(f"'toolInvocations' must be a list, got {used!r:.60}")
        for one in used:
            if identity_of(one) not in {call.id for call in self._turn.calls[before:]}:
                self._call(one, {})

    def _other(self, role: str, message: Mapping[str, Json]) -> None:
        texts = list[str]()
        for part in parts_of(message, self.unread):
            kind, body = kind_of(part)
            if kind == "text":
                texts.append(self._text(body))
            else:
                self._part(role, kind, body)
        listed = message.get("tool_results")
        for one in listed if isinstance(listed, list) else []:
            if not isinstance(one, dict) or not isinstance(call := one.get("call"), dict):
                raise DataError(f"a result must be an object with its 'call', got {one!r:.60}")
            check_keys(one, {"call", *OUTPUTS}, "a result", self.unread)
            check_keys(call, {*ARGUMENTS, *NAMES, *IDS}, "the call of a result", self.unread)
            given = first_value(call, ARGUMENTS, "the call of a result") or {}
            if not isinstance(given, dict):
                raise DataError(
                    f"the arguments of a result's call must be an object, got {given!r:.60}"
                )
            made = [*self._turn.calls, *(each for m in self._done for each in m.tool_calls)]
            if not any(given == each.arguments for each in made):
                self.unread |= {f"{key!r} of the arguments of a result's call" for key in given}
            self._result({k: call[k] for k in (*NAMES, *IDS) if k in call}, output_of(one))
        if any(texts) and role == "tool":
            told = {k: v for k, v in message.items() if k not in ("content", "parts")}
            self._result(told, "".join(texts))
        elif any(texts):
            self._close()
            one = Message(role, "".join(texts))
            self._done += [] if role == "system" and one in self._done else [one]

    def _part(self, role: str, kind: str, part: Json) -> None:
        if kind == "step":
            self._boundary(goes_on=True)
            check_keys(part, {*PART_KEYS, *KINDS}, "a part of a message", self.unread)
        elif kind == "result":
            self._result(part, output_of(part))
        elif kind in ("call", "thought"):
            if kind == "call":
                self._call(part, {})
                return
            self._boundary(goes_on=True)
            if thought := thought_of(part, self.unread):
                self._turn.thoughts.append(thought)
        elif kind == "text":
            self.say(role, self._text(part))
        else:
            name = part.get("type") if isinstance(part, dict) else None
            keys = sorted(map(str, part)) if isinstance(part, dict) else repr(part)[:40]
            self.unread.add(f"{name or keys!r} parts of a message")

    def _text(self, part: Json) -> str:
        if isinstance(part, str):
            return part
        text = first_value(part, TEXTS, "a text part")
        if not isinstance(text, str):
            raise DataError(f"a text part has no text, got {part!r:.60}")
        check_keys(part, {*TEXTS, *PART_KEYS, "thought"}, "a text part", self.unread)
        return text

    def _call(self, part: Json, outer: Mapping[str, Json]) -> None:
        """Add a call; one that stands with its result keeps it until the turn ends."""
        if not isinstance(part, dict):
            raise DataError(f"a call must be an object, got {part!r:.60}")
        kind = str(part.get("type") or "")
        name = next((part[key] for key in NAMES if part.get(key)), None)
        if kind.startswith("tool-") and kind not in KINDS:
            name = name or kind.removeprefix("tool-")
        if kind == "local_shell_call":
            name, part = name or "local_shell", {**part, "arguments": part.get("action")}
        given = first_value(part, ARGUMENTS, f"the call of {name!r}")
        if kind == "custom_tool_call":
            given = {"input": given}
        check_keys(part, CALL_PART_KEYS, "a call", self.unread)
        check_keys(outer, {"id", "type", "function", "index"}, "a call", self.unread)
        call = ToolCall.from_dict({"name": name, "arguments": given})
        call = ToolCall(call.name, call.arguments, identity_of({**part, **outer}))
        self._turn.calls.append(call)
        output = first_value(part, ("output", "result", "errorText"), f"the call of {name!r}")
        if part.get("state") == "output-denied":
            output = "denied"
        if output is not None:
            output = without_media(output, self.unread)
            result = Message(
                "tool", text_of(output, self.unread), tool_call_id=call.id, name=call.name
            )
            self._turn.results.append(result)
            self._mark(part, result)

    def _result(self, part: Json, output: Json) -> None:
        if not isinstance(part, dict):
            raise DataError(f"a result must be an object, got {part!r:.60}")
        check_keys(part, RESULT_KEYS - {"parts"}, "a result", self.unread)
        name = next((str(part[key]) for key in NAMES if part.get(key)), None)
        if name and name.startswith("functions.") and name not in self._called():
            name = name.removeprefix("functions.")
        self._close()
        text = text_of(without_media(output, self.unread), self.unread)
        result = Message("tool", text, tool_call_id=identity_of(part), name=name)
        self._done.append(result)
        self._mark(part, result)

    def _mark(self, part: Mapping[str, Json], result: Message) -> None:
        said = {str(part.get("status")), str(part.get("state"))}
        output = output_of(part)
        said |= {str(output.get("type"))} if isinstance(output, dict) else set()
        if part.get("is_error") or part.get("isError") or part.get("error") or said & FAILED:
            self.failed.append(result)

    def _boundary(self, goes_on: bool = False) -> None:
        """End the turn where its calls have results; else what follows is joined to it."""
        if self._turn.results:
            self._close()
        elif not goes_on and (self._turn.calls or self._turn.texts):
            self.joined = True

    def _close(self) -> None:
        turn = self._turn
        if turn.weight == 1 and not (turn.texts or turn.thoughts or turn.calls or turn.results):
            return
        self._turn = _LogTurn()
        content, reasoning = ("\n\n".join(filter(None, t)) for t in (turn.texts, turn.thoughts))
        if content or reasoning or turn.calls:
            calls = tuple(turn.calls)
            said = (content or None, reasoning or None, calls)
            self._done.append(Message("assistant", *said, weight=turn.weight))
        self._done += turn.results
