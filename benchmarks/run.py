"""All benchmarks, one after the other: `make bench`. Each is a script of its own; see its first
lines for what it measures.

python benchmarks/run.py [name ...]        names: constrained_speed, engine_speed, memory, sft_speed
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
COMMANDS = {
    "memory": [
        ["memory.py"],
        ["memory.py", "--vocabulary"],
        ["memory.py", "--vocabulary", "--full"],
    ],
    "constrained_speed": [
        ["constrained_speed.py"],
        ["constrained_speed.py", "--dialect", "native"],
    ],
    "engine_speed": [["engine_speed.py"]],
    "sft_speed": [
        ["sft_speed.py", "--model", "pico"],
        ["sft_speed.py", "--model", "small", "--steps", "6", "--batch", "16"],
    ],
}


def main() -> None:
    names = sys.argv[1:] or list(COMMANDS)
    for name in names:
        if name not in COMMANDS:
            sys.exit(f"no benchmark {name!r}; there are {', '.join(COMMANDS)}")
        for script, *arguments in COMMANDS[name]:
            print("$ python benchmarks/" + " ".join([script, *arguments]), flush=True)
            subprocess.run([sys.executable, HERE / script, *arguments], check=True)


if __name__ == "__main__":
    main()
