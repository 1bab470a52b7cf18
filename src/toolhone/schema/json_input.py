"""JSON input: read strictly, and the keys of calls, tools, messages and rows.

parse_json('{"a": 1, "a": 2}')               # ValueError: the key 'a' occurs twice in one object
first_value(call, ARGUMENTS, "a call")       # two spellings with two values are an error
check_keys(call, known, "a call", unread)    # a key that is not read goes into `unread`
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence, Set
from importlib import resources
from typing import Any

import yaml  # type: ignore[import-untyped]

from toolhone.errors import DataError, nearest


class StrictError(ValueError):
    """A text that `json` would read, and two readers differently."""


def parse_json(text: str) -> Any:
    """Return the value of a text; a `ValueError` says what is wrong with it."""
    try:
        value = DECODER.decode(text)
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    except ValueError as error:
        strict = isinstance(error, json.JSONDecodeError | StrictError)
        raise error if strict else ValueError(f"not JSON: {error}") from None
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("not text: a \\u escape holds half of a surrogate pair") from None
    return value


def is_number(value: Any, whole: bool = False) -> bool:
    """Return whether a value is a number, or a whole one; a truth value is none."""
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool)


def packaged_json(name: str) -> Any:
    """Return the value of a file of this package, such as `sources/published.json`."""
    return json.loads(resources.files("toolhone").joinpath(name).read_text("utf-8"))


def packaged_names(folder: str) -> list[str]:
    """Return the names of the JSON files in a folder of this package, without their ending."""
    files = [path.name for path in resources.files("toolhone").joinpath(folder).iterdir()]
    return sorted(name.removesuffix(".json") for name in files if name.endswith(".json"))


def plain_json(text: str) -> str:
    """Return JSON without `//` and `/* */` comments and trailing commas, in the same lines and
    columns; strings are unchanged."""
    for extra in (r"//[^\n]*|/\*.*?\*/", r",(?=\s*[]}])"):
        text = re.sub(
            rf'("(?:[^"\\]|\\.)*")|{extra}',
            lambda found: found[1] or re.sub(r"[^\n]", " ", found[0]),
            text,
            flags=re.DOTALL,
        )
    return text


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]
    """Reads YAML as `yaml.safe_load` does, but a key twice in a mapping is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := next((str(name) for name in names if names.count(name) > 1), None):
            raise yaml.YAMLError(f"the key {twice!r} occurs twice in one mapping")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text, read strictly: no key twice in a mapping."""
    return yaml.load(text, _UniqueKeys)  # noqa: S506 (as safe as the loader that it extends)


def entry_texts(text: str) -> list[str]:
    """Return the texts of the entries of a JSON list, whatever they hold; none of a broken list."""
    texts, position = list[str](), text.index("[")
    try:
        while text[position] != "]":
            start = _skip_space(text, position + 1)
            _, end = _LOOSE.raw_decode(text, start)
            texts.append(text[start:end])
            position = _skip_space(text, end)
            if text[position] not in ",]":
                return []
        return [] if text[position + 1 :].strip() else texts
    except (ValueError, IndexError, RecursionError):
        return []


def _skip_space(text: str, position: int) -> int:
    while text[position] in " \t\r\n":
        position += 1
    return position


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise StrictError(f"the key {twice!r} occurs twice in one object; each key may occur once")
    return record


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise StrictError(f"{text} is not JSON; wanted a finite number or null")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
"""Reads strictly; half characters pass."""
_LOOSE = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)


ARGUMENTS = ("arguments", "parameters", "args", "input", "kwargs", "params")
"""Spellings of the arguments of a call."""
SCHEMAS = ("parameters", "inputSchema", "input_schema", "parametersJsonSchema")
"""Spellings of the schema of a tool's arguments."""
IDS = ("call_id", "tool_call_id", "tool_use_id", "toolUseId", "toolCallId", "id")
"""Spellings of the id of a call; that of the item or message around it comes last."""
THOUGHTS = ("reasoning", "reasoning_content", "thinking", "reasoning_details", "tool_plan")
"""Spellings of the reasoning of a turn."""
WEIGHT_KEYS = ("weight", "train", "training", "loss", "loss_weight", "loss_scale")
"""Keys of a message that say how much it counts in training."""
MAX_WEIGHT = 10
_THOUGHTS, _WEIGHT_KEYS = frozenset(THOUGHTS), frozenset(WEIGHT_KEYS)
CALL_KEYS = frozenset({*ARGUMENTS, *IDS, "name", "type"})
MESSAGE_KEYS = frozenset(
    {*THOUGHTS, *WEIGHT_KEYS, "role", "content", "tool_calls", "tool_call_id", "name"}
)
TOOL_KEYS = frozenset({*SCHEMAS, "name", "description", "type", "function"})
HARMLESS = frozenset(
    {
        *("annotations", "audio", "cache_control", "citations", "created", "created_at"),
        *("finish_reason", "id", "index", "logprobs", "model", "object", "refusal"),
        *("provider_specific_fields", "service_tier", "stop_reason", "system_fingerprint"),
        *("timestamp", "turn_idx", "type", "usage", "uuid"),
    }
)
"""Keys that say nothing to learn, wherever they are."""
LABELS = frozenset(
    {
        *("category", "data_source", "dataset", "domain", "lang", "language", "licence", "license"),
        *("source", "split", "subcategory", "task"),
    }
)
"""Keys of a row that say what it is or where it is from, not what is learned."""
HARMLESS_OF_TOOLS = frozenset(
    {
        *("_meta", "defer_loading", "execution", "icons", "outputSchema", "output_schema"),
        *("desc_for_search", "strict", "tags", "title"),
        *("output", "response", "responses", "result", "results", "return", "returns"),
    }
)
"""Of a tool: what lists of tools say for search and display, and what the tool gives back."""


