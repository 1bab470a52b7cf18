"""Cases that every call syntax must take: what a message says, the exact text for it, and texts
that are wrong.

`MESSAGES` are (name, content, calls). `TEXTS[syntax][name]` is the exact text for that message, or
`REFUSED` where the syntax has no way to say it. `MALFORMED[syntax]` are (text, problem, names of
the calls that can still be read, content).
"""

from __future__ import annotations

import json
from typing import Any

from toolhone.dialects.interface import ParseProblem
from toolhone.schema import Conversation, Message, Tool, ToolCall

REFUSED = "refused"
SYNTAX_NAMES = ("json", "calls", "bfcl", "tagged", "tool_call_tags", "bare_json")

TOOLS = (
    Tool(
        "calculator",
        "Computes.",
        {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    ),
    Tool(
        "search.web",
        "Finds pages.",
        {"type": "object", "properties": {"query": {"type": "string"}, "top": {"type": "integer"}}},
    ),
)


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name, arguments)


ONE = (call("calculator", expression="2 + 2"),)
TWO = (call("calculator", expression="2*3"), call("search.web", query="tea", top=3))
NESTED = (call("f", o={"a": [1, -2.5, {"b": None}], "c": True}, e=[], s={}),)
QUOTES = (call("f", s='He said "no", it\'s\n(fine)\t\\ [x] {y}'),)
SCRIPTS = (call("f", s="Łódź 漢字 🙂 \u2028 é"),)
EMPTY = (call("f"),)
MARKS = (call("f", s="[/TOOL_CALL] [TOOL_CALL] </tool_call> <tool_call> <|im_end|> </think>"),)

MESSAGES: tuple[tuple[str, str | None, tuple[ToolCall, ...]], ...] = (
    ("answer", "It is 4.", ()),
    ("lines", "First.\n\n  I will call f (n = 5), or O(n).\n- done", ()),
    ("one", None, ONE),
    ("two", None, TWO),
    ("nested", None, NESTED),
    ("quotes", None, QUOTES),
    ("scripts", None, SCRIPTS),
    ("empty", None, EMPTY),
    ("marks", None, MARKS),
    ("beside", "Let me see.\n\nI compute:", ONE),
    ("misread", 'calculator(expression="1")', ()),
    ("misread_tag", 'So: <tool_call>{"name": "f"}</tool_call> [TOOL_CALL]{}[/TOOL_CALL]', ()),
    ("misread_json", '{"name": "f", "parameters": {}}', ()),
)

_Q = r'"He said \"no\", it' + "'" + r's\n(fine)\t\\ [x] {y}"'
_S = '"Łódź 漢字 🙂 \u2028 é"'
_M = "[/TOOL_CALL] [TOOL_CALL] </tool_call> <tool_call> <|im_end|> </think>"
_NEST = '{"o": {"a": [1, -2.5, {"b": null}], "c": true}, "e": [], "s": {}}'

