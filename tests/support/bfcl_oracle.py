"""Right and spoiled answers to BFCL entries, as `bfcl_runner.py entries` gives them."""

import ast
import re

from toolhone.schema import ToolCall

NEVER_RIGHT = {
    *("simple_java_36", "simple_java_65", "live_simple_106-63-0", "live_simple_112-68-0"),
    *("live_multiple_862-181-3", "live_multiple_964-207-0"),
}
"""Entries that no output can pass."""


def right_answer(entry):
    """Calls, or a text where no call is right."""
    if entry["truth"] is None:
        name = entry["function"][0]["name"] if entry["function"] else ""
        return "There is nothing to call." if "irrelevance" in entry["id"] else [ToolCall(name, {})]
    functions = {function["name"]: function for function in entry["function"]}
    calls = []
    for answer in entry["truth"]:
        ((name, parameters),) = answer.items()
        schema = functions[name]["parameters"]["properties"]
        arguments = {}
        for key, choices in parameters.items():
            given = [choice for choice in choices if choice != ""]
            is_optional = "" in choices and key not in functions[name]["parameters"]["required"]
            if given and not is_optional:
                described = schema.get(key, {}).get("description", "")
                arguments[key] = literal(chosen(given[0]), described)
            elif not is_optional and not given:
                arguments[key] = choices[0] if choices else ""
        calls.append(ToolCall(name, arguments))
    return calls


def chosen(value):
    """An accepted value; in an object every key has a list of choices."""
    if isinstance(value, list):
        return [chosen(one) for one in value]
    if not isinstance(value, dict):
        return value
    given = {}
    for key, choices in value.items():
        real = [choice for choice in choices if choice != ""]  # of a text: its first character
        if real:
            given[key] = real[0]
    return given


def literal(value, description):
    """The value, or its text in Java or JavaScript where the parameter is described so."""
    found = re.search(r"This is (Java|JavaScript) (\w+) type parameter", description)
    if not found:
        is_any = re.search("any type of Java(Script)? object in string", description)
        return str(value) if is_any else value
    language, kind = found.groups()
    items = re.search(r"list elements are of type (\w+);", description)
    if language == "JavaScript":
        return javascript(value, kind)
    return java(value, kind, items[1] if items else "")


def java(value, kind, items=""):
    if isinstance(value, list) and kind in ("Array", "ArrayList"):
        quote = kind == "ArrayList" and items == "String"
        texts = [f'"{one}"' if quote else java(one, items) for one in value]
        joined = ", ".join(texts)
        return (
            f"new ArrayList<>(Arrays.asList({joined}))"
            if kind == "ArrayList"
            else f"new {items}[]{{{joined}}}"
        )
    if isinstance(value, dict):
        puts = "".join(f'put("{k}", {java_inner(v)}); ' for k, v in value.items())
        return f"new HashMap<>() {{{{ {puts}}}}}"
    if isinstance(value, bool):
        return str(value).lower()
    suffix = {"long": "L", "float": "f"}.get(kind, "")
    return value if isinstance(value, str) else f"{value}{suffix}"


def java_inner(value):
    return f'"{value}"' if isinstance(value, str) else java(value, "")


def javascript(value, kind):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(javascript(one, '') for one in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {javascript(v, chr(0))}' for k, v in value.items())}}}"
    if isinstance(value, str):
        return f'"{value}"' if kind in ("String", "", "\0") else value
    return f"{value}n" if kind == "Bigint" else str(value)


def spoiled(entry, answer):
    """The answer with its first argument renamed; a call for none, and none for any call."""
    if isinstance(answer, str):
        return [ToolCall("needless", {})]
    if entry["truth"] is None:
        return "I cannot help."
    first, *others = answer
    names = list(first.arguments)
    arguments = dict(first.arguments) or {"unknown": 1}
    if names:
        arguments = {("x" + key if key == names[0] else key): v for key, v in arguments.items()}
    return [ToolCall(first.name, arguments), *others]


def right_turns(entry):
    """The steps of each turn of a multi-turn entry: all its calls, then a text."""
    held = [one for docs in entry.get("missed_function", {}).values() for one in docs]
    names = {
        one["name"]: list(one["parameters"]["properties"]) for one in [*entry["function"], *held]
    }
    turns = [[python_call(text, names) for text in turn] for turn in entry["truth"]]
    return [[calls, "Done."] if calls else ["Done."] for calls in turns]


def python_call(text, parameters):
    """A call as Python writes it; `parameters` has the parameters of each function, in order."""
    call = ast.parse(text, mode="eval").body
    name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
    arguments = dict(zip(parameters[name], map(ast.literal_eval, call.args), strict=False))
    arguments |= {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    return ToolCall(name, arguments)
