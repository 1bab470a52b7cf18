"""Runs bfcl-eval in its own environment; imports nothing of toolhone, which is not there.

    python -I bfcl_runner.py entries simple_python      # hinted entries with answers, JSON Lines
    python -I bfcl_runner.py evaluate NAME all|part CATEGORY...   # result files to score files
    python -I bfcl_runner.py simulate CATEGORY...       # {"id", "calls"} to {"results"}, by line

The environment names BFCL_PROJECT_ROOT, which the package must see before its first import.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
import types
from typing import Any

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def load(name: str) -> Any:
    """A module of bfcl-eval, with a registry of models in which no vendor's client is imported."""
    registry = "bfcl_eval.constants.model_config"
    if registry not in sys.modules:
        stub: Any = types.ModuleType(registry)
        stub.MODEL_CONFIG_MAPPING = {}
        sys.modules[registry] = stub
    return importlib.import_module(f"bfcl_eval.{name}")


def entries_of(category: str) -> list[dict[str, Any]]:
    """The entries of a category as a model gets them, each with its answer as `truth`."""
    utils = load("utils")
    entries = utils.load_dataset_entry(category)
    answers: dict[str, Any] = {}
    if "relevance" not in category:
        answers = {
            one["id"]: one["ground_truth"] for one in utils.load_ground_truth_entry(category)
        }
    return [{**entry, "truth": answers.get(entry["id"])} for entry in entries]


class Handler:
    """Reads the calls of our result files: `[{name: "arguments as JSON"}]`; a text is no call.

    `known`: names of functions that a simulation may call. The package evaluates what
    `decode_execute` returns as Python, so names and arguments are checked here once more.
    """

    known: frozenset[str] = frozenset()

    def __init__(self, **settings: Any) -> None:
        vars(self).update(settings)

    def decode_ast(self, result: Any, *_: Any, **__: Any) -> list[dict[str, Any]]:
        if not isinstance(result, list):
            raise ValueError("the reply holds no call")
        return [{name: json.loads(text) for name, text in call.items()} for call in result]

    def decode_execute(self, result: Any, *_: Any, **__: Any) -> list[str]:
        found = []
        for call in self.decode_ast(result):
            ((name, arguments),) = call.items()
            if name in self.known and all(IDENTIFIER.fullmatch(key) for key in arguments):
                found.append(f"{name}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})")
        return found


def function_names(categories: list[str]) -> frozenset[str]:
    """Names of all functions that the entries of these categories offer at any turn."""
    names = set()
    for category in categories:
        for entry in entries_of(category):
            held = [doc for docs in entry.get("missed_function", {}).values() for doc in docs]
            names |= {doc["name"] for doc in [*entry["function"], *held]}
    return frozenset(names)


def evaluate(name: str, partial: bool, categories: list[str]) -> None:
    """Score the result files of `name`, which must not contain an underscore."""
    registry = load("constants.model_config").MODEL_CONFIG_MAPPING if load("utils") else {}
    registry[name] = types.SimpleNamespace(
        model_name=name,
        display_name=name,
        url="-",
        org="-",
        license="-",
        model_handler=Handler,
        input_price=None,
        output_price=None,
        is_fc_model=True,
        underscore_to_dot=False,
    )
    multi_turn = [category for category in categories if category.startswith("multi_turn")]
    Handler.known = function_names(multi_turn)
    with contextlib.redirect_stdout(sys.stderr):
        load("eval_checker.eval_runner").main([name], categories, None, None, partial)


def simulate(categories: list[str]) -> None:
    """Answer each line of standard input; the state of an entry lives as long as the process."""
    run = load("eval_checker.multi_turn_eval.multi_turn_utils").execute_multi_turn_func_call
    entries = {entry["id"]: entry for category in categories for entry in entries_of(category)}
    handler = Handler(known=function_names(categories))
    for line in sys.stdin:
        request = json.loads(line)
        entry, calls = entries[request["id"]], handler.decode_execute(request["calls"])
        with contextlib.redirect_stdout(sys.stderr):
            results, _ = run(
                calls,
                entry.get("initial_config", {}),
                entry["involved_classes"],
                "toolhone",
                entry["id"],
                long_context="long_context" in entry["id"],
            )
        print(json.dumps({"results": [str(result) for result in results]}), flush=True)


def main() -> None:
    command, *words = sys.argv[1:]
    if command == "entries":
        for category in words:
            for entry in entries_of(category):
                print(json.dumps(entry))
    elif command == "evaluate":
        evaluate(words[0], words[1] == "part", words[2:])
    else:
        simulate(words)


if __name__ == "__main__":
    main()
