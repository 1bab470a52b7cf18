"""For all tests: one thread of torch (small models, shared cores), no compiled kernels of MLX, no
network, and a cache of their own for the embedded model.
"""

import os
import re
import signal
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLX_DISABLE_COMPILE"] = "1"  # MLX calls a compiler for each kernel otherwise
os.environ.setdefault(
    "TOOLHONE_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "toolhone")
)
SHARED = Path(__file__).parents[2] / "shared" / "data"
torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts its background jobs so
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:  # programs that a test starts share the cores too
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the checks that `earlier/statements.md` names."""
    table = (Path(__file__).parent / "earlier/statements.md").read_text(encoding="utf-8")
    checks = set(re.findall(r"`([\w/]+\.py::\w+)`", table))
    for item in items:
        if item.nodeid.partition("[")[0].removeprefix("tests/") in checks:
            item.add_marker("earlier")
