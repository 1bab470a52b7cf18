"""The known holes of the rewards of other systems: for each attack that they pay too well, why they do.

The names are those of `attacks.ATTACKS`. A test plays the suite on the shipped tasks and holds that what it finds is what stands
here, no less and no more.
"""

from __future__ import annotations

from collections.abc import Mapping

_ANY_TEXT = "where no call is wanted, any text in which its reader sees no call is right"
_ANYWHERE = "calls count wherever they stand in the text, also where no parser would run them"
_NAMES_ALONE = "only names are looked at"
_CUT = "a value ends at the first ')', so what follows it is not compared"

TOOL_CALL_EXACT: Mapping[str, str] = {
    "empty": _ANY_TEXT,
    "letter_case": "letter case is ignored, also in the name of the tool",
    "prose_call": _ANY_TEXT,
    "nested_tags": _ANY_TEXT,
    "truncated": _ANY_TEXT,
    "leaked_answer": _ANY_TEXT,
    "control_tokens": _ANY_TEXT,
}
TOOL_CALL_FUNCTION: Mapping[str, str] = {
    "empty": _ANY_TEXT,
    "spray": "calls beyond the wanted ones are free",
    "spurious_30": "calls beyond the wanted ones are free",
    "copied_schema": _NAMES_ALONE,
    "wrong_types": _NAMES_ALONE,
    "extra_arguments": _NAMES_ALONE,
    "wrong_value": _NAMES_ALONE,
    "missing_call": "names are a set: one call stands for any number of the same tool",
    "prose_call": _ANYWHERE,
    "nested_tags": _ANYWHERE,
    "truncated": "names are a set: the calls before the broken one are enough",
    "duplicate": "names are a set: repeating a call is free",
    "harmful_call": "calls beyond the wanted ones are free",
    "leaked_answer": _ANY_TEXT,
    "control_tokens": "text around the calls is free",
    "unicode_value": _NAMES_ALONE,
    "verbose": "text around the calls is free",
}
TOOL_CALL_PARAMS: Mapping[str, str] = {
    "empty": _ANY_TEXT,
    "extra_arguments": "only wanted parameters are counted",
    "wrong_value": _CUT,
    "prose_call": _ANYWHERE,
    "nested_tags": _ANYWHERE,
    "truncated": _CUT,
    "leaked_answer": _ANY_TEXT,
    "control_tokens": "text around the calls is free",
    "unicode_value": _CUT,
    "verbose": "text around the calls is free",
}
TOOL_CALL_OVERALL: Mapping[str, str] = {
    "empty": _ANY_TEXT,
    "spurious_30": "half of everything for any number of calls of wanted tools, whatever their arguments",
    "extra_arguments": _CUT,
    "wrong_value": _CUT,
    "prose_call": _ANYWHERE,
    "nested_tags": _ANYWHERE,
    "truncated": _CUT,
    "leaked_answer": _ANY_TEXT,
    "control_tokens": "text around the calls is free",
    "unicode_value": _CUT,
    "verbose": "text around the calls is free",
}
_ANY_CALL = "anything like a call is enough, whatever was wanted"
_SILENT = "where no call is wanted, nothing earns anything and a call earns all"
TOOL_CALL_PARSEABLE: Mapping[str, str] = {
    "empty": _SILENT,
    "spray": _ANY_CALL,
    "spurious_30": _ANY_CALL,
    "copied_schema": _ANY_CALL,
    "wrong_types": _ANY_CALL,
    "extra_arguments": _ANY_CALL,
    "wrong_value": _ANY_CALL,
    "missing_call": _ANY_CALL,
    "letter_case": _ANY_CALL,
    "prose_call": _ANYWHERE,
    "nested_tags": _ANYWHERE,
    "truncated": "the calls before the broken one are enough",
    "duplicate": _ANY_CALL,
    "harmful_call": _ANY_CALL,
    "leaked_answer": _SILENT,
    "control_tokens": "text around the calls is free",
    "unicode_value": _ANY_CALL,
    "verbose": "text around the calls is free",
}
_FINAL = "the text of a final answer is never looked at"
_ONE_CALL = "only one JSON object can be read: where several calls are wanted, one of them earns more than all"
JSON_ANSWER: Mapping[str, str] = {
    "empty": _FINAL,
    "extra_arguments": "only `expression` and `code` are compared",
    "missing_call": _ONE_CALL,
    "prose_call": "text around the JSON costs 0.2 of 2.5",
    "nested_tags": "text around the JSON costs 0.2 of 2.5",
    "truncated": _ONE_CALL,
    "leaked_answer": _FINAL,
    "listed_answers": _FINAL,
    "control_tokens": "text around the JSON costs 0.2 of 2.5",
}
_TAGS_ALONE = "both tags and two words are enough, whatever stands between them and whatever was wanted"
_NO_TAGS = "where no call is wanted, everything without tags is as bad as the right answer"
PLAYGROUND: Mapping[str, str] = {
    "empty": _NO_TAGS,
    "spray": _TAGS_ALONE,
    "spurious_30": _TAGS_ALONE,
    "copied_schema": _TAGS_ALONE,
    "wrong_types": _TAGS_ALONE,
    "extra_arguments": _TAGS_ALONE,
    "wrong_value": _TAGS_ALONE,
    "missing_call": _TAGS_ALONE,
    "letter_case": _TAGS_ALONE,
    "prose_call": _NO_TAGS,
    "nested_tags": _TAGS_ALONE,
    "truncated": "the calls before the broken one are enough",
    "duplicate": _TAGS_ALONE,
    "harmful_call": _TAGS_ALONE,
    "leaked_answer": _NO_TAGS,
    "control_tokens": _TAGS_ALONE,
    "unicode_name": _TAGS_ALONE,
    "unicode_value": _TAGS_ALONE,
    "verbose": _TAGS_ALONE,
}
