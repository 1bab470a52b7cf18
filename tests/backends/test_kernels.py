"""Flash attention for a GPU: its calls on tensors without memory, and the proof before its use."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from toolhone.backends.torch import kernels
from toolhone.backends.torch.kernels import CpuKernel, GpuKernel, PlainKernel, kernel_of, proven

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unproven() -> Iterator[None]:
    proven.cache_clear()
    yield
    proven.cache_clear()


@pytest.mark.parametrize("causal", [False, True])
def test_the_calls_of_flash_attention_have_its_shapes(causal: bool) -> None:
    with FakeTensorMode():
        q, slope = (torch.empty(3, 4, 40, 64, device="cuda", dtype=torch.half) for _ in range(2))
        keys = 40 if causal else 30
        k = torch.empty(3, 1, keys, 64, device="cuda", dtype=torch.half).expand(3, 4, keys, 64)
        out, norm = GpuKernel(0.1).forward(q, k, k, causal, None)
        assert (out.shape, out.dtype) == (q.shape, torch.half)
        assert (norm.shape, norm.dtype) == (q.shape[:3], torch.float32)
        found = GpuKernel(0.1).backward((slope, out, norm), (q, k, k), causal, None)
        assert [each.shape for each in found] == [q.shape, k.shape, k.shape]


def test_parts_with_a_mask_run_as_products() -> None:
    q, k, slope = torch.randn(3, 2, 2, 5, 8)
    mask = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1) > 0, kernels.HIDDEN_SCORE)
    joint = GpuKernel(0.3).forward(q, k, k, True, mask)
    assert torch.allclose(joint[0], PlainKernel(0.3, 0.0).forward(q, k, k, True, mask)[0])
    found = GpuKernel(0.3).backward((slope, *joint), (q, k, k), True, mask)
    wanted = PlainKernel(0.3, 0.0).backward((slope, *joint), (q, k, k), True, mask)
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("wrong", ["", "scale", "gradient", "causal", "error"])
def test_flash_attention_is_used_where_it_equals_products(
    wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forward(self: Any, q: Any, k: Any, v: Any, causal: bool, mask: Any) -> Any:
        if wrong == "error":
            raise RuntimeError("no kernel image is available for execution on the device")
        scale = self.scale * (1.1 if wrong == "scale" else 1)
        return CpuKernel(scale).forward(q, k, v, causal and wrong != "causal", mask)

    def backward(self: Any, joint: Any, inputs: Any, causal: bool, mask: Any) -> Any:
        found = CpuKernel(self.scale).backward(joint, inputs, causal, mask)
        return (found[0] * 1.1, *found[1:]) if wrong == "gradient" else found

    monkeypatch.setattr(GpuKernel, "forward", forward)
    monkeypatch.setattr(GpuKernel, "backward", backward)
    assert proven(CPU, torch.bfloat16, 64) is (wrong == "")
    assert ("attention runs as products" in capsys.readouterr().err) is (wrong != "")
    exact = list[torch.dtype]()
    real = PlainKernel.forward
    monkeypatch.setattr(
        PlainKernel, "forward", lambda *of: (found := real(*of), exact.append(found[0].dtype))[0]
    )
    proven.cache_clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert proven(CPU, torch.bfloat16, 64) is (wrong == "")
    assert set(exact) == {torch.float32}


def test_a_full_memory_is_no_verdict_on_flash_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as during:
        during.setattr(GpuKernel, "forward", full)
        with pytest.raises(torch.OutOfMemoryError):
            proven(CPU, torch.bfloat16, 64)
    monkeypatch.setattr(GpuKernel, "forward", lambda self, *of: CpuKernel(self.scale).forward(*of))
    monkeypatch.setattr(
        GpuKernel, "backward", lambda self, *of: CpuKernel(self.scale).backward(*of)
    )
    assert proven(CPU, torch.bfloat16, 64)


def test_a_device_without_flash_attention_runs_products(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode():
        q = torch.empty(3, 4, 40, 64, device="cuda", dtype=torch.half)
        monkeypatch.setattr(kernels, "proven", lambda *_: False)
        assert kernel_of(q, q, 0.1, None) == PlainKernel(0.1, 0.0)
        monkeypatch.setattr(kernels, "proven", lambda *_: True)
        assert kernel_of(q, q, 0.1, None) == GpuKernel(0.1)
        assert kernel_of(q, q, 0.1, 5.0) == PlainKernel(0.1, 5.0), "with a soft cap"
        assert kernel_of(q.float(), q, 0.1, None) == PlainKernel(0.1, 0.0), "in float32"
    assert not proven(CPU, torch.bfloat16, 64), "a CPU has no such kernel"
