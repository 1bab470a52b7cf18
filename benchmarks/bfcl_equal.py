"""Compare our BFCL checker with the official one on perturbed right answers, output by output.

    python benchmarks/bfcl_equal.py --bfcl-python ENV/bin/python        # 21,846 outputs

Every single-turn entry of bfcl-eval gets its right answer and five answers with a random edit: a
value, a type, a name, a missing, extra or reordered argument or call. Prints both pass counts by
category, and each output on which the two disagree; exit code 1 when there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from toolhone.evaluation import bfcl_runner
from toolhone.evaluation.bfcl_checker import category_of, check_entry
from toolhone.evaluation.bfcl_official import SINGLE_TURN
from toolhone.schema import ToolCall

OFFICIAL = """
import json, sys
sys.path.insert(0, {folder!r})
import bfcl_runner as runner
from types import SimpleNamespace
registry = runner.load("constants.model_config").MODEL_CONFIG_MAPPING
registry["x"] = SimpleNamespace(underscore_to_dot=False)
check = runner.load("eval_checker.ast_eval.ast_checker").ast_checker
utils, Language = runner.load("utils"), runner.load("constants.enums").Language
raw, truth = {{}}, {{}}
for category in {categories!r}:
    for entry in utils.load_dataset_entry(category, include_language_specific_hint=False):
        raw[entry["id"]] = entry
    if "relevance" not in category:
        truth |= {{e["id"]: e["ground_truth"] for e in utils.load_ground_truth_entry(category)}}
if sys.argv[1] == "data":
    for name, entry in raw.items():
        print(json.dumps([entry, truth.get(name)]))
    sys.exit()
for line in open(sys.argv[1]):
    name, calls = json.loads(line)
    category = utils.extract_test_category_from_id(name)
    if "relevance" in category:
        print((not utils.is_empty_output(calls)) != ("irrelevance" in category))
        continue
    java = Language.JAVASCRIPT if "javascript" in category else Language.JAVA
    language = java if "java" in category else Language.PYTHON
    right = utils.is_function_calling_format_output(calls)
    arguments = raw[name]["function"], calls, truth[name], language, category, "x"
    print(bool(right and check(*arguments)["valid"]))
"""


def right_calls(truth, rng):
    """Calls with an accepted value for every parameter, optional ones included or not."""
    calls = []
    for answer in truth:
        ((name, parameters),) = answer.items()
        arguments = {}
        for key, choices in parameters.items():
            value = rng.choice(choices or [""])
            if value == "" and (len(choices) != 1):
                continue
            arguments[key] = chosen(value, rng)
        calls.append((name, arguments))
    return calls


def chosen(value, rng):
    """A value in which each accepted object became one of its variants."""
    if isinstance(value, dict):
        picked = {k: rng.choice(v) if isinstance(v, list) and v else v for k, v in value.items()}
        return {key: one for key, one in picked.items() if one != ""}
    if isinstance(value, list):
        return [chosen(one, rng) for one in value]
    return value


def edit_value(value, rng):
    """Another value, often of another type or spelling."""
    edits = [None, True, 0, 1, 1.0, "", "x", [], {}, [1, "a"], {"a": 1}, str(value), [value]]
    if isinstance(value, str):
        edits += [value.upper(), value + ".", f" {value}", value + "\n", value.replace(" ", "_")]
        edits += [f"'{value}'", f'"{value}"', f"[{value}]", f"{value}L", f"{value}f", f"{value}n"]
        edits += [f"new int[]{{{value}}}", "new ArrayList<>()", "{}", "[[1, 2], [3]]", "true"]
    elif isinstance(value, bool):
        edits += [not value, int(value), str(value).lower()]
    elif isinstance(value, int | float):
        edits += [float(value), int(value), value + 1, -value, f"{value}"]
    elif isinstance(value, list):
        edits += [value[::-1], value[1:], [*value, *value], [str(one) for one in value]]
        edits += [[edit_value(one, rng) for one in value]]
    elif isinstance(value, dict):
        edits += [{key: edit_value(one, rng) for key, one in value.items()}]
        edits += [dict([*value.items()][1:]), {**value, "more": 1}]
    return rng.choice(edits)


def edited(calls, entry, rng):
    """The calls with one edit; of an entry without an answer, a call of one of its functions."""
    calls = [(name, dict(arguments)) for name, arguments in calls]
    if not calls:
        functions = entry["function"] or [{"name": "f"}]
        return [(rng.choice(functions)["name"], {})] * rng.randint(0, 2)
    place = rng.randrange(len(calls))
    name, arguments = calls[place]
    kind = rng.choice(["value"] * 6 + ["drop", "add", "name", "twice", "lose", "order", "argument"])
    if kind in ("value", "drop", "argument") and arguments:
        key = rng.choice([*arguments])
        value = arguments.pop(key)
        if kind == "value":
            arguments[key] = edit_value(value, rng)
        elif kind == "argument":
            arguments[key.upper()] = value
    elif kind == "add":
        known = [key for one in entry["function"] for key in one["parameters"]["properties"]]
        arguments[rng.choice([*known, "unknown"])] = rng.choice([1, "a", None, 2.5])
    elif kind == "name":
        other = rng.choice(entry["function"])["name"]
        calls[place] = (rng.choice([other, name.replace(".", "_"), name.upper()]), arguments)
    elif kind == "twice":
        calls.append(calls[place])
    elif kind == "lose":
        calls.pop(place)
    else:
        rng.shuffle(calls)
    return calls


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare our BFCL checker with the official one.")
    parser.add_argument("--bfcl-python", type=Path, required=True)
    parser.add_argument("--variants", type=int, default=6, help="outputs for each entry")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = str(Path(bfcl_runner.__file__).parent)
    code = OFFICIAL.format(folder=folder, categories=list(SINGLE_TURN))
    rng, judged, outputs = random.Random(options.seed), [], []

    with tempfile.TemporaryDirectory() as root:

        def official(argument):
            command = [options.bfcl_python, "-c", code, argument]
            environment = {**os.environ, "BFCL_PROJECT_ROOT": root}
            return subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            ).stdout.splitlines()

        for line in official("data"):
            entry, truth = json.loads(line)
            for variant in range(options.variants):
                calls = right_calls(truth or [], rng)
                calls = edited(calls, entry, rng) if variant else calls
                outputs.append((entry["id"], [{name: values} for name, values in calls]))
                found = [ToolCall(name, values) for name, values in calls]
                judged.append(check_entry(entry, truth, found))
        path = Path(root, "outputs.jsonl")
        path.write_text("".join(json.dumps(output) + "\n" for output in outputs))
        known = [line == "True" for line in official(str(path))]
    different = [i for i, (a, b) in enumerate(zip(judged, known, strict=True)) if a != b]
    counts: dict[str, Counter] = {}
    for (name, _), ours, theirs in zip(outputs, judged, known, strict=True):
        counts.setdefault(category_of(name), Counter()).update(n=1, ours=ours, theirs=theirs)
    for category, count in counts.items():
        print(f"{category:24} {count['n']:6} outputs, passed {count['ours']:6} {count['theirs']:6}")
    first = sum(judged[:: options.variants])
    print(
        f"{len(outputs)} outputs, {first} of {len(outputs) // options.variants} right answers pass"
    )
    print(f"the two disagree on {len(different)}")
    for index in different[:10]:
        print(json.dumps(outputs[index]), "ours", judged[index], "official", known[index])
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
