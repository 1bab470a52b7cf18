"""BFCL v4, the Berkeley Function-Calling Leaderboard: questions, and beside them what is right.

    {"id": "parallel_0", "question": [[{"role", "content"}]], "function": [{"name", "parameters"}]}
    possible_answer/<same name>:  {"id": "parallel_0", "ground_truth": [{"play": {"at": [1]}}]}

A row gives a task; the beginning of its id says what its answer means (`convert`). Official scores
come from the package `bfcl-eval`. Format: Patil et al., ICML 2025.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Final

from toolhone.schema import Expect, ExpectedCall, Json, Task, Tool, ToolCall
from toolhone.sources.files import Record, read_records
from toolhone.sources.prompt_rows import read_python_calls
from toolhone.sources.scenarios import Answers, find_packed, note_misfit, read_messages, read_world
from toolhone.sources.source import Context, Skip, Source, expect_calls
from toolhone.sources.tool_specs import read_tools

MAX_VARIANTS = 1000
"""Values that one parameter may be multiplied out to."""
BAD_ANSWER = "an accepted answer that cannot be read"
BAD_QUESTION = "a question that is no list of messages"
EMPTY_MEMORY = "a memory that conversations in other files fill"
LONG_CONTEXT = "a long context that BFCL's code makes up and the file does not hold"
_MAY_BE_LEFT_OUT: Final = ""
_LEAVE_OUT: Final = object()
_CATEGORY = re.compile(r"([a-z_]+?)_\d")
_MEMORIES = ("kv", "rec_sum", "vector")
_DOCUMENTS = {  # the file in `multi_turn_func_doc` with the tools of each class
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MemoryAPI_kv": "memory_kv",
    "MemoryAPI_rec_sum": "memory_rec_sum",
    "MemoryAPI_vector": "memory_vector",
    "MessageAPI": "message_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "TwitterAPI": "posting_api",
    "VehicleControlAPI": "vehicle_control",
    "WebSearchAPI": "web_search",
}


def looks_like(record: Record) -> bool:
    question = record.get("question")
    are_turns = isinstance(question, list) and all(isinstance(turn, list) for turn in question)
    has_tools = "function" in record or "involved_classes" in record
    return bool(question) and are_turns and isinstance(record.get("id"), str) and has_tools


def convert(record: Record, context: Context) -> list[Task]:
    """Return the task of a row by its category.

    simple, multiple, parallel: the calls in any order, with all values that are accepted.
    irrelevance: no call. relevance: one call of any tool. multi_turn: the calls of each turn in
    order. web_search, memory: a final text with the answer; a question about a memory is a task for
    each kind of memory, and its world names the memory.
    """
    found = _CATEGORY.match(str(record.get("id")))
    if not looks_like(record) or found is None:
        detail = f"id {record.get('id')!r:.40}, keys {sorted(record)}"
        raise Skip("not a BFCL row", detail)
    category, turns = found[1], record["question"]
    if category == "memory_prereq":
        raise Skip("a conversation that fills a memory, in which nothing is right or wrong")
    if category.startswith("multi_turn"):
        return [_turns_task(record, category, context)]
    if len(turns) != 1 or not turns[0]:
        raise Skip(BAD_QUESTION, f"wanted one turn, got {len(turns)}")
    task = Task(record["id"], read_messages(turns[0], BAD_QUESTION, context), category=category)
    if category not in ("memory", "web_search"):
        tools = read_tools(record.get("function"), context, loose=True)
        if category == "live_relevance":
            expect = Expect(any_call=True)
        elif category in ("irrelevance", "live_irrelevance"):
            expect = Expect(no_call=True)
        else:
            truth = context.prepared.find(task.id)
            if not isinstance(truth, list) or not truth:
                raise Skip(BAD_ANSWER, f"wanted a list of calls, got {truth!r:.60}")
            expect = Expect(tuple(expected_call(answer, tools) for answer in truth))
        note_misfit(expect.calls or (), tools, context)
        return [replace(task, tools=tools, expect=expect)]
    truth = context.prepared.find(task.id)
    if not isinstance(truth, list) or not truth:
        raise Skip(BAD_ANSWER, f"wanted a list of texts, got {truth!r:.60}")
    first, *others = dict.fromkeys(map(str, truth))
    wordings = tuple(Expect(answer=other) for other in others)
    task = replace(task, expect=Expect(answer=first, alternatives=wordings))
    if category == "web_search":
        return [replace(task, tools=_class_tools(record.get("involved_classes"), context))]
    context.notes.append(EMPTY_MEMORY)
    world = {"scenario": record.get("scenario")}
    return [
        replace(
            task,
            id=task.id.replace("memory", f"memory_{kind}", 1),
            tools=_class_tools([f"MemoryAPI_{kind}"], context),
            category=f"memory_{kind}",
            world=world,
        )
        for kind in _MEMORIES
    ]


def _class_tools(classes: Json, context: Context) -> tuple[Tool, ...]:
    """Return the tools of these classes."""
    tools: list[Tool] = []
    for name in classes if isinstance(classes, list) else []:
        if not isinstance(name, str) or name not in _DOCUMENTS:
            known = ", ".join(_DOCUMENTS)
            raise Skip(BAD_ANSWER, f"the class {name!r:.40} has no document; known: {known}")
        if name not in context.tools:
            folder = context.path.parent / "multi_turn_func_doc"
            missing = "the tools of these questions are not beside them"
            file = find_packed(folder / f"{_DOCUMENTS[name]}.json", missing)
            context.tools[name] = [record for _, record in read_records(file)]
        tools += read_tools(context.tools[name], context, loose=True)
    return tuple(tools)


def _turns_task(record: Record, category: str, context: Context) -> Task:
    """Return the task of a row with several turns, without functions that are excluded or missed.

    A row that adds a missed function is cut there: the turn that cannot be answered without it is
    the last one, and expects no call.
    """
    tools = _class_tools(record.get("involved_classes"), context)
    added = record.get("missed_function") or {}
    if not isinstance(added, dict) or not all(re.fullmatch(r"[1-9]\d?", turn) for turn in added):
        detail = f"wanted functions by the number of the turn, got {added!r:.60}"
        raise Skip(BAD_QUESTION, detail)
    missed = {int(turn): _names(names) for turn, names in added.items()}
    absent = set(_names(record.get("excluded_function"))).union(*missed.values())
    tools = tuple(tool for tool in tools if tool.name not in absent)
    turns = [read_messages(turn, BAD_QUESTION, context) for turn in record["question"]]
    truth = context.prepared.find(record["id"])
    if not isinstance(truth, list) or len(truth) != len(turns):
        detail = f"wanted a list of calls for each of {len(turns)} turns, got {truth!r:.60}"
        raise Skip(BAD_ANSWER, detail)
    count = min(missed, default=len(turns))
    if not all(turns[:count]):
        detail = "a turn in which nobody says anything, and no function is added"
        raise Skip(BAD_QUESTION, detail)
    if count < len(turns):
        context.repairs.add("the turns from where a tool is added left out")
    if category == "multi_turn_long_context":
        context.notes.append(LONG_CONTEXT)
    expects: list[Expect] = []
    for answer in truth[:count]:
        calls: list[ToolCall] = []
        for text in answer if isinstance(answer, list) else []:
            found = read_python_calls(text, tools) if isinstance(text, str) else None
            if found is None or len(found) != 1:
                raise Skip(BAD_ANSWER, f"wanted one call as Python writes it, got {text!r:.80}")
            calls += found
        expects.append(expect_calls(calls, "strict"))
    note_misfit([call for expect in expects for call in expect.calls or ()], tools, context)
    return Task(
        record["id"],
        tools=tools,
        turns=tuple(turns[:count]),
        expects=tuple(expects),
        world=read_world(record, "initial_config"),
        category=category,
    )


def _names(value: Json) -> list[str]:
    listed = value is None or isinstance(value, list)
    if not listed or not all(isinstance(name, str) for name in value or ()):
        raise Skip(BAD_QUESTION, f"wanted a list of functions, got {value!r:.60}")
    return value or []


def expected_call(answer: Json, tools: Sequence[Tool]) -> ExpectedCall:
    """Return the one call that `{name: {parameter: [values]}}` describes.

    `""` says that a parameter may be left out. Inside an accepted object every key has a list of
    values again: these are multiplied out.
    """
    described = answer if isinstance(answer, dict) else {}
    if len(described) != 1 or not all(isinstance(inner, dict) for inner in described.values()):
        raise Skip(BAD_ANSWER, f"wanted one call with its parameters, got {answer!r:.80}")
    ((name, parameters),) = described.items()
    schema = next((tool.parameters for tool in tools if tool.name == name), {})
    properties, required = schema.get("properties") or {}, schema.get("required") or ()
    arguments: dict[str, Json] = {}
    accept: dict[str, Sequence[Json]] = {}
    optional = []
    for key, listed in parameters.items():
        where, wanted = f"{name}: {key}", key in required
        values, free = _choices(where, listed, properties.get(key), wanted)
        if free and key not in properties:
            continue
        chosen = _best(values, free, properties.get(key))
        others = [value for value in values if value is not chosen]
        accept |= {key: others} if others else {}
        if chosen is not _LEAVE_OUT:
            arguments[key] = chosen
            optional += [key] if free else []
    return ExpectedCall(name, arguments, accept, tuple(optional))


def _choices(where: str, listed: Json, schema: Json, required: bool) -> tuple[list[Json], bool]:
    """Return the accepted values of a parameter, and whether it may be left out."""
    if not isinstance(listed, list):
        raise Skip(BAD_ANSWER, f"{where}: wanted a list of accepted values, got {listed!r:.60}")
    if not listed:
        raise Skip("a parameter for which no value is accepted", where)
    values: list[Json] = []
    for choice in listed:
        values += [] if choice == _MAY_BE_LEFT_OUT else _variants(where, choice)
    marked = _MAY_BE_LEFT_OUT in listed
    is_text = isinstance(schema, Mapping) and schema.get("type") == "string"
    if marked and (is_text or (required and not values)):
        values.append("")
    return values, marked and not required


def _variants(where: str, choice: Json) -> list[Json]:
    """Return the values that an accepted value, an object or a list of objects stands for."""
    entries = choice if isinstance(choice, list) and choice else [choice]
    for entry in entries:
        lists = entry.values() if isinstance(entry, dict) else (None,)
        if not all(isinstance(inner, list) and inner for inner in lists):
            return [choice]
    objects = []
    for entry in entries:
        products = islice(product(*entry.values()), MAX_VARIANTS + 1)
        pairs = (zip(entry, values, strict=True) for values in products)
        objects.append([{k: v for k, v in made if v != _MAY_BE_LEFT_OUT} for made in pairs])
    found = list(islice(product(*objects), MAX_VARIANTS + 1))
    if len(found) > MAX_VARIANTS:
        raise Skip(BAD_ANSWER, f"{where}: more than {MAX_VARIANTS} combinations are accepted")
    return [list(values) if isinstance(choice, list) else values[0] for values in found]


def _best(values: Sequence[Json], free: bool, schema: Json) -> Json:
    """Return the first value that the schema allows; `_LEAVE_OUT` where it is better left out.

    Null and the empty text are taken only for a parameter that must be given and has no other
    value.
    """
    real = [value for value in values if value is not None and value != ""]
    if not real:
        return _LEAVE_OUT if free else values[0]
    if not isinstance(schema, Mapping) or (len(real) == 1 and not free):
        return real[0]
    judge = Tool("", "", {"type": "object", "properties": {"value": dict(schema)}})
    fitting = (value for value in real if not judge.problems({"value": value}))
    return next(fitting, _LEAVE_OUT if free else real[0])


KEYS = {
    *("question", "function", "involved_classes", "initial_config", "scenario"),
    *("excluded_function", "missed_function", "path"),
}
BFCL = Source("bfcl", looks_like, convert, {"": KEYS}, Answers)
