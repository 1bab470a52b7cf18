"""`make real`: a pretrained model learns a customer desk's tools, and what that costs is measured.

    python benchmarks/real/prove.py [--model smollm2] [--quick] [--seed 0] [--out DIR]
        [--published bfcl.jsonl ...]        # tasks that `toolhone data import` wrote

doctor, the base with examples in its prompt, SFT by LoRA, GRPO on phrasings without labels,
plain chat before and after, comparison with guard, export, serve. Every stage is a command in a
process of its own, so its memory is its own. What is done is not done again: a run that was stopped
goes on. Writes OUT/report.md and OUT/report.json.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from make_data import Sizes, make_data

from toolhone.evaluation.compare import compare
from toolhone.evaluation.folder import read_folder

HERE = Path(__file__).parent
QUICK = {"rows": 280, "batch": 12, "steps": 22, "grpo": 40, "grpo_steps": 3, "tasks": 16}
FULL = {"rows": 2000, "batch": 16, "steps": 120, "grpo": 130, "grpo_steps": 26, "tasks": 50}
CODE = "from toolhone.cli.main import main; main()"


@dataclass
class Stages:
    """Commands that were run: seconds, CPU seconds, peak memory, exit codes."""

    out: Path
    seen: list[dict[str, Any]] = field(default_factory=list)

    def run(self, name: str, *words: str, script: str | None = None) -> str:
        """Run `toolhone WORDS` or a script of this folder, if it is not done; return its output."""
        log, done = self.out / f"{name}.log", self.out / f"{name}.done"
        if done.is_file():
            self.seen.append(json.loads(done.read_text()))
            return log.read_text()
        command = [sys.executable, *((str(HERE / script),) if script else ("-c", CODE)), *words]
        print(f"{name}: {' '.join(words)[:150]}", flush=True)
        started = time.monotonic()
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        kilo = 1 if sys.platform == "darwin" else 1024
        self.seen.append(
            {
                "stage": name,
                "exit": process.returncode,
                "seconds": round(time.monotonic() - started),
                "cpu_seconds": round(usage.ru_utime + usage.ru_stime),
                "peak_gb": round(usage.ru_maxrss * kilo / 1e9, 2),
            }
        )
        if process.returncode not in (0, 1, 3):  # 1: found something; 3: the guard is undecided
            sys.exit(f"{name} ended with {process.returncode}: {log.read_text()[-600:]}")
        done.write_text(json.dumps(self.seen[-1]))
        return log.read_text()


def training(sizes: dict[str, int], model: str, keys: dict[str, Any], **changes: Any) -> Any:
    """An experiment; what it leaves out is chosen by `training.recipe`."""
    section = {"log_every": 5, "validate_every": 0, "save_every": 0, **changes.pop("training")}
    evaluation = {"max_new_tokens": 96, "max_turns": 1, "num_samples": sizes["measured"]}
    return {
        "model": {"name": model, **keys},
        "tools": [],
        "training": section,
        "evaluation": {**evaluation, **changes.pop("evaluation", {})},
        **changes,
    }


def experiments(
    sizes: dict[str, int], model: str, files: dict[str, Path], out: Path, seed: int, dialect: str
) -> tuple[Path, Path]:
    """Write sft.json and grpo.json."""
    keys, tasks = {"dialect": dialect}, {"tasks": str(files["tasks"].resolve())}
    sft = training(
        sizes,
        model,
        keys,
        training={"steps": sizes["steps"], "batch_size": sizes["batch"]},
        data={"path": str(files["rows"].resolve()), "validation_fraction": 0.02},
        evaluation={**tasks, "baseline_examples": 2},
        seed=seed,
    )
    rl = {
        **{"group_size": 8, "max_completion_length": 96, "temperature": 1.0},
        "episode": {"to_the_end": False, "max_turns": 1},
        "reward": {"functions": ["right_calls"]},
        "ptx": {"coef": 1, "batch_size": 8},
    }
    grpo = training(
        sizes,
        model,
        {"adapter": str((out / "sft").resolve())},
        training={
            **{"method": "grpo", "steps": sizes["grpo_steps"], "batch_size": 4, "rl": rl},
            "learning_rate": 2e-4,
        },
        data={"path": str(files["grpo"].resolve())},
        evaluation={**tasks, "baseline": False},
        seed=seed,
    )
    paths = out / "sft.json", out / "grpo.json"
    for path, values in zip(paths, (sft, grpo), strict=True):
        path.write_text(json.dumps(values, indent=2))
    return paths


def ask_server(stages: Stages, folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Serve an export, ask it once over HTTP, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", CODE, "serve", str(folder), "--port", str(port)]
    with (stages.out / "serve.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    body = {"model": str(folder), "messages": question["messages"], "tools": question["tools"]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps({**body, "temperature": 0, "max_tokens": 96}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        for _ in range(120):
            time.sleep(1)
            try:
                with urllib.request.urlopen(request, timeout=300) as answer:
                    found: dict[str, Any] = json.load(answer)["choices"][0]["message"]
                    return found
            except urllib.error.HTTPError as error:
                sys.exit(f"the server refused: {error.read().decode()[:300]}")
            except OSError:
                continue
        sys.exit(f"the server did not answer; {stages.out / 'serve.log'}")
    finally:
        server.terminate()
        server.wait()


def scores(folder: Path) -> dict[str, str]:
    """Exact match, or no call where none is right, by category, with 95 % intervals."""
    found = {}
    for category, metrics in read_folder(folder).by_category.items():
        name = "no_call_accuracy" if "no_call_accuracy" in metrics else "exact_match"
        name = "exact_match" if "exact_match" in metrics else name
        score = metrics[name]
        if score.value is not None:
            low, high = 100 * score.low, 100 * score.high
            found[category] = f"{100 * score.value:.0f} ({low:.0f} to {high:.0f})"
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2")
    parser.add_argument(
        "--dialect", help="[tagged for smollm2, whose template shows no tools; auto]"
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--set", nargs="*", default=[], help="other sizes, such as steps=10")
    parser.add_argument("--published", nargs="*", type=Path, default=[], metavar="FILE")
    given = parser.parse_args()
    given.dialect = given.dialect or ("tagged" if given.model == "smollm2" else "auto")
    sizes, out, model = dict(QUICK if given.quick else FULL), given.out, given.model
    sizes |= {name: int(value) for name, _, value in (one.partition("=") for one in given.set)}
    sizes["measured"] = sizes["tasks"] * (4 + len(given.published))
    (out / "data").mkdir(parents=True, exist_ok=True)
    stages, started = Stages(out), time.monotonic()
    key = f"model.dialect={given.dialect}"
    stages.run("answers", "answer", model, str(out / "answers.json"), key, script="plain_chat.py")
    plain = [tuple(pair) for pair in json.loads((out / "answers.json").read_text())]
    wanted = Sizes(sizes["rows"], sizes["grpo"], sizes["tasks"])
    files = make_data(out / "data", wanted, given.seed, plain, given.published)
    sft, grpo = experiments(sizes, model, files, out, given.seed, given.dialect)
    stages.run("doctor", "doctor", "--model", model, "--data", str(files["rows"]), key)
    stages.run("before", "measure", model, str(out / "before.json"), key, script="plain_chat.py")
    tasks = ["--tasks", str(files["tasks"])]
    stages.run("base", "eval", model, *tasks, "--out", str(out / "base"), key, *EVALUATED)
    stages.run("sft", "train", str(sft), "--out", str(out / "sft"))
    stages.run("grpo", "train", str(grpo), "--out", str(out / "grpo"))
    tuned, after = str(out / "grpo"), str(out / "after.json")
    stages.run("after", "measure", tuned, after, script="plain_chat.py")
    folders = str(out / "base"), str(out / "grpo" / "evaluation")
    stages.run("guard", "compare", *folders, "--guard")
    stages.run("export", "export", str(out / "grpo"), "--to", "merged", "--out", str(out / "model"))
    question = json.loads(files["tasks"].read_text().splitlines()[0])
    served = ask_server(stages, out / "model", question)
    write_report(out, stages, served, question, time.monotonic() - started, given)


EVALUATED = ("evaluation.max_new_tokens=96", "evaluation.max_turns=1")


def write_report(
    out: Path, stages: Stages, served: dict[str, Any], question: Any, seconds: float, given: Any
) -> None:
    """Write report.json and report.md."""
    folders = {
        "base": out / "base",
        "base, 2 examples": out / "sft" / "baseline",
        "SFT": out / "sft" / "evaluation",
        "GRPO": out / "grpo" / "evaluation",
    }
    table = {name: scores(folder) for name, folder in folders.items()}
    steps = {}
    for before, after in (("base, 2 examples", "SFT"), ("base", "GRPO"), ("SFT", "GRPO")):
        found = compare(read_folder(folders[before]), read_folder(folders[after]))
        steps[f"{before} to {after}"] = {
            name: f"{100 * cell.difference.value:+.1f} ({100 * cell.difference.low:+.1f} to "
            f"{100 * cell.difference.high:+.1f}), n {cell.difference.n}"
            for name, cell in found.totals.items()
            if name in ("exact_match", "no_call_accuracy") and cell.difference.value is not None
        }
    chat = {name: json.loads((out / f"{name}.json").read_text()) for name in ("before", "after")}
    report = {
        **{"model": given.model, "quick": given.quick, "seed": given.seed},
        **{"seconds": round(seconds), "scores": table, "changes": steps},
        "plain": {k: {n: v[n] for n in ("perplexity", "words")} for k, v in chat.items()},
        "stages": stages.seen,
        "guard": (out / "guard.log").read_text(),
        "served": {"asked": question["messages"][-1]["content"], "answer": served},
    }
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))
    lines = [f"# {given.model}: before and after", "", "| tasks | " + " | ".join(table) + " |"]
    lines += ["|---" * (len(table) + 1) + "|"]
    for category in table["base"]:
        cells = (table[name].get(category, "") for name in table)
        lines.append(f"| {category} | {' | '.join(cells)} |")
    lines += ["", "Exact match (no call where none is right) in %, with 95 % intervals.", ""]
    lines += [f"- {name}: {changes}" for name, changes in steps.items()]
    lines += [f"- plain chat {name}: {one}" for name, one in report["plain"].items()]
    lines += [f"- served: {report['served']}", "", "| stage | exit | s | CPU s | GB |"]
    lines += ["|---|---|---|---|---|"]
    lines += ["| " + " | ".join(map(str, one.values())) + " |" for one in stages.seen]
    lines += ["", "## Plain questions, before and after", ""]
    for asked, said in chat["before"]["answers"].items():
        now = chat["after"]["answers"][asked]
        lines.append(f"- {asked}\n  - before: {said!r}\n  - after: {now!r}")
    (out / "report.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines[:40]))


if __name__ == "__main__":
    main()