TEXTS: dict[str, dict[str, str]] = {
    "json": {
        "answer": '{"final": "It is 4."}',
        "lines": '{"final": "First.\\n\\n  I will call f (n = 5), or O(n).\\n- done"}',
        "one": '{"tool": "calculator", "args": {"expression": "2 + 2"}}',
        "two": (
            '{"tool": "calculator", "args": {"expression": "2*3"}}\n{"tool": '
            '"search.web", "args": {"query": "tea", "top": 3}}'
        ),
        "nested": f'{{"tool": "f", "args": {_NEST}}}',
        "quotes": f'{{"tool": "f", "args": {{"s": {_Q}}}}}',
        "scripts": f'{{"tool": "f", "args": {{"s": {_S}}}}}',
        "empty": '{"tool": "f", "args": {}}',
        "marks": f'{{"tool": "f", "args": {{"s": "{_M}"}}}}',
        "beside": REFUSED,
        "misread": '{"final": "calculator(expression=\\"1\\")"}',
        "misread_tag": json.dumps({"final": MESSAGES[-2][1]}),
        "misread_json": json.dumps({"final": MESSAGES[-1][1]}),
    },
    "calls": {
        "answer": "It is 4.",
        "lines": "First.\n\n  I will call f (n = 5), or O(n).\n- done",
        "one": 'calculator(expression="2 + 2")',
        "two": 'calculator(expression="2*3")\nsearch.web(query="tea", top=3)',
        "nested": 'f(o={"a": [1, -2.5, {"b": None}], "c": True}, e=[], s={})',
        "quotes": f"f(s={_Q})",
        "scripts": f"f(s={_S})",
        "empty": "f()",
        "marks": f'f(s="{_M}")',
        "beside": 'Let me see.\n\nI compute:\ncalculator(expression="2 + 2")',
        "misread": REFUSED,
        "misread_tag": str(MESSAGES[-2][1]),
        "misread_json": str(MESSAGES[-1][1]),
    },
    "bfcl": {
        "answer": "It is 4.",
        "lines": "First.\n\n  I will call f (n = 5), or O(n).\n- done",
        "one": '[calculator(expression="2 + 2")]',
        "two": '[calculator(expression="2*3"), search.web(query="tea", top=3)]',
        "nested": '[f(o={"a": [1, -2.5, {"b": None}], "c": True}, e=[], s={})]',
        "quotes": f"[f(s={_Q})]",
        "scripts": f"[f(s={_S})]",
        "empty": "[f()]",
        "marks": f'[f(s="{_M}")]',
        "beside": REFUSED,
        "misread": REFUSED,
        "misread_tag": str(MESSAGES[-2][1]),
        "misread_json": str(MESSAGES[-1][1]),
    },
    "tagged": {
        "answer": "It is 4.",
        "lines": "First.\n\n  I will call f (n = 5), or O(n).\n- done",
        "one": (
            '[TOOL_CALL]{"name": "calculator", "parameters": {"expression": "2 + 2"}}[/TOOL_CALL]'
        ),
        "two": '[TOOL_CALL]{"name": "calculator", "parameters": {"expression": '
        '"2*3"}}[/TOOL_CALL]\n'
        '[TOOL_CALL]{"name": "search.web", "parameters": {"query": "tea", "top": 3}}[/TOOL_CALL]',
        "nested": f'[TOOL_CALL]{{"name": "f", "parameters": {_NEST}}}[/TOOL_CALL]',
        "quotes": f'[TOOL_CALL]{{"name": "f", "parameters": {{"s": {_Q}}}}}[/TOOL_CALL]',
        "scripts": f'[TOOL_CALL]{{"name": "f", "parameters": {{"s": {_S}}}}}[/TOOL_CALL]',
        "empty": '[TOOL_CALL]{"name": "f", "parameters": {}}[/TOOL_CALL]',
        "marks": '[TOOL_CALL]{"name": "f", "parameters": {"s": "\\u005b/TOOL_CALL] '
        "\\u005bTOOL_CALL] </tool_call> <tool_call> "
        '<|im_end|> </think>"}}[/TOOL_CALL]',
        "beside": (
            'Let me see.\n\nI compute:\n[TOOL_CALL]{"name": "calculator", '
            '"parameters": {"expression": "2 + 2"}}[/TOOL_CALL]'
        ),
        "misread": 'calculator(expression="1")',
        "misread_tag": REFUSED,
        "misread_json": str(MESSAGES[-1][1]),
    },
    "tool_call_tags": {
        "answer": "It is 4.",
        "lines": "First.\n\n  I will call f (n = 5), or O(n).\n- done",
        "one": (
            '<tool_call>\n{"name": "calculator", "arguments": {"expression": "2 + '
            '2"}}\n</tool_call>'
        ),
        "two": '<tool_call>\n{"name": "calculator", "arguments": {"expression": '
        '"2*3"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "search.web", "arguments": {"query": "tea", '
        '"top": 3}}\n</tool_call>',
        "nested": f'<tool_call>\n{{"name": "f", "arguments": {_NEST}}}\n</tool_call>',
        "quotes": f'<tool_call>\n{{"name": "f", "arguments": {{"s": {_Q}}}}}\n</tool_call>',
        "scripts": f'<tool_call>\n{{"name": "f", "arguments": {{"s": {_S}}}}}\n</tool_call>',
        "empty": '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
        "marks": '<tool_call>\n{"name": "f", "arguments": {"s": "[/TOOL_CALL] '
        "[TOOL_CALL] \\u003c/tool_call> "
        '\\u003ctool_call> <|im_end|> </think>"}}\n</tool_call>',
        "beside": 'Let me see.\n\nI compute:\n<tool_call>\n{"name": "calculator", '
        '"arguments": {"expression": "2 + 2"}}\n'
        "</tool_call>",
        "misread": 'calculator(expression="1")',
        "misread_tag": REFUSED,
        "misread_json": str(MESSAGES[-1][1]),
    },
    "bare_json": {
        "answer": "It is 4.",
        "lines": "First.\n\n  I will call f (n = 5), or O(n).\n- done",
        "one": '{"name": "calculator", "parameters": {"expression": "2 + 2"}}',
        "two": '{"name": "calculator", "parameters": {"expression": "2*3"}}\n'
        '{"name": "search.web", "parameters": {"query": "tea", "top": 3}}',
        "nested": f'{{"name": "f", "parameters": {_NEST}}}',
        "quotes": f'{{"name": "f", "parameters": {{"s": {_Q}}}}}',
        "scripts": f'{{"name": "f", "parameters": {{"s": {_S}}}}}',
        "empty": '{"name": "f", "parameters": {}}',
        "marks": f'{{"name": "f", "parameters": {{"s": "{_M}"}}}}',
        "beside": REFUSED,
        "misread": 'calculator(expression="1")',
        "misread_tag": str(MESSAGES[-2][1]),
        "misread_json": REFUSED,
    },
}

