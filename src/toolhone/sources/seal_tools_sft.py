"""Seal-Tools' own training rows: tools and query in one prompt, the calls as a list of literals.

    {"id": "s1", "conversations": [
        {"from": "human", "value": "api_list = [{...}]\\ntask_instruction = \\"...\\"\\nOutput:"},
        {"from": "gpt", "value": "[{'api': 'f', 'parameters': {...}, 'responses': [...]}]"}]}

On offer is what `api_list` holds; the user says `task_instruction`. See `seal_tools` for the rest.
"""

from __future__ import annotations

from toolhone.errors import DataError
from toolhone.sources.base import Context, Converted, Skip, Source
from toolhone.sources.files import Record
from toolhone.sources.seal_tools import Catalogue, convert_calls, read_calls
from toolhone.sources.text_calls import read_value

NOT_SFT = "not a training row of Seal-Tools"
FORMAT = "tools and format description taken out of the prompt"
_LIST, _QUERY, _END = "\napi_list = ", "\ntask_instruction = ", "\nOutput:"


def looks_like(record: Record) -> bool:
    return _texts(record) is not None


def _texts(record: Record) -> tuple[str, str] | None:
    """Return the prompt and the answer of a row; None for another kind of row."""
    turns = record.get("conversations")
    if not isinstance(turns, list) or len(turns) != 2:
        return None
    prompt, answer = (turn.get("value") if isinstance(turn, dict) else None for turn in turns)
    if not isinstance(prompt, str) or not isinstance(answer, str):
        return None
    return (prompt, answer) if _LIST in prompt and _QUERY in prompt else None


def convert(record: Record, context: Context) -> Converted:
    texts = _texts(record)
    if texts is None:
        raise Skip(NOT_SFT, f"keys {sorted(record)}")
    prompt, answer = texts
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
    query, calls = read_calls({"query": asked, "calling": calling}, catalogue, context)
    context.repairs.add(FORMAT)
    tools = tuple(catalogue.tools.values())
    return convert_calls(query, calls, tools, catalogue, context, record)


SEAL_TOOLS_SFT = Source("seal_tools_sft", looks_like, convert)
