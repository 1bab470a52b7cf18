"""For all tests: one thread of torch (small models, shared cores), no network, and a cache of their
own for the embedded model.
"""

import os
from pathlib import Path

import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault(
    "TOOLHONE_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "toolhone")
)
SHARED = Path(__file__).parents[2] / "shared" / "data"
torch.set_num_threads(1)
