"""Cases for derived call syntaxes: published forms, exact texts for messages, and malformed texts.

`FORMS[name]` has the syntax, `texts` (message of `dialect_cases.MESSAGES` -> its exact text)
and `malformed` (text, problem, calls that can still be read, content).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from support.dialect_cases import OK, A, N, S, T, U, X
from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.bodies import (
    JsonCalls,
    LooseObject,
    NameAsKey,
    NamedJson,
    PythonCalls,
)
from toolhone.dialects.syntax.delimited import (
    ID_SLOT,
    NUMBER_SLOT,
    DelimitedFormat,
    DelimitedSyntax,
)
from toolhone.dialects.syntax.parameters import Parameters

Calls = tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True)
class Form:
    syntax: DelimitedSyntax
    texts: dict[str, str]
    malformed: tuple[tuple[str, ParseProblem, Calls, str | None], ...]


FORMS: dict[str, Form] = {
    "list in one tag": Form(
        DelimitedSyntax(DelimitedFormat("<tool_calls>", "</tool_calls>"), JsonCalls()),
        {
            "one": (
                '<tool_calls>[{"name": "calculator", "arguments": {"expression": "2 + '
                '2"}}]</tool_calls>'
            ),
            "two": (
                '<tool_calls>[{"name": "calculator", "arguments": {"expression": '
                '"2*3"}}, {"name": "search.web", "arguments": {"query": "tea", "top": '
                "3}}]</tool_calls>"
            ),
            "nested": (
                '<tool_calls>[{"name": "f", "arguments": {"o": {"a": [1, -2.5, {"b": '
                'null}], "c": true}, "e": [], "s": {}}}]</tool_calls>'
            ),
            "quotes": (
                '<tool_calls>[{"name": "f", "arguments": {"s": "He said \\"no\\", '
                "it's\\n(fine)\\t\\\\ [x] {y}\"}}]</tool_calls>"
            ),
            "scripts": (
                '<tool_calls>[{"name": "f", "arguments": {"s": "Łódź 漢字 🙂 \u2028 '
                'é"}}]</tool_calls>'
            ),
            "empty": '<tool_calls>[{"name": "f", "arguments": {}}]</tool_calls>',
            "marks": (
                '<tool_calls>[{"name": "f", "arguments": {"s": "[/TOOL_CALL] '
                "[TOOL_CALL] </tool_call> <tool_call> <|im_end|> "
                '</think>"}}]</tool_calls>'
            ),
            "beside": (
                'Let me see.\n\nI compute:<tool_calls>[{"name": "calculator", '
                '"arguments": {"expression": "2 + 2"}}]</tool_calls>'
            ),
            "answer": "It is 4.",
        },
        (
            ('<tool_calls>[{"name": "f"}]</tool_calls>', OK, (("f", {}),), None),
            ('<tool_calls>{"name": "f", "arguments": {}}</tool_calls>', OK, (("f", {}),), None),
            (
                (
                    'a <tool_calls>[{"name": "f"}]</tool_calls> b <tool_calls>[{"name": '
                    '"g"}]</tool_calls> c'
                ),
                OK,
                (("f", {}), ("g", {})),
                "a\nb\nc",
            ),
            ('<tool_calls>[{"name": "f"}, {"name": "g", "argu', U, (), None),
            ('<tool_calls>[{"name": "f"}]', U, (("f", {}),), None),
            (
                '<tool_calls>[{"name": "f"}]</tool_calls></tool_calls>',
                S,
                (("f", {}),),
                "</tool_calls>",
            ),
            ("done</tool_calls>", S, (), "done</tool_calls>"),
            ("<tool_calls>[{name: f}]</tool_calls>", N, (), None),
            ('<tool_calls>[{"arguments": {}}]</tool_calls>', X, (), None),
            (
                '<tool_calls>[{"name": "f", "arguments": [1]}, {"name": "g"}]</tool_calls>',
                A,
                (("g", {}),),
                None,
            ),
            ("<tool_calls>[]</tool_calls>", X, (), None),
            ('<tool_calls>[{"name": "f"}] so</tool_calls>', N, (), None),
            (
                '<tool_calls>[{"name": "f"}<tool_calls>[{"name": "g"}]</tool_calls>',
                U,
                (("g", {}),),
                None,
            ),
            ("<tool_calls></tool_calls>", N, (), None),
            ("<tool_calls>", U, (), None),
        ),
    ),
    "list with ids": Form(
        DelimitedSyntax(DelimitedFormat("[TOOL_CALLS]", ""), JsonCalls()),
        {
            "one": (
                '[TOOL_CALLS][{"name": "calculator", "arguments": {"expression": "2 + '
                '2"}, "id": "call00000"}]'
            ),
            "two": (
                '[TOOL_CALLS][{"name": "calculator", "arguments": {"expression": '
                '"2*3"}, "id": "call00000"}, {"name": "search.web", "arguments": '
                '{"query": "tea", "top": 3}, "id": "call00001"}]'
            ),
            "nested": (
                '[TOOL_CALLS][{"name": "f", "arguments": {"o": {"a": [1, -2.5, {"b": '
                'null}], "c": true}, "e": [], "s": {}}, "id": "call00000"}]'
            ),
            "quotes": (
                '[TOOL_CALLS][{"name": "f", "arguments": {"s": "He said \\"no\\", '
                'it\'s\\n(fine)\\t\\\\ [x] {y}"}, "id": "call00000"}]'
            ),
            "scripts": (
                '[TOOL_CALLS][{"name": "f", "arguments": {"s": "Łódź 漢字 🙂 \u2028 é"}, '
                '"id": "call00000"}]'
            ),
            "empty": '[TOOL_CALLS][{"name": "f", "arguments": {}, "id": "call00000"}]',
            "marks": (
                '[TOOL_CALLS][{"name": "f", "arguments": {"s": "[/TOOL_CALL] '
                '[TOOL_CALL] </tool_call> <tool_call> <|im_end|> </think>"}, "id": '
                '"call00000"}]'
            ),
            "beside": (
                'Let me see.\n\nI compute:[TOOL_CALLS][{"name": "calculator", '
                '"arguments": {"expression": "2 + 2"}, "id": "call00000"}]'
            ),
            "answer": "It is 4.",
        },
        (
            ('[TOOL_CALLS] [{"name": "f"}]', OK, (("f", {}),), None),
            ('[TOOL_CALLS][{"name": "f"}] so', T, (("f", {}),), "so"),
            ('[TOOL_CALLS][{"name": "f", "arg', U, (), None),
            (
                '[TOOL_CALLS][{"name": "f"}][TOOL_CALLS][{"name": "g"}]',
                OK,
                (("f", {}), ("g", {})),
                None,
            ),
            ("[TOOL_CALLS]", N, (), None),
            (
                '[TOOL_CALLS][{"name": "f", "arguments": "{\\"a\\": 1}"}]',
                OK,
                (("f", {"a": 1}),),
                None,
            ),
            ("[TOOL_CALLS]none", N, (), None),
        ),
    ),
    "list with other keys": Form(
        DelimitedSyntax(
            DelimitedFormat("<|START_ACTION|>", "<|END_ACTION|>", lead="<|START_RESPONSE|>"),
            JsonCalls(("tool_name",), ("parameters",)),
        ),
        {
            "one": (
                '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": '
                '"calculator", "parameters": {"expression": "2 + 2"}}\n]<|END_ACTION|>'
            ),
            "two": (
                '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": '
                '"calculator", "parameters": {"expression": "2*3"}},\n    '
                '{"tool_call_id": "1", "tool_name": "search.web", "parameters": '
                '{"query": "tea", "top": 3}}\n]<|END_ACTION|>'
            ),
            "nested": (
                '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", '
                '"parameters": {"o": {"a": [1, -2.5, {"b": null}], "c": true}, "e": '
                '[], "s": {}}}\n]<|END_ACTION|>'
            ),
            "quotes": (
                '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", '
                '"parameters": {"s": "He said \\"no\\", it\'s\\n(fine)\\t\\\\ [x] '
                '{y}"}}\n]<|END_ACTION|>'
            ),
            "scripts": (
                '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", '
                '"parameters": {"s": "Łódź 漢字 🙂 \u2028 é"}}\n]<|END_ACTION|>'
            ),
            "empty": (
                '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", '
                '"parameters": {}}\n]<|END_ACTION|>'
            ),
            "marks": (
                '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", '
                '"parameters": {"s": "[/TOOL_CALL] [TOOL_CALL] </tool_call> '
                '<tool_call> <|im_end|> </think>"}}\n]<|END_ACTION|>'
            ),
            "beside": (
                'Let me see.\n\nI compute:<|START_ACTION|>[\n    {"tool_call_id": "0", '
                '"tool_name": "calculator", "parameters": {"expression": "2 + '
                '2"}}\n]<|END_ACTION|>'
            ),
            "answer": "<|START_RESPONSE|>It is 4.",
        },
        (
            (
                '<|START_ACTION|>[{"tool_name": "f", "parameters": {}}]<|END_ACTION|>',
                OK,
                (("f", {}),),
                None,
            ),
            ('<|START_ACTION|>[{"name": "f", "parameters": {}}]<|END_ACTION|>', X, (), None),
            ('<|START_ACTION|>[\n{"tool_name": "f"', U, (), None),
            ("<|START_RESPONSE|>yes<|END_ACTION|>", S, (), "yes<|END_ACTION|>"),
        ),
    ),
    "joined by commas": Form(
        DelimitedSyntax(
            DelimitedFormat("<|tool_call|>", "<|/tool_call|>", between=","), JsonCalls()
        ),
        {
            "one": (
                '<|tool_call|>{"name": "calculator", "arguments": {"expression": "2 + '
                '2"}}<|/tool_call|>'
            ),
            "two": (
                '<|tool_call|>{"name": "calculator", "arguments": {"expression": '
                '"2*3"}},{"name": "search.web", "arguments": {"query": "tea", "top": '
                "3}}<|/tool_call|>"
            ),
            "nested": (
                '<|tool_call|>{"name": "f", "arguments": {"o": {"a": [1, -2.5, {"b": '
                'null}], "c": true}, "e": [], "s": {}}}<|/tool_call|>'
            ),
            "quotes": (
                '<|tool_call|>{"name": "f", "arguments": {"s": "He said \\"no\\", '
                "it's\\n(fine)\\t\\\\ [x] {y}\"}}<|/tool_call|>"
            ),
            "scripts": (
                '<|tool_call|>{"name": "f", "arguments": {"s": "Łódź 漢字 🙂 \u2028 '
                'é"}}<|/tool_call|>'
            ),
            "empty": '<|tool_call|>{"name": "f", "arguments": {}}<|/tool_call|>',
            "marks": (
                '<|tool_call|>{"name": "f", "arguments": {"s": "[/TOOL_CALL] '
                "[TOOL_CALL] </tool_call> <tool_call> <|im_end|> "
                '</think>"}}<|/tool_call|>'
            ),
            "beside": (
                'Let me see.\n\nI compute:<|tool_call|>{"name": "calculator", '
                '"arguments": {"expression": "2 + 2"}}<|/tool_call|>'
            ),
            "answer": "It is 4.",
        },
        (
            (
                '<|tool_call|>{"name": "f"} , {"name": "g"}<|/tool_call|>',
                OK,
                (("f", {}), ("g", {})),
                None,
            ),
            ('<|tool_call|>{"name": "f"}{"name": "g"}<|/tool_call|>', N, (), None),
            ('<|tool_call|>{"name": "f"},<|/tool_call|>', N, (("f", {}),), None),
            ('<|tool_call|>{"name": "f"},{"na', U, (("f", {}),), None),
            ('<|tool_call|>{"name": "f"},{name: g}<|/tool_call|>', N, (("f", {}),), None),
        ),
    ),
    "name, id, object": Form(
        DelimitedSyntax(
            DelimitedFormat("[TOOL_CALLS]", "", f"[CALL_ID]{ID_SLOT}[ARGS]", "[TOOL_CALLS]"),
            NamedJson(),
        ),
        {
            "one": '[TOOL_CALLS]calculator[CALL_ID]call00000[ARGS]{"expression": "2 + 2"}',
            "two": (
                '[TOOL_CALLS]calculator[CALL_ID]call00000[ARGS]{"expression": '
                '"2*3"}[TOOL_CALLS]search.web[CALL_ID]call00001[ARGS]{"query": "tea", '
                '"top": 3}'
            ),
            "nested": (
                '[TOOL_CALLS]f[CALL_ID]call00000[ARGS]{"o": {"a": [1, -2.5, {"b": '
                'null}], "c": true}, "e": [], "s": {}}'
            ),
            "quotes": (
                '[TOOL_CALLS]f[CALL_ID]call00000[ARGS]{"s": "He said \\"no\\", '
                "it's\\n(fine)\\t\\\\ [x] {y}\"}"
            ),
            "scripts": '[TOOL_CALLS]f[CALL_ID]call00000[ARGS]{"s": "Łódź 漢字 🙂 \u2028 é"}',
            "empty": "[TOOL_CALLS]f[CALL_ID]call00000[ARGS]{}",
            "marks": (
                '[TOOL_CALLS]f[CALL_ID]call00000[ARGS]{"s": "[/TOOL_CALL] [TOOL_CALL] '
                '</tool_call> <tool_call> <|im_end|> </think>"}'
            ),
            "beside": (
                "Let me see.\n\nI compute:[TOOL_CALLS]calculator[CALL_ID]call00000[ARGS"
                ']{"expression": "2 + 2"}'
            ),
            "answer": "It is 4.",
        },
        (
            ("[TOOL_CALLS]f[CALL_ID]x[ARGS]{}", OK, (("f", {}),), None),
            ("[TOOL_CALLS]f[ARGS]{}", X, (), None),
            ("[TOOL_CALLS]f[CALL_ID]x[ARGS]{} and", T, (("f", {}),), "and"),
            ('ok [TOOL_CALLS]f[CALL_ID]x[ARGS]{"a": 1}', OK, (("f", {"a": 1}),), "ok"),
            ('[TOOL_CALLS]f[CALL_ID]x[ARGS]{"a": ', U, (), None),
            ("[TOOL_CALLS]f[CALL_ID]x[ARGS]{a: 1}", N, (), None),
            ("[TOOL_CALLS][CALL_ID]x[ARGS]{}", X, (), None),
            ("[TOOL_CALLS]f[CALL_ID]x[ARGS][1]", A, (), None),
            ("[TOOL_CALLS]get_wea", U, (), None),
            (
                "[TOOL_CALLS]f[CALL_ID]x[ARGS]{a[TOOL_CALLS]g[CALL_ID]y[ARGS]{}",
                N,
                (("g", {}),),
                None,
            ),
            ("[TOOL_CALLS] says [TOOL_CALLS]g[CALL_ID]y[ARGS]{}", X, (("g", {}),), None),
        ),
    ),
    "name in the tag": Form(
        DelimitedSyntax(
            DelimitedFormat("<function=", "</function>", ">", "</function><function="), NamedJson()
        ),
        {
            "one": '<function=calculator>{"expression": "2 + 2"}</function>',
            "two": (
                '<function=calculator>{"expression": "2*3"}</function><function=search.'
                'web>{"query": "tea", "top": 3}</function>'
            ),
            "nested": (
                '<function=f>{"o": {"a": [1, -2.5, {"b": null}], "c": true}, "e": [], '
                '"s": {}}</function>'
            ),
            "quotes": (
                '<function=f>{"s": "He said \\"no\\", it\'s\\n(fine)\\t\\\\ [x] {y}"}</function>'
            ),
            "scripts": '<function=f>{"s": "Łódź 漢字 🙂 \u2028 é"}</function>',
            "empty": "<function=f>{}</function>",
            "marks": (
                '<function=f>{"s": "[/TOOL_CALL] [TOOL_CALL] </tool_call> <tool_call> '
                '<|im_end|> </think>"}</function>'
            ),
            "beside": (
                'Let me see.\n\nI compute:<function=calculator>{"expression": "2 + 2"}</function>'
            ),
            "answer": "It is 4.",
        },
        (
            ("<function=f>{}</function>", OK, (("f", {}),), None),
            ('<function = f > {"a": 1} </function>', S, (), '<function = f > {"a": 1} </function>'),
            ("a<function=f>{}</function>b", OK, (("f", {}),), "a\nb"),
            ('<function=f>{"a": 1', U, (), None),
            ('<function=f>{"a": 1}', U, (("f", {"a": 1}),), None),
            ("<function=f>{}</function></function>", S, (("f", {}),), "</function>"),
            ("x</function>", S, (), "x</function>"),
            ("<function=f>{a: 1}</function>", N, (), None),
            ("<function=>{}</function>", X, (), None),
            ("<function=f>[1]</function>", A, (), None),
            ("<function=f", U, (), None),
            ('<function=f>"{\\"a\\": 1}"</function>', OK, (("f", {"a": 1}),), None),
            ("<function=f>{} so</function>", N, (), None),
            ('<function=f>{"a": 1<function=g>{}</function>', U, (("g", {}),), None),
        ),
    ),
    "name behind arrows": Form(
        DelimitedSyntax(DelimitedFormat("", "", "\n", ">>>", "all\n"), NamedJson()),
        {
            "one": 'calculator\n{"expression": "2 + 2"}',
            "two": 'calculator\n{"expression": "2*3"}>>>search.web\n{"query": "tea", "top": 3}',
            "nested": 'f\n{"o": {"a": [1, -2.5, {"b": null}], "c": true}, "e": [], "s": {}}',
            "quotes": 'f\n{"s": "He said \\"no\\", it\'s\\n(fine)\\t\\\\ [x] {y}"}',
            "scripts": 'f\n{"s": "Łódź 漢字 🙂 \u2028 é"}',
            "empty": "f\n{}",
            "marks": (
                'f\n{"s": "[/TOOL_CALL] [TOOL_CALL] </tool_call> <tool_call> <|im_end|> </think>"}'
            ),
            "beside": 'all\nLet me see.\n\nI compute:>>>calculator\n{"expression": "2 + 2"}',
            "answer": "all\nIt is 4.",
        },
        (
            ("f\n{}", OK, (("f", {}),), None),
            ("all\nHi.", OK, (), "Hi."),
            ("all\nHi.>>>f\n{}", OK, (("f", {}),), "Hi."),
            ('f\n{"a": 1', U, (), None),
            ("f\n{a: 1}", N, (), None),
            ("Hi there.", X, (), None),
            ("f\n[1]", X, (), None),
            ("f\n{}>>>g\n{}", OK, (("f", {}), ("g", {})), None),
            ("f\n{} so", T, (("f", {}),), "so"),
            ("\n{}", X, (), None),
            ("all\n", OK, (), ""),
            (">>>f\n{}", X, (("f", {}),), None),
            (">>> >>> ", X, (), None),
            ("all\na >>> b", X, (), "a"),
        ),
    ),
    "name in the header": Form(
        DelimitedSyntax(
            DelimitedFormat(
                " to=functions.",
                "",
                "<|channel|>commentary json<|message|>",
                None,
                "<|channel|>final<|message|>",
            ),
            NamedJson(),
        ),
        {
            "one": (
                " to=functions.calculator<|channel|>commentary "
                'json<|message|>{"expression": "2 + 2"}'
            ),
            "two": (
                " to=functions.calculator<|channel|>commentary "
                'json<|message|>{"expression": "2*3"} '
                'to=functions.search.web<|channel|>commentary json<|message|>{"query": '
                '"tea", "top": 3}'
            ),
            "nested": (
                ' to=functions.f<|channel|>commentary json<|message|>{"o": {"a": [1, '
                '-2.5, {"b": null}], "c": true}, "e": [], "s": {}}'
            ),
            "quotes": (
                ' to=functions.f<|channel|>commentary json<|message|>{"s": "He said '
                '\\"no\\", it\'s\\n(fine)\\t\\\\ [x] {y}"}'
            ),
            "scripts": (
                ' to=functions.f<|channel|>commentary json<|message|>{"s": "Łódź 漢字 🙂 \u2028 é"}'
            ),
            "empty": " to=functions.f<|channel|>commentary json<|message|>{}",
            "marks": (
                ' to=functions.f<|channel|>commentary json<|message|>{"s": '
                '"[/TOOL_CALL] [TOOL_CALL] </tool_call> <tool_call> <|im_end|> '
                '</think>"}'
            ),
            "beside": (
                "Let me see.\n\nI compute: to=functions.calculator<|channel|>commentary"
                ' json<|message|>{"expression": "2 + 2"}'
            ),
            "answer": "<|channel|>final<|message|>It is 4.",
        },
        (
            (" to=functions.f<|channel|>commentary json<|message|>{}", OK, (("f", {}),), None),
            ('to=functions.f<|channel|>commentary json<|message|>{"a"', U, (), None),
            (" to=functions.f<|channel|>commentary <|constrain|>text<|message|>{}", X, (), None),
            ("<|channel|>final<|message|>Hi.", OK, (), "Hi."),
            ("Hi. to=functions.f", U, (), "Hi."),
            ("<|channel|>final<|message|>Hi to=functions.x", U, (), "Hi"),
        ),
    ),
    "name and fence": Form(
        DelimitedSyntax(
            DelimitedFormat(
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
                "\n```json\n",
                "\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
            ),
            NamedJson(),
        ),
        {
            "one": (
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>calculator"
                '\n```json\n{"expression": "2 + 2"}\n```<｜tool▁call▁end｜><｜tool▁calls▁e'
                "nd｜>"
            ),
            "two": (
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>calculator"
                '\n```json\n{"expression": "2*3"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁be'
                'gin｜>function<｜tool▁sep｜>search.web\n```json\n{"query": "tea", "top": '
                "3}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
            ),
            "nested": (
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json"
                '\n{"o": {"a": [1, -2.5, {"b": null}], "c": true}, "e": [], "s": '
                "{}}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
            ),
            "quotes": (
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json"
                '\n{"s": "He said \\"no\\", it\'s\\n(fine)\\t\\\\ [x] '
                '{y}"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
            ),
            "scripts": (
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json"
                '\n{"s": "Łódź 漢字 🙂 \u2028 é"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
            ),
            "empty": (
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json"
                "\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
            ),
            "marks": (
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json"
                '\n{"s": "[/TOOL_CALL] [TOOL_CALL] </tool_call> <tool_call> <|im_end|> '
                '</think>"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
            ),
            "beside": (
                "Let me see.\n\nI compute:<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>functi"
                'on<｜tool▁sep｜>calculator\n```json\n{"expression": "2 + '
                '2"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
            ),
            "answer": "It is 4.",
        },
        (
            (
                (
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```jso"
                    "n\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
                ),
                OK,
                (("f", {}),),
                None,
            ),
            (
                (
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```jso"
                    "n\n{}\n```<｜tool▁call▁end｜>"
                ),
                U,
                (("f", {}),),
                None,
            ),
            (
                (
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```jso"
                    "n\n{a}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
                ),
                N,
                (),
                None,
            ),
            (
                (
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n{}<｜to"
                    "ol▁call▁end｜><｜tool▁calls▁end｜>"
                ),
                U,
                (),
                None,
            ),
            ("so<｜tool▁calls▁end｜>", S, (), "so<｜tool▁calls▁end｜>"),
            (
                (
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```jso"
                    'n\n{"a": "```"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
                ),
                OK,
                (("f", {"a": "```"}),),
                None,
            ),
        ),
    ),
    "name as key": Form(
        DelimitedSyntax(DelimitedFormat("<|tools_prefix|>", "<|tools_suffix|>"), NameAsKey()),
        {
            "one": '<|tools_prefix|>[{"calculator": {"expression": "2 + 2"}}]<|tools_suffix|>',
            "two": (
                '<|tools_prefix|>[{"calculator": {"expression": "2*3"}}, '
                '{"search.web": {"query": "tea", "top": 3}}]<|tools_suffix|>'
            ),
            "nested": (
                '<|tools_prefix|>[{"f": {"o": {"a": [1, -2.5, {"b": null}], "c": '
                'true}, "e": [], "s": {}}}]<|tools_suffix|>'
            ),
            "quotes": (
                '<|tools_prefix|>[{"f": {"s": "He said \\"no\\", it\'s\\n(fine)\\t\\\\ '
                '[x] {y}"}}]<|tools_suffix|>'
            ),
            "scripts": '<|tools_prefix|>[{"f": {"s": "Łódź 漢字 🙂 \u2028 é"}}]<|tools_suffix|>',
            "empty": '<|tools_prefix|>[{"f": {}}]<|tools_suffix|>',
            "marks": (
                '<|tools_prefix|>[{"f": {"s": "[/TOOL_CALL] [TOOL_CALL] </tool_call> '
                '<tool_call> <|im_end|> </think>"}}]<|tools_suffix|>'
            ),
            "beside": (
                'Let me see.\n\nI compute:<|tools_prefix|>[{"calculator": '
                '{"expression": "2 + 2"}}]<|tools_suffix|>'
            ),
            "answer": "It is 4.",
        },
        (
            (
                '<|tools_prefix|>{"f": {}, "g": {"a": 1}}<|tools_suffix|>',
                OK,
                (("f", {}), ("g", {"a": 1})),
                None,
            ),
            ('<|tools_prefix|>[{"f": [1]}]<|tools_suffix|>', A, (), None),
            ('<|tools_prefix|>[{"f": {}}, {"g": 3}]<|tools_suffix|>', A, (("f", {}),), None),
            ("<|tools_prefix|>[]<|tools_suffix|>", X, (), None),
            ("<|tools_prefix|>[1]<|tools_suffix|>", X, (), None),
            ('<|tools_prefix|>[{"f": {', U, (), None),
            ('<|tools_prefix|>[{"f": {}}]', U, (("f", {}),), None),
            ("<|tools_prefix|>[{f: {}}]<|tools_suffix|>", N, (), None),
            ("a<|tools_suffix|>", S, (), "a<|tools_suffix|>"),
            ("<|tools_prefix|>[{}]<|tools_suffix|>", X, (), None),
        ),
    ),
    "xml": Form(
        DelimitedSyntax(
            DelimitedFormat(
                "<tool_call>\n<function=",
                "</function>\n</tool_call>",
                ">\n",
                "</function>\n</tool_call>\n<tool_call>\n<function=",
            ),
            Parameters("<parameter=", ">\n", "\n</parameter>\n"),
        ),
        {
            "one": (
                "<tool_call>\n<function=calculator>\n<parameter=expression>\n2 + "
                "2\n</parameter>\n</function>\n</tool_call>"
            ),
            "two": (
                "<tool_call>\n<function=calculator>\n<parameter=expression>\n2*3\n</par"
                "ameter>\n</function>\n</tool_call>\n<tool_call>\n<function=search.web>"
                "\n<parameter=query>\ntea\n</parameter>\n<parameter=top>\n3\n</paramete"
                "r>\n</function>\n</tool_call>"
            ),
            "nested": (
                '<tool_call>\n<function=f>\n<parameter=o>\n{"a": [1, -2.5, {"b": '
                'null}], "c": true}\n</parameter>\n<parameter=e>\n[]\n</parameter>\n<pa'
                "rameter=s>\n{}\n</parameter>\n</function>\n</tool_call>"
            ),
            "quotes": (
                '<tool_call>\n<function=f>\n<parameter=s>\nHe said "no", '
                "it's\n(fine)\t\\ [x] {y}\n</parameter>\n</function>\n</tool_call>"
            ),
            "scripts": (
                "<tool_call>\n<function=f>\n<parameter=s>\nŁódź 漢字 🙂 \u2028 "
                "é\n</parameter>\n</function>\n</tool_call>"
            ),
            "empty": "<tool_call>\n<function=f>\n</function>\n</tool_call>",
            "marks": (
                "<tool_call>\n<function=f>\n<parameter=s>\n[/TOOL_CALL] [TOOL_CALL] "
                "</tool_call> <tool_call> <|im_end|> </think>\n</parameter>\n</function"
                ">\n</tool_call>"
            ),
            "beside": (
                "Let me see.\n\nI compute:\n\n<tool_call>\n<function=calculator>\n<para"
                "meter=expression>\n2 + 2\n</parameter>\n</function>\n</tool_call>"
            ),
            "answer": "It is 4.",
        },
        (
            ("<tool_call>\n<function=f>\n</function>\n</tool_call>", OK, (("f", {}),), None),
            (
                "<tool_call><function=f><parameter=a>1</parameter></function></tool_call>",
                OK,
                (("f", {"a": 1}),),
                None,
            ),
            (
                (
                    "<tool_call>\n<function=f>\n<parameter=a>\n\n x "
                    "\n\n</parameter>\n</function>\n</tool_call>"
                ),
                OK,
                (("f", {"a": "\n x \n"}),),
                None,
            ),
            (
                (
                    "<tool_call>\n<function=f>\n<parameter=a>\n</parameter> "
                    "<b>\n</parameter>\n</function>\n</tool_call>"
                ),
                OK,
                (("f", {"a": "</parameter> <b>"}),),
                None,
            ),
            (
                "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>",
                U,
                (("f", {"a": 1}),),
                None,
            ),
            ("<tool_call>\n<function=f>\n<parameter=a>\n1", U, (), None),
            ("<tool_call>\n<function=f>\n<parameter=a", U, (), None),
            (
                (
                    "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<paramete"
                    "r=a>\n2\n</parameter>\n</function>\n</tool_call>"
                ),
                A,
                (),
                None,
            ),
            ("<tool_call>\n<function=>\n</function>\n</tool_call>", X, (), None),
            (
                '<tool_call>\n{"name": "f"}\n</tool_call>',
                X,
                (),
                '<tool_call>\n{"name": "f"}\n</tool_call>',
            ),
            ("a\n</function>\n</tool_call>", S, (), "a\n</function>\n</tool_call>"),
            (
                (
                    "<tool_call>\n<function=calculator>\n<parameter=expression>\n12\n</pa"
                    "rameter>\n</function>\n</tool_call>"
                ),
                OK,
                (("calculator", {"expression": "12"}),),
                None,
            ),
            (
                (
                    "<tool_call>\n<function=search.web>\n<parameter=top>\nthree\n</parame"
                    "ter>\n</function>\n</tool_call>"
                ),
                OK,
                (("search.web", {"top": "three"}),),
                None,
            ),
            (
                "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</tool_call>",
                U,
                (("f", {"a": 1}),),
                None,
            ),
            (
                (
                    "<tool_call>\n<function=f>\n<parameter=a>\n1\n<tool_call>\n<function="
                    "g>\n</function>\n</tool_call>"
                ),
                U,
                (),
                None,
            ),
            (
                "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>so</function>\n</tool_call>\n"
                "<tool_call>\n<function=g>\n<parameter=b>\n2\n</parameter>\n</function>\n</tool_call>",
                N,
                (("g", {"b": 2}),),
                None,
            ),
            ("a <tool_call> b", X, (), "a <tool_call> b"),
        ),
    ),
    "keys and values": Form(
        DelimitedSyntax(
            DelimitedFormat("<tool_call>", "</tool_call>", "\n", "</tool_call>\n<tool_call>"),
            Parameters("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
        ),
        {
            "one": (
                "<tool_call>calculator\n<arg_key>expression</arg_key>\n<arg_value>2 + "
                "2</arg_value>\n</tool_call>"
            ),
            "two": (
                "<tool_call>calculator\n<arg_key>expression</arg_key>\n<arg_value>2*3</"
                "arg_value>\n</tool_call>\n<tool_call>search.web\n<arg_key>query</arg_k"
                "ey>\n<arg_value>tea</arg_value>\n<arg_key>top</arg_key>\n<arg_value>3<"
                "/arg_value>\n</tool_call>"
            ),
            "nested": (
                '<tool_call>f\n<arg_key>o</arg_key>\n<arg_value>{"a": [1, -2.5, {"b": '
                'null}], "c": true}</arg_value>\n<arg_key>e</arg_key>\n<arg_value>[]</a'
                "rg_value>\n<arg_key>s</arg_key>\n<arg_value>{}</arg_value>\n</tool_cal"
                "l>"
            ),
            "quotes": (
                '<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>He said "no", '
                "it's\n(fine)\t\\ [x] {y}</arg_value>\n</tool_call>"
            ),
            "scripts": (
                "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>Łódź 漢字 🙂 \u2028 "
                "é</arg_value>\n</tool_call>"
            ),
            "empty": "<tool_call>f\n</tool_call>",
            "marks": (
                "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>[/TOOL_CALL] "
                "[TOOL_CALL] </tool_call> <tool_call> <|im_end|> "
                "</think></arg_value>\n</tool_call>"
            ),
            "beside": (
                "Let me see.\n\nI compute:\n<tool_call>calculator\n<arg_key>expression<"
                "/arg_key>\n<arg_value>2 + 2</arg_value>\n</tool_call>"
            ),
            "answer": "It is 4.",
        },
        (
            ("<tool_call>f\n</tool_call>", OK, (("f", {}),), None),
            ("<tool_call>f</tool_call>", OK, (("f", {}),), None),
            (
                "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
                OK,
                (("f", {"a": 1}),),
                None,
            ),
            (
                "<tool_call>f<arg_key>a</arg_key><arg_value>\n1</arg_value></tool_call>",
                OK,
                (("f", {"a": 1}),),
                None,
            ),
            (
                (
                    "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x</arg_value> "
                    "y</arg_value>\n</tool_call>"
                ),
                OK,
                (("f", {"a": "x</arg_value> y"}),),
                None,
            ),
            ("<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>", U, (), None),
            ("<tool_call>f\n<arg_key>a</arg_key>\n<arg_va", U, (), None),
            ("<tool_call>f\n<arg_value>1</arg_value>\n</tool_call>", N, (), None),
            (
                "<tool_call>\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
                X,
                (),
                None,
            ),
            ("x</tool_call>", S, (), "x</tool_call>"),
            (
                (
                    "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_k"
                    "ey>a</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"
                ),
                A,
                (),
                None,
            ),
            ("<tool_call>", U, (), None),
        ),
    ),
    "escaped one by one": Form(
        DelimitedSyntax(
            DelimitedFormat(
                "<start_function_call>call:",
                "}<end_function_call>",
                "{",
                "}<end_function_call><start_function_call>call:",
            ),
            Parameters("", ":<escape>", "<escape>", ","),
        ),
        {
            "one": (
                "<start_function_call>call:calculator{expression:<escape>2 + "
                "2<escape>}<end_function_call>"
            ),
            "two": (
                "<start_function_call>call:calculator{expression:<escape>2*3<escape>}<e"
                "nd_function_call><start_function_call>call:search.web{query:<escape>te"
                "a<escape>,top:<escape>3<escape>}<end_function_call>"
            ),
            "nested": (
                "<start_function_call>call:f{o:<escape>{'a': [1, -2.5, {'b': None}], "
                "'c': True}<escape>,e:<escape>[]<escape>,s:<escape>{}<escape>}<end_func"
                "tion_call>"
            ),
            "quotes": (
                '<start_function_call>call:f{s:<escape>He said "no", it\'s\n(fine)\t\\ '
                "[x] {y}<escape>}<end_function_call>"
            ),
            "scripts": (
                "<start_function_call>call:f{s:<escape>Łódź 漢字 🙂 \u2028 "
                "é<escape>}<end_function_call>"
            ),
            "empty": "<start_function_call>call:f{}<end_function_call>",
            "marks": (
                "<start_function_call>call:f{s:<escape>[/TOOL_CALL] [TOOL_CALL] "
                "</tool_call> <tool_call> <|im_end|> </think><escape>}<end_function_cal"
                "l>"
            ),
            "beside": (
                "Let me see.\n\nI compute:<start_function_call>call:calculator{expressi"
                "on:<escape>2 + 2<escape>}<end_function_call>"
            ),
            "answer": "It is 4.",
        },
        (
            ("<start_function_call>call:f{}<end_function_call>", OK, (("f", {}),), None),
            (
                (
                    "<start_function_call>call:f{a:<escape>1<escape>,b:<escape>[True, "
                    "'x']<escape>}<end_function_call>"
                ),
                OK,
                (("f", {"a": 1, "b": [True, "x"]}),),
                None,
            ),
            (
                "<start_function_call>call:f{a:<escape>x<escape>y<escape>}<end_function_call>",
                OK,
                (("f", {"a": "x<escape>y"}),),
                None,
            ),
            ("<start_function_call>call:f{a:<escape>x<escape>", U, (), None),
            ("<start_function_call>call:f{a:<escape>x", U, (), None),
            ("<start_function_call>call:f{a:1}<end_function_call>", N, (), None),
            ("<start_function_call>call:{a:<escape>1<escape>}<end_function_call>", X, (), None),
            ("so<end_function_call>", S, (), "so<end_function_call>"),
            (
                "<start_function_call>f{}<end_function_call>",
                X,
                (),
                "<start_function_call>f{}<end_function_call>",
            ),
            (
                (
                    "<start_function_call>call:f{a:<escape>1<escape>,a:<escape>2<escape>}"
                    "<end_function_call>"
                ),
                A,
                (),
                None,
            ),
        ),
    ),
    "texts in marks": Form(
        DelimitedSyntax(
            DelimitedFormat(
                "<|tool_call>call:", "<tool_call|>", "", "<tool_call|><|tool_call>call:"
            ),
            LooseObject('<|"|>', '<|"|>'),
        ),
        {
            "one": '<|tool_call>call:calculator{expression:<|"|>2 + 2<|"|>}<tool_call|>',
            "two": (
                '<|tool_call>call:calculator{expression:<|"|>2*3<|"|>}<tool_call|><|too'
                'l_call>call:search.web{query:<|"|>tea<|"|>,top:3}<tool_call|>'
            ),
            "nested": "<|tool_call>call:f{o:{a:[1,-2.5,{b:null}],c:true},e:[],s:{}}<tool_call|>",
            "quotes": (
                '<|tool_call>call:f{s:<|"|>He said "no", it\'s\n(fine)\t\\ [x] '
                '{y}<|"|>}<tool_call|>'
            ),
            "scripts": '<|tool_call>call:f{s:<|"|>Łódź 漢字 🙂 \u2028 é<|"|>}<tool_call|>',
            "empty": "<|tool_call>call:f{}<tool_call|>",
            "marks": (
                '<|tool_call>call:f{s:<|"|>[/TOOL_CALL] [TOOL_CALL] </tool_call> '
                '<tool_call> <|im_end|> </think><|"|>}<tool_call|>'
            ),
            "beside": (
                'Let me see.\n\nI compute:<|tool_call>call:calculator{expression:<|"|>2'
                ' + 2<|"|>}<tool_call|>'
            ),
            "answer": "It is 4.",
        },
        (
            ("<|tool_call>call:f{}<tool_call|>", OK, (("f", {}),), None),
            (
                '<|tool_call>call:f{a: [1, True, None] , "b":<|"|>x<|"|>}<tool_call|>',
                OK,
                (("f", {"a": [1, True, None], '"b"': "x"}),),
                None,
            ),
            ("<|tool_call>call:f{a:b:1}<tool_call|>", OK, (("f", {"a:b": 1}),), None),
            (
                '<|tool_call>call:f{a:<|"|>x<|"|>y<|"|>}<tool_call|>',
                OK,
                (("f", {"a": 'x<|"|>y'}),),
                None,
            ),
            ('<|tool_call>call:f{<|"|>a<|"|>:1}<tool_call|>', OK, (("f", {"a": 1}),), None),
            ('<|tool_call>call:f{a:<|"|>x', U, (), None),
            ("<|tool_call>call:f{a:1}", U, (("f", {"a": 1}),), None),
            ("<|tool_call>call:f{a:1,", U, (), None),
            ("<|tool_call>call:f{a:x}<tool_call|>", N, (), None),
            ("<|tool_call>call:f{a:1,a:2}<tool_call|>", A, (), None),
            ("<|tool_call>call:f[1]<tool_call|>", X, (), None),
            ("<|tool_call>call:{}<tool_call|>", X, (), None),
            ("x<tool_call|>", S, (), "x<tool_call|>"),
            ("<|tool_call>call:f{a:1 b:2}<tool_call|>", N, (), None),
            ("<|tool_call>call:f{a:x}<|tool_call>call:g{}<tool_call|>", U, (("g", {}),), None),
        ),
    ),
    "python": Form(
        DelimitedSyntax(
            DelimitedFormat("<|tool_call_start|>[", "]<|tool_call_end|>", "", ", "), PythonCalls()
        ),
        {
            "one": "<|tool_call_start|>[calculator(expression='2 + 2')]<|tool_call_end|>",
            "two": (
                "<|tool_call_start|>[calculator(expression='2*3'), "
                "search.web(query='tea', top=3)]<|tool_call_end|>"
            ),
            "nested": (
                "<|tool_call_start|>[f(o={'a': [1, -2.5, {'b': None}], 'c': True}, "
                "e=[], s={})]<|tool_call_end|>"
            ),
            "quotes": (
                "<|tool_call_start|>[f(s='He said \"no\", it\\'s\\n(fine)\\t\\\\ [x] "
                "{y}')]<|tool_call_end|>"
            ),
            "scripts": "<|tool_call_start|>[f(s='Łódź 漢字 🙂 \\u2028 é')]<|tool_call_end|>",
            "empty": "<|tool_call_start|>[f()]<|tool_call_end|>",
            "marks": (
                "<|tool_call_start|>[f(s='[/TOOL_CALL] [TOOL_CALL] </tool_call> "
                "<tool_call> <|im_end|> </think>')]<|tool_call_end|>"
            ),
            "beside": (
                "Let me see.\n\nI compute:<|tool_call_start|>[calculator(expression='2 "
                "+ 2')]<|tool_call_end|>"
            ),
            "answer": "It is 4.",
        },
        (
            ("<|tool_call_start|>[f()]<|tool_call_end|>", OK, (("f", {}),), None),
            (
                '<|tool_call_start|>[f(a=1), g(b="x")]<|tool_call_end|>',
                OK,
                (("f", {"a": 1}), ("g", {"b": "x"})),
                None,
            ),
            (
                "<|tool_call_start|>[ f( a = 1 ) , g() ] <|tool_call_end|>",
                OK,
                (("f", {"a": 1}), ("g", {})),
                None,
            ),
            (
                "<|tool_call_start|>[f(a-b=1, it's=2)]<|tool_call_end|>",
                OK,
                (("f", {"a-b": 1, "it's": 2}),),
                None,
            ),
            (
                '<|tool_call_start|>[f(**{"a b": 1})]<|tool_call_end|>',
                OK,
                (("f", {"a b": 1}),),
                None,
            ),
            ("<|tool_call_start|>[f(a=1)]", U, (("f", {"a": 1}),), None),
            ("<|tool_call_start|>[f(a=1", U, (), None),
            ("<|tool_call_start|>[f(a='x", U, (), None),
            ("<|tool_call_start|>[f(a=x)]<|tool_call_end|>", N, (), None),
            ("<|tool_call_start|>[f(1)]<|tool_call_end|>", A, (), None),
            ("<|tool_call_start|>[f(a=1, a=2)]<|tool_call_end|>", A, (), None),
            ("<|tool_call_start|>[(a=1)]<|tool_call_end|>", X, (), None),
            (
                "<|tool_call_start|>f(a=1)<|tool_call_end|>",
                X,
                (),
                "<|tool_call_start|>f(a=1)<|tool_call_end|>",
            ),
            ("x]<|tool_call_end|>", S, (), "x]<|tool_call_end|>"),
            ("<|tool_call_start|>[f(a=1) so]<|tool_call_end|>", N, (), None),
            (
                "<|tool_call_start|>[f(a=1]<|tool_call_start|>[g()]<|tool_call_end|>",
                U,
                (("g", {}),),
                None,
            ),
            ("a <|tool_call_start|>[f()]<|tool_call_end|> b", OK, (("f", {}),), "a\nb"),
        ),
    ),
    "python, bare quotes": Form(
        DelimitedSyntax(DelimitedFormat("[", "]", "", ", "), PythonCalls("'")),
        {
            "one": "[calculator(expression='2 + 2')]",
            "two": "[calculator(expression='2*3'), search.web(query='tea', top=3)]",
            "nested": '[f(o={"a": [1, -2.5, {"b": null}], "c": true}, e=[], s={})]',
            "quotes": "[f(s='He said \"no\", it's\n(fine)\t\\ [x] {y}')]",
            "scripts": "[f(s='Łódź 漢字 🙂 \u2028 é')]",
            "empty": "[f()]",
            "marks": (
                "[f(s='[/TOOL_CALL] [TOOL_CALL] </tool_call> <tool_call> <|im_end|> </think>')]"
            ),
            "beside": "Let me see.\n\nI compute:\n[calculator(expression='2 + 2')]",
            "answer": "It is 4.",
        },
        (
            ("[f(a='it's')]", OK, (("f", {"a": "it's"}),), None),
            ("[f(a='x, b=', b='(')]", OK, (("f", {"a": "x, b=", "b": "("}),), None),
            ("[f(a='x\\n', b=\"y\\n\")]", OK, (("f", {"a": "x\\n", "b": "y\n"}),), None),
            ("[f(a='x')] so", OK, (("f", {"a": "x"}),), "so"),
            ("[1] says", OK, (), "[1] says"),
            ("[see] this", OK, (), "[see] this"),
            ("So [f(a=1)]", OK, (("f", {"a": 1}),), "So"),
            ("[f(a=x)]", N, (), None),
            ("[f(a='x", U, (), None),
            ("[f(a=1)\n", U, (("f", {"a": 1}),), None),
            ("[f(a='x') = 3]", N, (), None),
        ),
    ),
    "values as literals": Form(
        DelimitedSyntax(
            DelimitedFormat("~~>", ")<~~", "(", ")<~~~~>"),
            Parameters("", " -> ", "", " & ", literal=True),
        ),
        {
            "one": '~~>calculator(expression -> "2 + 2")<~~',
            "two": (
                '~~>calculator(expression -> "2*3")<~~~~>search.web(query -> "tea" & top -> 3)<~~'
            ),
            "nested": '~~>f(o -> {"a": [1, -2.5, {"b": null}], "c": true} & e -> [] & s -> {})<~~',
            "quotes": '~~>f(s -> "He said \\"no\\", it\'s\\n(fine)\\t\\\\ [x] {y}")<~~',
            "scripts": '~~>f(s -> "Łódź 漢字 🙂 \u2028 é")<~~',
            "empty": "~~>f()<~~",
            "marks": (
                '~~>f(s -> "[/TOOL_CALL] [TOOL_CALL] </tool_call> <tool_call> '
                '<|im_end|> </think>")<~~'
            ),
            "beside": 'Let me see.\n\nI compute:~~>calculator(expression -> "2 + 2")<~~',
            "answer": "It is 4.",
        },
        (
            ("~~>f()<~~", OK, (("f", {}),), None),
            ("~~>f(a -> 1 & b -> 'x')<~~", OK, (("f", {"a": 1, "b": "x"}),), None),
            ('~~>f(a -> "x & y -> z")<~~', OK, (("f", {"a": "x & y -> z"}),), None),
            ('~~>f(a -> "1")<~~', OK, (("f", {"a": "1"}),), None),
            ("~~>f(a -> x)<~~", N, (), None),
            ("~~>f(a -> 1", U, (), None),
            ("~~>f(a -> 1)", U, (("f", {"a": 1}),), None),
            ("~~>(a -> 1)<~~", X, (), None),
            ("x)<~~", S, (), "x)<~~"),
            ("~~>f(a -> 1 & a -> 2)<~~", A, (), None),
            ("~~>f(a)<~~", N, (), None),
        ),
    ),
    "object first": Form(
        DelimitedSyntax(DelimitedFormat("<<", ">>", " => ", "; "), NamedJson(name_first=False)),
        {
            "one": '<<{"expression": "2 + 2"} => calculator>>',
            "two": (
                '<<{"expression": "2*3"} => calculator; {"query": "tea", "top": 3} => search.web>>'
            ),
            "nested": '<<{"o": {"a": [1, -2.5, {"b": null}], "c": true}, "e": [], "s": {}} => f>>',
            "quotes": '<<{"s": "He said \\"no\\", it\'s\\n(fine)\\t\\\\ [x] {y}"} => f>>',
            "scripts": '<<{"s": "Łódź 漢字 🙂 \u2028 é"} => f>>',
            "empty": "<<{} => f>>",
            "marks": (
                '<<{"s": "[/TOOL_CALL] [TOOL_CALL] </tool_call> <tool_call> <|im_end|> '
                '</think>"} => f>>'
            ),
            "beside": 'Let me see.\n\nI compute:<<{"expression": "2 + 2"} => calculator>>',
            "answer": "It is 4.",
        },
        (
            ("<<{} => f>>", OK, (("f", {}),), None),
            ('<<{"a": 1} => f; {} => g>>', OK, (("f", {"a": 1}), ("g", {})), None),
            ("<<{} => f", U, (), None),
            ("<<{} =>", U, (), None),
            ("<<{}", U, (), None),
            ('<<{"a": ', U, (), None),
            ("<<{a: 1} => f>>", N, (), None),
            ("<<[1] => f>>", OK, (), "<<[1] => f>>"),
            ("<<{} => >>", OK, (), "<<{} => >>"),
            ("<<{} f>>", OK, (), "<<{} f>>"),
            ("x << 3", OK, (), "x << 3"),
            ("x >> 3", OK, (), "x >> 3"),
            ("<<hello>>", OK, (), "<<hello>>"),
        ),
    ),
    "numbered": Form(
        DelimitedSyntax(
            DelimitedFormat(f"\n(call {NUMBER_SLOT}) ", "", "", f"\n(call {NUMBER_SLOT}) "),
            JsonCalls(),
        ),
        {
            "one": '\n(call 1) {"name": "calculator", "arguments": {"expression": "2 + 2"}}',
            "two": (
                '\n(call 1) {"name": "calculator", "arguments": {"expression": '
                '"2*3"}}\n(call 2) {"name": "search.web", "arguments": {"query": '
                '"tea", "top": 3}}'
            ),
            "nested": (
                '\n(call 1) {"name": "f", "arguments": {"o": {"a": [1, -2.5, {"b": '
                'null}], "c": true}, "e": [], "s": {}}}'
            ),
            "quotes": (
                '\n(call 1) {"name": "f", "arguments": {"s": "He said \\"no\\", '
                "it's\\n(fine)\\t\\\\ [x] {y}\"}}"
            ),
            "scripts": '\n(call 1) {"name": "f", "arguments": {"s": "Łódź 漢字 🙂 \u2028 é"}}',
            "empty": '\n(call 1) {"name": "f", "arguments": {}}',
            "marks": (
                '\n(call 1) {"name": "f", "arguments": {"s": "[/TOOL_CALL] [TOOL_CALL] '
                '</tool_call> <tool_call> <|im_end|> </think>"}}'
            ),
            "beside": (
                'Let me see.\n\nI compute:\n(call 1) {"name": "calculator", '
                '"arguments": {"expression": "2 + 2"}}'
            ),
            "answer": "It is 4.",
        },
        (
            ('(call 1) {"name": "f"}', OK, (("f", {}),), None),
            ('\n(call 1) {"name": "f"}\n(call 2) {"name": "g"}', OK, (("f", {}), ("g", {})), None),
            ('(call 1) {"name": "f"}\nso', T, (("f", {}),), "so"),
            ('(call x) {"name": "f"}', OK, (), '(call x) {"name": "f"}'),
            ('(call 1) {"name": "f", ', U, (), None),
            ('(call 1) {name: "f"}\n(call 2) {"name": "g"}', N, (("g", {}),), None),
            ("I (call 1) you", OK, (), "I (call 1) you"),
        ),
    ),
    "bare objects": Form(
        DelimitedSyntax(DelimitedFormat("", "", between="\n"), JsonCalls(("op",), ("in",))),
        {
            "one": '{"op": "calculator", "in": {"expression": "2 + 2"}}',
            "two": (
                '{"op": "calculator", "in": {"expression": "2*3"}}\n{"op": '
                '"search.web", "in": {"query": "tea", "top": 3}}'
            ),
            "empty": '{"op": "f", "in": {}}',
            "answer": "It is 4.",
        },
        (
            ('[{"op": "f"}, {"op": "g"}]', OK, (("f", {}), ("g", {})), None),
            ('{"op": "f"} so', T, (("f", {}),), "so"),
            ('{"op": "f", "in": {', U, (), None),
            ("{op: f}", N, (), None),
            ('{"in": {}}', OK, (), '{"in": {}}'),
            ("It {is} 4.", OK, (), "It {is} 4."),
        ),
    ),
}