def is_empty(value: Any) -> bool:
    """Return whether a value holds nothing; false and 0 say something."""
    return not value and (value is None or isinstance(value, (str, list, tuple, Mapping)))


def first_value(source: Mapping[str, Any], keys: Sequence[str], where: str) -> Any:
    """Return the value of the first key that holds something, else of the first that is there."""
    found = [key for key in keys if key in source and not is_empty(source[key])]
    for other in found[1:]:
        if source[other] != source[found[0]]:
            both = f"both {found[0]!r} and {other!r}"
            raise DataError(f"{where} has {both}, which differ; wanted one of them")
    present = found or [key for key in keys if source.get(key) is not None]
    return source[present[0]] if present else None


def check_keys(
    source: Mapping[str, Any], known: Collection[str], where: str, unread: set[str] | None
) -> bool:
    """Put keys that are not read into `unread`, or raise; return whether there were any."""
    if isinstance(known, Set) and source.keys() <= known:
        return False
    names = [
        str(key)
        for key, value in source.items()
        if key not in known and key not in HARMLESS and not is_empty(value)
    ]
    if names and unread is None:
        right = f"{nearest(names[0], known)}; known: {', '.join(sorted(known))}"
        raise DataError(f"{where} has the key {names[0]!r}, which is not read{right}")
    if unread is not None:
        unread |= {f"{name!r} of {where}" for name in names}
    return bool(names)


def read_texts(parts: Any, key: str) -> str:
    """Return the text of text parts; a part may hold nothing besides its text."""
    if not isinstance(parts, Sequence) or not all(
        isinstance(part, Mapping) and part.get("type") == "text" for part in parts
    ):
        right = "text, null or a list of text parts"
        raise DataError(f"'{key}' must be {right}; got {parts!r:.60}")
    texts = []
    for part in parts:
        text = first_value(part, ("text", "value"), "a text part")
        if not isinstance(text, str):
            raise DataError(f"'{key}' has a text part without text; got {text!r:.60}")
        check_keys(part, {"text", "value"}, "a text part", None)
        texts.append(text)
    return "".join(texts)


def read_reasoning(source: Mapping[str, Any], unread: set[str] | None) -> str | None:
    """Return the thoughts of a turn: the first spelling that says something, once."""
    said: str | None = None
    if _THOUGHTS.isdisjoint(source):
        return said
    for key in THOUGHTS:
        value = source.get(key)
        parts = value if isinstance(value, list | tuple) else [value]
        texts = [_thought_text(part, key, unread) for part in parts if not is_empty(part)]
        text = "\n".join(text for text in texts if isinstance(text, str))
        if said is None and not is_empty(text):
            said = text
        same = "".join(text.split()) == "".join((said or "").split())
        if not all(isinstance(one, str) for one in texts) or (text and not same):
            check_keys({key: value}, (), "a message", unread)
    return said


def _thought_text(part: Any, key: str, unread: set[str] | None) -> Any:
    """Return the text of a thought, or of a part of one in a list; anything else if it has none."""
    if not isinstance(part, Mapping):
        return part
    texts = ("text", "thinking", "summary")
    if isinstance(text := first_value(part, texts, key), str):
        check_keys(part, {*texts, "format", "signature"}, f"a part of {key!r}", unread)
    return text


def identity_of(source: Any) -> str | None:
    """Return the id of a call, or of the call that a result answers, under any of `IDS`."""
    given = source if isinstance(source, Mapping) else {}
    return next((str(given[key]) for key in IDS if given.get(key) not in (None, "")), None)


def check_flags(source: Mapping[str, Any], role: str, unread: set[str] | None) -> None:
    """Put flags of a message that say to learn it into `unread`: of other roles none can be."""
    if not _WEIGHT_KEYS.isdisjoint(source):
        flags = {key: source.get(key) for key in WEIGHT_KEYS}
        check_keys(flags, (), f"a message of the role {role!r}", unread)


def read_weight(source: Mapping[str, Any]) -> float:
    """Return how much a message counts in training, by any of `WEIGHT_KEYS`; 1 without one.

    A value is true, false or a number, also as text. Of two keys, 0 wins over any other, and any
    other over 1.
    """
    if _WEIGHT_KEYS.isdisjoint(source):
        return 1
    found: dict[float, str] = {1: ""}
    for key in WEIGHT_KEYS:
        value = source.get(key)
        if value is None:
            continue
        try:
            number = json.loads(value.strip().lower()) if isinstance(value, str) else value
        except ValueError:
            number = None
        if not isinstance(number, int | float) or not 0 <= number <= MAX_WEIGHT:
            right = f"true, false or a number from 0 to {MAX_WEIGHT}"
            raise DataError(f"{key!r} must be {right}, got {value!r:.40}")
        found[number * 1] = key
    others = [number for number in found if number != 1]
    if len(others) > 1 and 0 not in found:
        named = " and ".join(f"{found[number]!r} {number}" for number in others)
        raise DataError(f"a message has {named}, which differ; wanted one of them")
    return 0 if 0 in found else (others or [1])[0]