N, U, A, X, S, T = (
    ParseProblem.NOT_JSON,
    ParseProblem.UNCLOSED,
    ParseProblem.BAD_ARGUMENTS,
    ParseProblem.NOT_A_CALL,
    ParseProblem.STRAY_MARK,
    ParseProblem.STRAY_TEXT,
)
OK = ParseProblem.NONE

Malformed = tuple[str, ParseProblem, tuple[str, ...], str | None]

_TAGS: tuple[Malformed, ...] = (
    ('<{"name": "f", "arguments": {}}>', OK, ("f",), None),
    ('<{"name": "f"}>', OK, ("f",), None),
    ('< \n{"name":"f","parameters":{"a":1}} \n>', OK, ("f",), None),
    ('<{"name": "f", "arguments": "{\\"a\\": 1}"}>', OK, ("f",), None),
    ('<{"name": "f", "arguments": ""}>', OK, ("f",), None),
    ('a <{"name": "f", "arguments": {}}> b <{"name": "g"}>\nc', OK, ("f", "g"), "a\nb\nc"),
    ("<{name: f}>", N, (), None),
    ("<>", N, (), None),
    ('x <{"name": "f", "arguments": {}', U, (), "x"),
    ('<{"name": "f", "arguments": {}}', U, ("f",), None),
    ('<{"name": "f"}<{"name": "g"}>', U, ("f", "g"), None),
    ('<{"name": "f", "arg<{"name": "g"}>', U, ("g",), None),
    ('<{"name": "f"} and more>', N, (), None),
    ('<{"name": "f", "arguments": {"a": 1, "a": 2}}>', N, (), None),
    ('<{"name": "f", "arguments": {"a": NaN}}>', N, (), None),
    ('<{"name": "f", "arguments": {"a": -Infinity}}>', N, (), None),
    ('<{"name": "f", "arguments": {"a": 1e999}}>', N, (), None),
    ('<{"name": "f", "arguments": {"a": "\\ud800"}}>', N, (), None),
    ('<{"name": "f", "arguments": {"a": ' + "9" * 5000 + "}}>", N, (), None),
    ('<{"name": "f", "arguments": ' + "[" * 5000 + ">", N, (), None),
    ('<{"name": "f", "arguments": {"a": ' + "[" * 200 + "]" * 200 + "}}>", N, (), None),
    ("<[]>", X, (), None),
    ('<{"name": "", "arguments": {}}>', X, (), None),
    ('<{"name": 3, "arguments": {}}>', X, (), None),
    ('<{"name": "f", "arguments": {}, "parameters": {}}>', X, (), None),
    ('<{"name": "f", "arguments": [1]}>', A, (), None),
    ('<{"name": "f", "arguments": null}>', A, (), None),
    ('<{"name": "f", "arguments": "a=1"}>', A, (), None),
    ('<{"name": "f", "arguments": "{} {}"}>', A, (), None),
    ("done>", S, (), "done"),
    ('<{"name": "f"}>>', S, ("f",), None),
    ('<{"name": "f", "arguments": [1]}> <{"name": "g"}>', A, ("g",), None),
)


