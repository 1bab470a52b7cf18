"""What tests of the Tinker server share: a tiny model, the server on it, a client of the SDK."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.test_backends import tiny_qwen3
from support.tinker_server import close_left_sockets, sdk_client, tinker_server


@pytest.fixture(scope="module")
def sdk() -> Iterator[None]:
    """Without telemetry; the sockets that it leaves open are closed at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINKER_TELEMETRY", "0")
        yield
    close_left_sockets()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without a tokenizer."""
    return tiny_qwen3(tmp_path_factory.mktemp("tinker"))


@pytest.fixture(scope="module")
def url(folder: Path, sdk: None) -> Iterator[str]:  # noqa: ARG001 (before the server)
    with tinker_server(folder, folder / "checkpoints") as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    with sdk_client(url) as opened:
        yield opened
