"""How fast rows are imported, and with how much memory; there is no peer that does the same.

    python benchmarks/import_speed.py [--rows 10000] [--times 8] [--only own request_log]

Rows of our own form (four messages) and of logs (five messages with a call and its result), each
row with words and arguments of its own. Each import runs in a process of its own; seconds are those
of its processor time between the call of `import_file` and its return, in which all files are
written. Memory is the most that the process held, with N rows and with N times `--times`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from toolhone.data.importing import import_file
from toolhone.sources.files import write_jsonl

Row = dict[str, Any]
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Name of the city."},
        "days": {"type": "integer", "minimum": 1},
    },
    "required": ["city"],
}
ABOUT = {"name": "forecast", "description": "Weather of the next days."}
TOOLS = [{"type": "function", "function": {**ABOUT, "parameters": SCHEMA}}]
SYSTEM = "You are a helpful assistant of a travel agency. Answer in one sentence."


def parts(number: int) -> tuple[str, Row, str, str]:
    """The question, arguments, result and answer of a row."""
    city = f"City {number}"
    result = json.dumps({"city": city, "rain": number % 2 == 0, "degrees": number % 40})
    question = f"Will it rain in {city} during the next {number % 6 + 1} days, and how warm is it?"
    answer = f"In {city} it is {number % 40} degrees warm in the next days."
    return question, {"city": city, "days": number % 6 + 1}, result, answer


def openai_messages(number: int, encoded: bool = True) -> list[Row]:
    question, arguments, result, answer = parts(number)
    given = json.dumps(arguments) if encoded else arguments
    call = {"id": f"call_{number}", "function": {"name": "forecast", "arguments": given}}
    call |= {"type": "function"} if encoded else {}
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": result, "tool_call_id": f"call_{number}"},
        {"role": "assistant", "content": answer},
    ]


def own(number: int) -> Row:
    messages = openai_messages(number, encoded=False)[1:]
    name, given = "forecast", parts(number)[1]
    messages[1]["tool_calls"] = [{"name": name, "arguments": given, "id": f"call_{number}"}]
    return {"id": f"r{number}", "messages": messages, "tools": TOOLS, "source": "x"}


def request_log(number: int) -> Row:
    *asked, reply = openai_messages(number)
    usage = {"prompt_tokens": 120, "completion_tokens": 20, "total_tokens": 140}
    response = {"id": f"chat-{number}", "choices": [{"index": 0, "message": reply}], "usage": usage}
    request = {"model": "m", "messages": asked, "tools": TOOLS, "temperature": 0.7}
    return {"id": f"r{number}", "request": request, "response": response}


def anthropic(number: int) -> Row:
    question, arguments, result, answer = parts(number)
    used = {"type": "tool_use", "id": f"t{number}", "name": "forecast", "input": arguments}
    back = {"type": "tool_result", "tool_use_id": f"t{number}", "content": result}
    turns = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, used]},
        {"role": "user", "content": [back]},
        {"role": "assistant", "content": answer},
    ]
    tools = [{**ABOUT, "input_schema": SCHEMA}]
    return {"id": f"r{number}", "system": SYSTEM, "messages": turns, "tools": tools}


def gemini(number: int) -> Row:
    question, arguments, result, answer = parts(number)
    called = {"functionCall": {"name": "forecast", "args": arguments}}
    back = {"functionResponse": {"name": "forecast", "response": {"result": result}}}
    contents = [
        {"role": "user", "parts": [{"text": question}]},
        {"role": "model", "parts": [called]},
        {"role": "user", "parts": [back]},
        {"role": "model", "parts": [{"text": answer}]},
    ]
    tools = [{"functionDeclarations": [{**ABOUT, "parameters": SCHEMA}]}]
    system = {"parts": [{"text": SYSTEM}]}
    return {"id": f"r{number}", "systemInstruction": system, "contents": contents, "tools": tools}


def otel(number: int) -> Row:
    *asked, reply = openai_messages(number)
    values = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.input.messages": json.dumps(asked),
        "gen_ai.output.messages": json.dumps([reply]),
        "gen_ai.tool.definitions": json.dumps(TOOLS),
    }
    attributes = [{"key": key, "value": {"stringValue": text}} for key, text in values.items()]
    return {"spanId": f"s{number}", "traceId": f"t{number}", "attributes": attributes}


def langfuse(number: int) -> Row:
    *asked, reply = openai_messages(number)
    given = {"messages": asked, "tools": TOOLS}
    about = {"id": f"o{number}", "traceId": f"t{number}", "type": "GENERATION", "model": "m"}
    return {**about, "input": given, "output": reply}


def responses(number: int) -> Row:
    question, arguments, result, answer = parts(number)
    call = {"type": "function_call", "call_id": f"c{number}", "name": "forecast"}
    items = [
        {"type": "message", "role": "user", "content": question},
        {**call, "arguments": json.dumps(arguments)},
        {"type": "function_call_output", "call_id": f"c{number}", "output": result},
    ]
    said = [{"type": "message", "role": "assistant", "content": [{"type": "output_text"}]}]
    said[0]["content"][0]["text"] = answer  # type: ignore[index]
    tools = [{"type": "function", **ABOUT, "parameters": SCHEMA}]
    about = {"id": f"r{number}", "object": "response", "instructions": SYSTEM, "tools": tools}
    return {**about, "input": items, "output": said}


FORMS: dict[str, Callable[[int], Row]] = {
    form.__name__: form for form in (own, request_log, anthropic, gemini, otel, langfuse, responses)
}


def measure(file: Path, out: Path) -> Row:
    """Import a file; return rows, seconds of processor time, and the most MB that were held."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    imported = import_file(file, out, overwrite=True)
    seconds = time.process_time() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert imported.loaded.kept == imported.loaded.read
    about = {"format": imported.format, "rows": imported.loaded.read}
    return {**about, "seconds": seconds, "MB before": before / 1024, "MB": after / 1024}


def measurements(names: list[str], rows: int, times: int) -> Iterator[Row]:
    context = multiprocessing.get_context("spawn")
    for name in names:
        with TemporaryDirectory() as folder:
            for count in dict.fromkeys((rows, rows * times)):
                file = Path(folder, f"{name}{count}.jsonl")
                write_jsonl(file, map(FORMS[name], range(count)))
                size = file.stat().st_size / 1e6
                with context.Pool(1) as pool:
                    found = pool.apply(measure, (file, Path(folder, "out.jsonl")))
                speed = {"rows per CPU second": round(found["rows"] / found["seconds"])}
                yield {"form": name, "file MB": size, **found, **speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--only", nargs="*", choices=FORMS, default=[*FORMS])
    given = parser.parse_args()
    for row in measurements(given.only, given.rows, given.times):
        plain = {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}
        print(json.dumps(plain), flush=True)


if __name__ == "__main__":
    main()
