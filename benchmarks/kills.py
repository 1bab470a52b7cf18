"""Stop trainings at random moments and resume them: do they end, bit for bit, like an unbroken one?

    python benchmarks/kills.py [--kills 10] [--per-run 2] [--seed 0] [--methods sft dpo ppo grpo]

Each run of pico (SFT from random weights; DPO, PPO and GRPO from a short SFT that calls a
calculator) is stopped `--per-run` times, by SIGKILL, SIGTERM and SIGINT in turn, and resumed until
it ends. A stop comes once this start has logged a line, at a moment drawn from the time that the
unbroken run still took, its evaluation included; a run that ends before its stop is no kill.
Compared: the weights of the final and the best checkpoint, `metrics.jsonl` and `samples.jsonl` but
for what the clock wrote. Prints a JSON line for each run and one in the end; exit code 1 where
something differs or a kill is missing. Every process has a hash seed of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MAIN = "from toolhone.cli.main import main; main()"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOST_STARTS = 40
REWARD = '''
def odd(task, episode):
    """Differs from reply to reply, whatever a hardly trained model writes."""
    tokens = [token for turn in episode.turns for token in turn.tokens]
    return sum(token % 2 for token in tokens) / max(1, len(tokens))
'''
COMMON = {
    "training.lora": "null",
    "training.log_every": "3",
    "training.validate_every": "4",
    "training.validation_samples": "4",
    "training.save_every": "5",
    "evaluation.num_samples": "4",
    "evaluation.max_new_tokens": "40",
}
RL = {
    "training.batch_size": "2",
    "training.learning_rate": "0.001",
    "training.rl.group_size": "4",
    "training.rl.max_completion_length": "40",
    "training.rl.episode.to_the_end": "true",
    "training.rl.reward.functions": '["own.py:odd", "tool_use"]',
    "training.rl.beta": "0.02",
}
PLANS: dict[str, dict[str, str]] = {
    "sft": {"training.steps": "40", "training.batch_size": "8", "training.learning_rate": "0.003"},
    "dpo": {"training.steps": "24", "training.batch_size": "4", "training.learning_rate": "0.0003"},
    "ppo": {**RL, "training.steps": "14", "training.rl.sampler_refresh_every": "3"},
    "grpo": {**RL, "training.steps": "14"},
}


def write_inputs(folder: Path) -> None:
    """The reward, and rows that ask for sums."""
    (folder / "own.py").write_text(REWARD)
    number = {"type": "object", "properties": {"expression": {"type": "string"}}}
    function = {"name": "calculator", "description": "Compute.", "parameters": number}
    rows = []
    for first in range(2, 8):
        for second in range(3, 9):
            arguments = {"expression": f"{first}+{second}"}
            call = {"id": "c", "type": "function"}
            call |= {"function": {"name": "calculator", "arguments": arguments}}
            result = str(first + second)
            messages = [
                {"role": "user", "content": f"What is {first}+{second}?"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": result},
                {"role": "assistant", "content": f"It is {result}."},
            ]
            tools = [{"type": "function", "function": function}]
            rows.append(json.dumps({"messages": messages, "tools": tools}) + "\n")
    (folder / "rows.jsonl").write_text("".join(rows))


def start(folder: Path, out: str, words: list[str], hash_seed: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONUTF8": "1"}
    with (folder / f"{out}.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, "train", "--out", out, *words],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def words_of(method: str, base: str) -> list[str]:
    data = {"data.path": "rows.jsonl", "data.validation": "rows.jsonl", "model.name": base}
    values = {"training.method": method, **data, **COMMON, **PLANS[method]}
    return [f"{key}={value}" for key, value in values.items()]


def lines_in(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def wait_for_line(process: subprocess.Popen[bytes], run: Path) -> None:
    """Wait until this start has logged a line (a resume first cuts the log), or has ended."""
    fewest = lines_in(run)
    while process.poll() is None and lines_in(run) <= fewest:
        fewest = min(fewest, lines_in(run))
        time.sleep(0.01)


def unbroken(folder: Path, out: str, words: list[str]) -> float:
    """Train without a stop; returns the seconds that it took after its first logged line."""
    process = start(folder, out, words, 1)
    wait_for_line(process, folder / out)
    began = time.monotonic()
    if process.wait() != 0:
        raise SystemExit((folder / f"{out}.txt").read_text()[-2000:])
    return time.monotonic() - began


def broken(
    folder: Path,
    out: str,
    words: list[str],
    seconds: float,
    stops: list[tuple[signal.Signals, float]],
) -> list[str]:
    """Train with stops: each a signal and its moment, a share of the time that is left.

    `seconds`: what the unbroken run took. Returns each stop in words.
    """
    done: list[str] = []
    for number in range(MOST_STARTS):
        again = ["--resume"] if (folder / out / "experiment.json").is_file() else []
        process = start(folder, out, [*again, *words], number + 2)
        if len(done) < len(stops):
            (how, share), run = stops[len(done)], folder / out
            wait_for_line(process, run)
            whole = lines_in(folder / f"{out.partition('-')[0]}-whole")
            moment = share * seconds * (1 - (lines_in(run) - 1) / whole)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(how)
                lines = lines_in(run)
                done.append(f"{how.name} {moment:.1f} s after its first line, {lines} lines logged")
        code = process.wait()
        if code == 0:
            return done
        ended = (folder / out / "checkpoints" / "final_checkpoint").is_dir()
        stopped = code in (130, -signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM)
        if ended and stopped:
            done[-1] += ", after its last step"
            return done
        if not stopped:
            raise SystemExit((folder / f"{out}.txt").read_text()[-2000:])
    raise SystemExit(f"{out} did not end within {MOST_STARTS} starts")


def result_of(run: Path) -> dict[str, Any]:
    """What two equal runs have in common."""
    result: dict[str, Any] = {}
    for path in sorted(run.glob("checkpoints/*_checkpoint/*.safetensors")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        result[f"{path.parent.name}/{path.name}"] = digest[:16]
    for name in ("metrics.jsonl", "samples.jsonl"):
        result[name] = [timeless(json.loads(line)) for line in (run / name).open()]
    return result


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    clock = ("seconds", "tokens_per_second")
    return {key: value for key, value in line.items() if not key.startswith(clock)}


def difference(wanted: Any, found: Any, place: str = "") -> str | None:
    """The first place where two results differ."""
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted.keys() == found.keys():
        pairs = ((key, wanted[key], found[key]) for key in wanted)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = ((i, *both) for i, both in enumerate(zip(wanted, found, strict=True)))
    else:
        same = wanted == found
        return None if same else f"{place}: {found!r:.200} in place of {wanted!r:.200}"
    return next((at for key, *both in pairs if (at := difference(*both, f"{place}/{key}"))), None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10, help="of each method")
    parser.add_argument("--per-run", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=list(PLANS), choices=list(PLANS))
    parser.add_argument("--out", type=Path, help="keep the runs here")
    arguments = parser.parse_args()
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder)
    base, wrong, stops, missing = "pico", 0, 0, 0
    if set(arguments.methods) - {"sft"}:
        unbroken(folder, "base", [*words_of("sft", "pico"), "training.steps=60"])
        base = "base/checkpoints/final_checkpoint"
    for method in arguments.methods:
        words = words_of(method, "pico" if method == "sft" else base)
        seconds = unbroken(folder, f"{method}-whole", words)
        wanted, made, number = result_of(folder / f"{method}-whole"), 0, 0
        while made < arguments.kills and number < 3 * arguments.kills:
            draw, out = random.Random(f"{arguments.seed} {method} {number}"), f"{method}-{number}"
            each = range(made, min(made + arguments.per_run, arguments.kills))
            planned = [(SIGNALS[place % len(SIGNALS)], draw.random()) for place in each]
            done = broken(folder, out, words, seconds, planned)
            at = difference(wanted, result_of(folder / out))
            wrong, made, number = wrong + (at is not None), made + len(done), number + 1
            print(json.dumps({"run": out, "stops": done, "difference": at}), flush=True)
        stops, missing = stops + made, missing + arguments.kills - made
    print(json.dumps({"stops": stops, "runs that differ": wrong, "folder": str(folder)}))
    sys.exit(bool(wrong or missing))


if __name__ == "__main__":
    main()
