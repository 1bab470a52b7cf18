"""Seal-Tools: a query and the calls that answer it, against a catalogue of 4,076 tools.

    {"id", "query", "calling": [{"api", "parameters", "responses": [...]}]}    and  tool.jsonl

On offer are the called tools and distractors: tools of the same field first, then of the same
branch, then any. A row in which a call uses another call's result (`API_call_0`) gives a task
alone, which expects all calls in one reply, with the references as texts. Format: Wu et al. 2024,
arXiv:2405.08355.

    {"id": "s1", "conversations": [
        {"from": "human", "value": "api_list = [{...}]\\ntask_instruction = \\"...\\"\\nOutput:"},
        {"from": "gpt", "value": "[{'api': 'f', 'parameters': {...}, 'responses': [...]}]"}]}

In its training rows `api_list` is on offer, and the user says `task_instruction`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from toolhone.errors import DataError, FindingKind, nearest
from toolhone.schema import Conversation, Message, Task, Tool, ToolCall, texts_in
from toolhone.sources.catalogue import (
    CATALOGUE_OPTIONS,
    accept_references,
    choose_tools,
    count_distractors,
    find_beside,
    name_results,
)
from toolhone.sources.files import FileLine, Record, read_records
from toolhone.sources.source import Context, Converted, Skip, Source, expect_calls, has_keys
from toolhone.sources.text_calls import read_value
from toolhone.sources.tool_specs import TYPED, convert_type

DISTRACTORS = 4
SYSTEM = (
    "Answer with all calls that the request takes, in the order in which they are to be made. "
    "You will not see their results: where an argument is what an earlier call gives, write a "
    "reference in its place. The results of all calls are counted from 0, in the order of the "
    "calls and of what each tool says that it gives: API_call_0 stands for the first result, "
    "API_call_1 for the second."
)
NOT_SEAL = "not a Seal-Tools row"
NOT_SFT = "not a training row of Seal-Tools"
_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_REFERENCE = re.compile(r"\bAPI_call_\d+\b")
_LIST, _QUERY, _END = "\napi_list = ", "\ntask_instruction = ", "\nOutput:"


@dataclass
class Catalogue:
    """The tools by name, their fields ("Sports/Golf"), tools by field and branch, the results."""

    tools: dict[str, Tool] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    results: dict[str, list[str]] = field(default_factory=dict)

    def add(self, line: FileLine, record: Record) -> None:
        """Add a tool; `DataError` for what is none, or for a name that occurs already.

        The schema is right by construction and not checked.
        """
        name, described = record.get("api_name"), record.get("parameters")
        required = record.get("required") or []
        named = isinstance(name, str) and bool(name)
        if not named or not isinstance(described, dict) or not isinstance(required, list):
            wanted = "wanted 'api_name', 'parameters' and a list 'required'"
            raise DataError(f"{line}: not a tool of Seal-Tools; {wanted}")
        name = str(name)
        if missing := [parameter for parameter in required if parameter not in described]:
            where = f"{line}: tool {name!r} requires {missing[0]!r}"
            raise DataError(f"{where}, which is not among its parameters")
        properties: Record = {}
        for key, given in described.items():
            fields = given if isinstance(given, dict) else {"type": given}
            kind = fields.get("type")
            if kind not in _TYPES:
                found = f"parameter {key!r} has the unknown type {kind!r}"
                raise DataError(f"{line}: {found}; known: {', '.join(_TYPES)}")
            unit = f" (in {fields['unit']})" if fields.get("unit") else ""
            text = str(fields.get("description") or "") + unit
            properties[key] = {"type": _TYPES[kind], "description": text}
            if isinstance(fields.get("choices"), list):
                properties[key]["enum"] = fields["choices"]
            if "default" in fields:
                properties[key]["default"] = fields["default"]
        parameters = {"type": "object", "properties": properties, "required": required}
        if name in self.tools:
            raise DataError(f"{line}: the tool {name!r} occurs already; names must differ")
        self.tools[name] = Tool(name, str(record.get("api_description") or ""), parameters)
        own = self.fields[name] = str(record.get("field", ""))
        for group in dict.fromkeys((own, own.partition("/")[0])):
            self.groups.setdefault(group, []).append(name)
        self.results[name] = name_results(record.get("responses"))

    def choose(self, names: Sequence[str], count: int, seed: str) -> tuple[Tool, ...]:
        """Return these tools and others, of the same fields first, then of the same branches."""
        fields = [self.fields[name] for name in names]
        branches = [one.partition("/")[0] for one in fields]
        near = [
            list(dict.fromkeys(name for group in groups for name in self.groups[group]))
            for groups in (fields, branches)
        ]
        return choose_tools(names, self.tools, count, seed, near)

    def with_results(self, tool: Tool) -> Tool:
        """Return the tool that says what it gives and whose parameters take references."""
        gives = "; ".join(self.results[tool.name]) or "nothing"
        text = f"{tool.description}\nIt gives, in this order: {gives}".strip()
        return accept_references(Tool(tool.name, text, tool.parameters), _REFERENCE.pattern)


def prepare(_records: Sequence[Record], context: Context) -> tuple[Catalogue, int]:
    catalogue = Catalogue()
    for line, record in read_records(find_beside(context, ["tool.jsonl"])):
        catalogue.add(line, record)
    return catalogue, count_distractors(context, DISTRACTORS, len(catalogue.tools))


def convert(record: Record, context: Context) -> Converted | Task:
    catalogue, count = context.prepared
    query, calls = _read_calls(record, catalogue, context)
    seed = f"{context.options.get('seed') or 0}/{context.identity(record)}"
    tools = catalogue.choose(list(dict.fromkeys(call.name for call in calls)), count, seed)
    return _converted(query, calls, tools, catalogue, context, context.identity(record))


def convert_sft(record: Record, context: Context) -> Converted | Task:
    prompt, answer = _texts(record) or ("", "")
    if not prompt:
        raise Skip(NOT_SFT, f"keys {sorted(record)}")
    listed, end, _ = read_value(prompt, prompt.index(_LIST) + len(_LIST))
    before, found, rest = prompt[end:].partition(_QUERY)
    if not isinstance(listed, list) or before.strip() or not found:
        raise Skip(NOT_SFT, f"{prompt[end : end + 60]!r} behind the tools")
    catalogue, line = Catalogue(), context.line
    try:
        for entry in listed:
            catalogue.add(line, entry)
    except (DataError, AttributeError) as error:
        raise Skip(NOT_SFT, str(error).removeprefix(f"{line}: ")) from None
    calling, behind, _ = read_value(answer)
    if answer[behind:].strip():
        raise Skip(NOT_SFT, f"{answer[behind : behind + 60]!r} behind the calls")
    asked = (rest.rpartition(_END)[0] or rest).strip().removeprefix('"').removesuffix('"').strip()
    query, calls = _read_calls({"query": asked, "calling": calling}, catalogue, context)
    context.repairs.add("tools and format description taken out of the prompt")
    tools = tuple(catalogue.tools.values())
    return _converted(query, calls, tools, catalogue, context, context.identity(record))


def _texts(record: Record) -> tuple[str, str] | None:
    """Return the prompt and the answer of a training row; None for another kind of row."""
    turns = record.get("conversations")
    if not isinstance(turns, list) or len(turns) != 2:
        return None
    prompt, answer = (turn.get("value") if isinstance(turn, dict) else None for turn in turns)
    if not isinstance(prompt, str) or not isinstance(answer, str):
        return None
    return (prompt, answer) if _LIST in prompt and _QUERY in prompt else None


def _read_calls(
    record: Record, catalogue: Catalogue, context: Context
) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the query and its calls, which refer to results of earlier calls only."""
    query, calling = record.get("query"), record.get("calling")
    named = isinstance(query, str) and bool(query.strip())
    if not named or not isinstance(calling, list) or not calling:
        raise Skip(NOT_SEAL, f"keys {sorted(record)}")
    calls: list[ToolCall] = []
    results: set[str] = set()
    count = 0
    for call in calling:
        if not isinstance(call, dict) or not isinstance(call.get("parameters"), dict):
            raise Skip(NOT_SEAL, f"the call {call!r:.60}")
        name, given = str(call.get("api")), call["parameters"]
        if name not in catalogue.tools:
            reason = "a call of a tool that the catalogue lacks"
            raise Skip(reason, f"{name!r}{nearest(name, catalogue.tools)}")
        used = [label for text in texts_in(given) for label in _REFERENCE.findall(text)]
        if not results.issuperset(used):
            reason = "a reference that is not to a result of an earlier call"
            known = ", ".join(sorted(results)) or "no result"
            raise Skip(reason, f"{name}({given!r:.80}) after {known}")
        labels = [f"API_call_{count + index}" for index in range(len(catalogue.results[name]))]
        count += len(labels)
        results.update(labels if call.get("responses") == labels else ())
        tool = catalogue.tools[name]
        properties = tool.parameters["properties"]
        arguments: Record = {}
        for key, value in given.items():
            if key not in properties:
                detail = f"{name} has no parameter {key!r}{nearest(key, properties)}"
                raise Skip(FindingKind.BAD_ARGUMENTS, detail)
            arguments[key] = convert_type(value, properties[key]["type"])
        # A reference may be in place of a value.
        checker = accept_references(tool, _REFERENCE.pattern) if used else tool
        if problems := checker.problems(arguments):
            raise Skip(FindingKind.BAD_ARGUMENTS, f"{name}, {problems[0]}")
        context.repairs |= {TYPED} if arguments != given else set()
        calls.append(ToolCall(name, arguments))
    return str(query), tuple(calls)


