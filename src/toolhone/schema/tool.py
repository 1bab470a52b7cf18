"""`Tool`: a tool as the model sees it, from an OpenAI tool object or from a Python function.

    Tool.of({"name": "weather", "parameters": {...}}).problems({"city": 3})

A function's schema comes from its type hints by pydantic; a Google-style `Args:` block or
`Annotated[T, "text"]` describes the parameters.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import jsonschema
from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from referencing import Registry
from referencing.exceptions import Unresolvable

from toolhone.errors import DataError
from toolhone.schema.json_input import (
    HARMLESS_OF_TOOLS,
    SCHEMAS,
    TOOL_KEYS,
    check_keys,
    first_value,
)
from toolhone.schema.json_schema import (
    NUMBER_FORMATS,
    TEXT_FORMATS,
    find_ref,
    fits_format,
    fits_plainly,
    follow,
    inline_refs,
    map_schema,
    modern_schema,
)
from toolhone.schema.json_schema import Json as Json

try:
    import regress
except ImportError:
    regress = None
Schema = Mapping[str, Json]
NO_PARAMETERS: dict[str, Json] = {"type": "object", "properties": {}}
OPEN_KEYWORDS = frozenset(
    {"additionalProperties", "patternProperties", "$ref", "allOf", "anyOf", "oneOf"}
)
"""Keywords that may allow arguments which `properties` does not name."""
_PLAIN_KEYWORDS = frozenset({"properties", "required", "description", "title", "$schema", "$defs"})
MAX_DEPTH = 20
"""References and alternatives inside each other, at most."""
_ARGUMENT = re.compile(r"^[^\S\n]+(\w+)[^\S\n]*(?:\([^)\n]*\))?:[^\S\n]*(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Tool:
    """Name, description and JSON Schema of the arguments; the implementation is optional."""

    name: str
    description: str = ""
    parameters: Mapping[str, Json] = field(default_factory=lambda: dict(NO_PARAMETERS))
    function: Callable[..., Json] | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def of(
        source: Tool | Mapping[str, Json] | Callable[..., Json], unread: set[str] | None = None
    ) -> Tool:
        """Make a tool from an OpenAI tool object, a function object, or a function with hints.

        unread: gets the keys that are not read; without it they are an error.
        """
        if isinstance(source, Tool):
            return source
        if isinstance(source, Mapping):
            return Tool(*_tool_object_parts(source, unread))
        if not callable(source):
            right, kind = "an object with a 'name', or a Python function", type(source).__name__
            raise DataError(f"a tool must be {right}; got {kind}")
        return Tool(*schema_of_callable(source), source)

    def to_dict(self) -> dict[str, Json]:
        """Return the OpenAI tool object."""
        function = {"name": self.name, "description": self.description}
        return {"type": "function", "function": {**function, "parameters": dict(self.parameters)}}

    @property
    def properties(self) -> dict[str, Schema]:
        """The declared parameters and their schemas."""
        properties = self.parameters.get("properties", {})
        return {name: one if isinstance(one, Mapping) else {} for name, one in properties.items()}

    def problems(self, arguments: Mapping[str, Json]) -> list[str]:
        """Check arguments against the schema: one sentence per problem. Never raises or fetches."""
        if fits_plainly(arguments, self.parameters):
            return []
        try:
            errors = list(self._validator.iter_errors(dict(arguments)))
        except (OverflowError, ValueError, RecursionError, Unresolvable, re.error) as error:
            return [f"arguments: cannot be checked: {error}"]
        errors.sort(key=lambda error: list(map(str, error.path)))
        return [f"{'.'.join(map(str, e.path)) or 'arguments'}: {e.message}" for e in errors]

    def format_problems(self, arguments: Mapping[str, Json]) -> list[str]:
        """Check the `format`s of texts: one sentence per problem. A format is an annotation, so
        that `problems` does not have them."""
        if not self._has_formats:
            return []
        try:
            checker = _FormatChecker(modern_schema(self.parameters), registry=Registry())
            errors = [e for e in checker.iter_errors(dict(arguments)) if e.validator == _FORMAT]
        except (OverflowError, ValueError, RecursionError, Unresolvable, re.error):
            return []
        return [f"{'.'.join(map(str, e.path))}: {e.message}" for e in errors]

    @cached_property
    def _has_formats(self) -> bool:
        return f'"{_FORMAT}"' in json.dumps(self.parameters, default=str)

    @cached_property
    def inlined(self) -> Tool:
        """The tool with a schema without references (`inline_refs`)."""
        return replace(self, parameters=inline_refs(self.parameters))

    @cached_property
    def _validator(self) -> jsonschema.protocols.Validator:
        schema = modern_schema(self.parameters)
        return _Checker(schema, registry=Registry())  # type: ignore[no-any-return]


def _tool_object_parts(source: Schema, unread: set[str] | None) -> tuple[str, str, dict[str, Any]]:
    """Return name, description and parameters of a tool object or a bare function object."""
    body = source.get("function", source)
    if not isinstance(body, Mapping) or not isinstance(body.get("name"), str) or not body["name"]:
        raise DataError(f"a tool needs a 'name' (a string); got keys {sorted(map(str, source))}")
    where = f"tool {body['name']!r}"
    parameters = first_value(body, SCHEMAS, where) or NO_PARAMETERS
    if not isinstance(parameters, Mapping):
        right = "must be a JSON Schema object"
        raise DataError(f"{where}: 'parameters' {right}, got {parameters!r:.60}")
    if not is_schema(parameters):
        right = "wanted {'type': 'object', 'properties': {...}}"
        raise DataError(f"{where}: not a JSON Schema of an object: {parameters!r:.60}; {right}")
    check_tool_keys(source, parameters is not NO_PARAMETERS, unread)
    if fault := schema_fault(parameters):
        path = ".".join(map(str, fault[0])) or "parameters"
        raise DataError(f"{where}: not a JSON Schema at {path}: {fault[1]}")
    if unread is not None:
        unread |= unchecked_words(parameters)
    description = body.get("description") or ""
    if isinstance(description, list | Mapping):
        raise DataError(f"{where}: 'description' must be text, got {description!r:.60}")
    return body["name"], str(description), dict(parameters)


def check_tool_keys(
    source: Schema, has_schema: bool, unread: set[str] | None, more: Collection[str] = ()
) -> None:
    """Put the keys of a tool that are not read into `unread`; more: further ones that are known.

    A tool without parameters has none that looks like a schema.
    """
    body = source.get("function", source)
    for level in (body,) if body is source else (body, source):
        known = {*(TOOL_KEYS if level is body else ("type", "function")), *HARMLESS_OF_TOOLS, *more}
        hidden = not has_schema and any(
            isinstance(value, Mapping)
            and key not in known
            and ("properties" in value or all(isinstance(one, Mapping) for one in value.values()))
            for key, value in level.items()
        )
        check_keys(level, known, "a tool", None if hidden else unread)


def is_schema(parameters: Schema) -> bool:
    """Return whether this is the schema of an object, and not its properties themselves.

    No flat parameter is a `type` of "object".
    """
    if str(parameters.get("type")).lower() == "object" or "$ref" in parameters:
        return True
    properties = parameters.get("properties")
    if isinstance(properties, Mapping) and not isinstance(parameters.get("type"), Mapping):
        return all(isinstance(inner, Mapping) for inner in properties.values())
    names = (parameters.get("title"), parameters.get("description"))
    named = any(isinstance(name, Mapping) for name in names)
    return not named and not parameters.keys() - OPEN_KEYWORDS - _PLAIN_KEYWORDS


def schema_fault(schema: Schema) -> tuple[list[str | int], str] | None:
    """Return where a schema is none, as keys of it, and what is wrong there; None for a schema."""
    try:
        plain = jsonschema.FormatChecker(formats=())
        jsonschema.Draft202012Validator.check_schema(modern_schema(schema), plain)
    except jsonschema.SchemaError as error:
        return list(error.path), error.message
    return None


@cache
def pattern_finder(pattern: str) -> Callable[[str], object] | None:
    """Return what finds a pattern of ECMA-262 in a text: by `regress` where it is installed, else
    by Python, which knows fewer patterns; None for one that cannot be read."""
    if regress is not None:
        for flags in ("u", ""):
            try:
                return regress.Regex(pattern, flags).find  # type: ignore[no-any-return]
            except regress.RegressError:
                continue
    try:
        return re.compile(re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", pattern)).search
    except (re.error, RecursionError, OverflowError):
        return None


def _check_pattern(_validator: Any, pattern: Json, value: Json, _schema: Json) -> Iterator[Any]:
    find = pattern_finder(pattern) if isinstance(pattern, str) else None
    if find is not None and isinstance(value, str) and find(value) is None:
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


def _check_format(_validator: Any, name: Json, value: Json, _schema: Json) -> Iterator[Any]:
    if isinstance(value, str) and fits_format(value, str(name)) is False:
        yield jsonschema.ValidationError(f"{value!r} is not a {name!r}", validator=_FORMAT)


_Checker: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"pattern": _check_pattern}
)
_FORMAT = "format"
_FormatChecker: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    _Checker, {_FORMAT: _check_format}
)


def unchecked_words(schema: Schema) -> set[str]:
    """Name the patterns of a schema that cannot be read, and the formats that are not checked; no
    argument is checked by them."""
    found = set[str]()

    def look(level: dict[str, Json]) -> dict[str, Json]:
        pattern, name = level.get("pattern"), level.get("format")
        if isinstance(name, str) and name not in TEXT_FORMATS | NUMBER_FORMATS:
            found.add(f"'format' {name!r:.60} of a tool, which is not checked")
        if isinstance(pattern, str) and pattern_finder(pattern) is None:
            found.add(f"'pattern' {pattern!r:.60} of a tool, which cannot be read")
        return level

    map_schema(schema, look)
    return found


def schema_of_callable(function: Callable[..., Any]) -> tuple[str, str, dict[str, Any]]:
    """Return name, description and JSON Schema of the arguments; refuse `*args`, `**kwargs`."""
    name = getattr(function, "__name__", type(function).__name__)
    head, _, rest = (inspect.getdoc(function) or "").partition("Args:")
    block = re.split(r"^(?=\S)", rest, maxsplit=1, flags=re.MULTILINE)[0]
    notes = {key: text.strip() for key, text in _ARGUMENT.findall(block)}
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DataError(f"tool {name!r}: a type hint cannot be resolved: {error}") from None
    parameters: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    definitions: dict[str, Any] = {}
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            wrong = f"parameter {key!r} has no name a model could use; give it one"
            raise DataError(f"tool {name!r}: {wrong}")
        hint = hints.get(key, Any)
        try:
            schema = TypeAdapter(hint).json_schema()
        except (PydanticUserError, PydanticUndefinedAnnotation, TypeError) as error:
            what = f"parameter {key!r} of type {hint!r}"
            raise DataError(f"tool {name!r}: no JSON Schema for {what}: {error}") from None
        schema.pop("title", None)
        definitions.update(schema.pop("$defs", {}))
        extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        if text := next((extra for extra in extras if isinstance(extra, str)), None):
            schema["description"] = text
        if isinstance(parameter.default, str | int | float | bool):
            schema["default"] = parameter.default
        if key in notes:
            schema.setdefault("description", notes[key])
        if parameter.default is inspect.Parameter.empty:
            parameters["required"].append(key)
        parameters["properties"][key] = schema
    return (
        name,
        " ".join(head.split()),
        parameters | ({"$defs": definitions} if definitions else {}),
    )


def strip_padding(
    value: Json, schema: Json, root: Json = None, path: str = ""
) -> tuple[Json, list[str]]:
    """Return the value without the nulls that a merged table left, and the paths of these.

    The schema does not name such a field, or makes it optional and allows no null there. root: the
    document that the schema's references name parts of; by default the schema itself.
    """
    root = schema if root is None else root
    fields = follow(schema, root)
    fields = fields if isinstance(fields, Mapping) else {}
    properties, items, paths = fields.get("properties"), fields.get("items"), list[str]()
    if isinstance(value, Mapping) and isinstance(properties, Mapping):
        kept = {}
        for name, inner in value.items():
            here = f"{path}.{name}" if path else name
            if inner is None and _is_padding(name, fields, properties, root):
                paths.append(here)
                continue
            kept[name], more = strip_padding(inner, properties.get(name), root, here)
            paths += more
        return kept, paths
    if isinstance(value, list) and isinstance(items, Mapping):
        entries = [strip_padding(one, items, root, f"{path}[{i}]") for i, one in enumerate(value)]
        return [one for one, _ in entries], [path for _, more in entries for path in more]
    return value, paths


def _is_padding(name: str, schema: Schema, properties: Schema, root: Json) -> bool:
    if name not in properties:
        return not schema.keys() & OPEN_KEYWORDS or schema.get("additionalProperties") is False
    needed = name in (schema.get("required") or ())
    return not needed and not allows_null(properties[name], root)


def allows_null(schema: Json, root: Json = None, depth: int = 0) -> bool:
    """Return whether null may be a value here; a schema that cannot be followed allows it."""
    if depth > MAX_DEPTH or not isinstance(schema, Mapping):
        return True
    if isinstance(schema.get("$ref"), str) and root is not None:
        target = find_ref(root, schema["$ref"])
        return allows_null(target, root, depth + 1) if isinstance(target, Mapping) else True
    if schema.keys() & {"$ref", "allOf", "not", "if"} or schema.get("nullable") is True:
        return True
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            return any(allows_null(option, root, depth + 1) for option in schema[keyword])
    if "enum" in schema or "const" in schema:
        return None in (schema.get("enum") or ()) or ("const" in schema and schema["const"] is None)
    kind = schema.get("type")
    return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)