def _with_marks(opening: str, closing: str) -> tuple[Malformed, ...]:
    """The cases with `<` and `>` as the marks."""
    return tuple(
        (
            text.replace("<", "\0").replace(">", closing).replace("\0", opening),
            problem,
            names,
            content,
        )
        for text, problem, names, content in _TAGS
    )


MALFORMED: dict[str, tuple[Malformed, ...]] = {
    "tagged": _with_marks("[TOOL_CALL]", "[/TOOL_CALL]"),
    "tool_call_tags": _with_marks("<tool_call>", "</tool_call>"),
    "json": (
        ('  {"tool":"f","args":{"a":1}}\n', OK, ("f",), None),
        ('{"tool": "f"}', OK, ("f",), None),
        ('{"final": 42}', OK, (), "42"),
        ("", T, (), None),
        ("It is 4.", T, (), "It is 4."),
        ('Sure.\n```json\n{"tool": "f", "args": {}}\n```', T, ("f",), "Sure.\n```json\n```"),
        ('{"tool": "f", "args": {}} done', T, ("f",), "done"),
        ('{"tool": "f", "args": {}}\n{"final": "x"}', T, ("f",), "x"),
        ('{"final": "x"}{"final": "y"}', T, (), "x\ny"),
        ('{"tool": "f", "args": {}', U, (), None),
        ('{"fin', U, (), None),
        ("{", U, (), None),
        ('{"tool": "f", "args": {"a": "\\', U, (), None),
        ('{"tool": "f", "args": {}}\n{"tool": "g", "args": {"a', U, ("f",), None),
        ("{tool: f}", N, (), None),
        ('{"tool": "f", "args": {"a": 1, "a": 2}}', N, (), None),
        ('{"tool": "f", "args": {"a": NaN}}', N, (), None),
        ('{"tool": "f", "args": [1]}', A, (), None),
        ('{"tool": "f", "args": [1]}\n{"tool": "g"}', A, ("g",), None),
        ('{"tool": 1, "args": {}}', X, (), None),
        ('{"name": "f", "arguments": {}}', X, (), None),
        ('{"thought": "hm", "tool": "f", "args": {}}', X, (), None),
        ('{"tool": "f", "final": "x"}', X, (), None),
    ),
    "bare_json": (
        ('{"name":"f","arguments":{"a":1}}', OK, ("f",), None),
        ('{"type": "function", "name": "f", "parameters": {}}', OK, ("f",), None),
        (
            (
                '{"name": "f", "parameters": {}}; {"name": "g", "parameters": '
                '{}},\n{"name": "h", "arguments": {}}'
            ),
            OK,
            ("f", "g", "h"),
            None,
        ),
        (
            '[{"name": "f", "parameters": {}}, {"name": "g", "parameters": {}}]',
            OK,
            ("f", "g"),
            None,
        ),
        ('{"name": "f", "parameters": "{\\"a\\": 1}"}', OK, ("f",), None),
        ('{"name": "John", "age": 3}', OK, (), '{"name": "John", "age": 3}'),
        ("[1] says {x}", OK, (), "[1] says {x}"),
        ("[]", OK, (), "[]"),
        ('I call\n{"name": "f", "parameters": {}}', T, ("f",), "I call"),
        ('{"name": "f", "parameters": {}} so', T, ("f",), "so"),
        ('{"name": "f", "parameters": {', U, (), None),
        ('{"na', U, (), None),
        ("{", U, (), None),
        ('[{"name": "f", "parameters": {}}, {"name": "g"', U, (), None),
        ('{"name": "f", "parameters": {}}{"name": "g", "para', U, ("f",), None),
        ("{'name': 'f', 'parameters': {}}", N, (), None),
        ('{"name": "f", "parameters": {"a": NaN}}', N, (), None),
        ('{"name": "f", "parameters": {"a": 1, "a": 1}}', N, (), None),
        ('{"name": "f", "parameters": {}}\n{"a": 1}', X, ("f",), None),
        ('{"parameters": {"a": 1}}', X, (), None),
        ('{"name": "f", "parameters": [1]}', A, (), None),
    ),
    "bfcl": (
        ("[f(a=1)]", OK, ("f",), None),
        ("```\n[f(a=1)]\n```", OK, ("f",), None),
        ("f(a=1)", OK, ("f",), None),
        ("f(a=1), g(b=2)", OK, ("f", "g"), None),
        (" [ f( a = 'x' ), g.h(),]", OK, ("f", "g.h"), None),
        ("[\n  f(a=1),\n  g(b=2)\n]", OK, ("f", "g"), None),
        ("[f(x), f(y)]", OK, (), "[f(x), f(y)]"),
        ("O(n log n)", OK, (), "O(n log n)"),
        ("[1, 2]", OK, (), "[1, 2]"),
        ("[]", OK, (), "[]"),
        ("", OK, (), ""),
        ("Look:\n[f(a=1)]", T, ("f",), "Look:"),
        ("[f(a=1)] There.", T, ("f",), "There."),
        ("f(a=1)\ng(b=2)", T, ("f",), "g(b=2)"),
        ("[f(a=1", U, (), None),
        ("[f(a=1)", U, ("f",), None),
        ("[f(a=1), g(", U, ("f",), None),
        ('[f(a="x', U, (), None),
        ("[f(a=1) g(b=2)]", N, ("f",), None),
        ("[f(a=1), 2]", N, ("f",), None),
        ("[f(a=x)]", N, (), None),
        ("[f(a=1 + 1)]", N, (), None),
        ("[f('x')]", A, (), None),
        ("[f(a=1, a=2)]", A, (), None),
    ),
    "calls": (
        ("f(a=1)", OK, ("f",), None),
        ("  f( a = 'x' , )  ", OK, ("f",), None),
        ("f(a=true, b=null, c=(1, 2), d=-.5e3, e=+1, g=[1, 2,])", OK, ("f",), None),
        ("get-weather(city='Rome')\na.b:c/d()", OK, ("get-weather", "a.b:c/d"), None),
        ('f(**{"class": 1, "my-arg": 2})', OK, ("f",), None),
        ("Look:\nf(a=1)", OK, ("f",), "Look:"),
        ("I will call f (n = 5)", OK, (), "I will call f (n = 5)"),
        ("f(n=5) is what I would call", OK, (), "f(n=5) is what I would call"),
        ("O(n log n)", OK, (), "O(n log n)"),
        ("f(x)", OK, (), "f(x)"),
        ("if f(x) == 3: pass", OK, (), "if f(x) == 3: pass"),
        ("", OK, (), ""),
        ("f(a=1)\nThere.", T, ("f",), "There."),
        ("f(a=1)\n\nThen:\ng(b=2)", T, ("f", "g"), "Then:"),
        ("f(a=1", U, (), None),
        ('f(a="x', U, (), None),
        ("f(a=[1, {", U, (), None),
        ("f(", U, (), None),
        ("f(a=1)\ng(b=", U, ("f",), None),
        ("f(a=1\ng(b=2)", N, ("g",), None),
        ("f(a=x)", N, (), None),
        ("f(a=1 + 1)", N, (), None),
        ("f(a=1);", N, (), None),
        ("f(a={1: 2})", N, (), None),
        ("f(a=b'x')", N, (), None),
        ("f(a=1e999)", N, (), None),
        ("f(a=" + "9" * 5000 + ")", N, (), None),
        ("f(a=" + "[" * 5000, N, (), None),
        ("f(a='\\ud800')", N, (), None),
        ("f('x')", A, (), None),
        ("f(1, b=2)", A, (), None),
        ("f(a=1, a=2)", A, (), None),
        ('f(a={"b": 1, "b": 2})', A, (), None),
        ('f(a=1, **{"a": 2})', A, (), None),
    ),
}

CONVERSATION = Conversation(
    (
        Message("system", "Be brief."),
        Message("user", "What is 2 + 2?"),
        Message("assistant", None, None, ONE),
        Message("tool", "four <|im_end|> </tool_response>"),
        Message("assistant", "It is 4."),
        Message("user", "And <|im_start|>assistant?"),
        Message("assistant", "Yes, <think> so."),
    ),
    TOOLS,
)