def _converted(
    query: str,
    calls: tuple[ToolCall, ...],
    tools: tuple[Tool, ...],
    catalogue: Catalogue,
    context: Context,
    identity: str,
) -> Converted | Task:
    """Return a row with its task; where calls use each other's results, the task alone."""
    user, source = Message("user", query), context.name
    if any(_REFERENCE.search(text) for call in calls for text in texts_in(call.arguments)):
        offered, messages = (
            tuple(map(catalogue.with_results, tools)),
            (Message("system", SYSTEM), user),
        )
        return Task(identity, messages, offered, expect_calls(calls, "strict"), category="nested")
    category = "one_call" if len(calls) == 1 else "several_calls"
    task = Task(identity, (user,), tools, expect_calls(calls), category=category, source=source)
    turns = (user, Message("assistant", tool_calls=calls))
    return Converted(Conversation(turns, tools, identity, source), [task])


SEAL_TOOLS = Source(
    "seal_tools",
    has_keys("query", "calling"),
    convert,
    {"": {"query", "calling"}, "calling": {"api", "parameters", "responses"}},
    prepare,
    options=CATALOGUE_OPTIONS,
)
SEAL_TOOLS_SFT = Source(
    "seal_tools_sft",
    lambda record: _texts(record) is not None,
    convert_sft,
    {"": {"conversations"}, "conversations": {"from", "value"}},
)
