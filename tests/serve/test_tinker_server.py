"""The Tinker server under the unmodified SDK: training, sampling, checkpoints, mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from support.tinker_server import sdk_client, tinker_server
from toolhone.backends.base import Adam, Lora
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import open_sampler, open_trainer
from toolhone.models.pico import pico_folder
from toolhone.rows import Row
from toolhone.tokenizer import TextTokenizer
from toolhone.training.losses import cross_entropy

pytest.importorskip("starlette")
tinker = pytest.importorskip("tinker", reason="needs the package tinker, the SDK")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("sdk")]
IDS = [5, 9, 33, 12, 7, 40, 21, 3]


def new_model(client: Any, folder: Path, **settings: Any) -> Any:
    given = {"rank": 4, "seed": 3, "train_unembed": False, **settings}
    return done(client.create_lora_training_client(str(folder), **given))


def done(value: Any) -> Any:
    """The client itself: newer SDKs return a future of it."""
    return value.result() if hasattr(value, "result") else value


def datum(ids: list[int] = IDS, **arrays: Any) -> Any:
    inputs = {"target_tokens": np.array(ids[1:])}
    inputs |= {name: np.array(each, np.float32) for name, each in arrays.items()}
    return tinker.Datum(model_input=tinker.ModelInput.from_ints(ids[:-1]), loss_fn_inputs=inputs)


def lesson(ids: list[int] = IDS) -> Any:
    return datum(ids, weights=[0.0, 0.0] + [1.0] * (len(ids) - 3))


def train(model: Any, steps: int = 1, rate: float = 1e-2) -> list[float]:
    losses = []
    for _ in range(steps):
        passed = model.forward_backward([lesson(), lesson(IDS[::-1])], "cross_entropy")
        stepped = model.optim_step(tinker.AdamParams(learning_rate=rate))
        losses.append(passed.result().metrics["loss:sum"])
        stepped.result()
    return losses


def score(sampler: Any) -> list[float]:
    return sampler.compute_logprobs(tinker.ModelInput.from_ints(IDS)).result()[1:]


def test_losses_are_those_of_torch_directly_bit_for_bit(client: Any, folder: Path) -> None:
    over_wire = train(new_model(client, folder), steps=4)
    trainer = open_trainer(folder, Lora(4, 32.0), EngineOptions(device_map="cpu", seed=3))
    rows = []
    for ids in (IDS, IDS[::-1]):
        weights = np.array([0.0, 0.0, 0.0] + [1.0] * (len(ids) - 3), np.float32)
        rows.append(Row.of(ids, [True] * len(ids)).with_arrays(weights=weights))
    direct = []
    for _ in range(4):
        direct.append(trainer.forward_backward(rows, cross_entropy()).result()["loss"])
        trainer.optim_step(Adam(1e-2, 0.9, 0.95, 1e-12, clip_norm=0.0))
    assert over_wire == direct


def test_a_sampler_is_a_snapshot_that_agrees_with_the_trainer(client: Any, folder: Path) -> None:
    model = new_model(client, folder)
    train(model, 2)
    sampler = done(model.save_weights_and_get_sampling_client())
    before = score(sampler)
    trained = model.forward([datum(weights=[1.0] * 7)], "cross_entropy").result()
    assert np.allclose(trained.loss_fn_outputs[0]["logprobs"].data, before, atol=1e-6)
    assert np.isclose(trained.metrics["loss:sum"], -sum(before), atol=1e-4)
    train(model, 2)
    assert score(sampler) == before
    path = model.save_weights_for_sampler("later").result().path
    assert score(done(client.create_sampling_client(model_path=path))) != before


def test_training_resumes_to_the_same_bits(client: Any, folder: Path) -> None:
    model = new_model(client, folder)
    train(model, 3)
    path = model.save_state("third").result().path
    resumed = done(client.create_training_client_from_state_with_optimizer(path))
    fresh = done(client.create_training_client_from_state(path))
    assert train(model, 3) == train(resumed, 3) != train(fresh, 3)


def test_a_seed_and_equal_requests_give_equal_samples(client: Any, folder: Path) -> None:
    sampler = done(client.create_sampling_client(base_model=str(folder)))
    params = tinker.SamplingParams(max_tokens=6, seed=11, stop=[])
    prompt = tinker.ModelInput.from_ints(IDS)
    futures = [sampler.sample(prompt, 3, params) for _ in range(2)]
    first, second = (future.result().sequences for future in futures)
    assert [one.tokens for one in first] == [one.tokens for one in second]
    assert len({tuple(one.tokens) for one in first}) > 1
    assert all(len(one.logprobs) == 6 and one.stop_reason == "length" for one in first)
    ends = tinker.SamplingParams(max_tokens=30, seed=11, stop=[first[0].tokens[2]])
    cut = sampler.sample(prompt, 3, ends).result().sequences[0]
    assert cut.stop_reason == "stop"
    assert list(cut.tokens) == list(first[0].tokens[:3])


def test_soft_targets_are_a_weighted_sum_over_their_log_probabilities(
    client: Any, folder: Path
) -> None:
    model = new_model(client, folder)
    targets = np.array([[each, (each + 1) % 64] for each in IDS[1:]])
    inputs = {"target_tokens": targets, "weights": np.full(targets.shape, 0.25, np.float32)}
    soft = tinker.Datum(model_input=tinker.ModelInput.from_ints(IDS[:-1]), loss_fn_inputs=inputs)
    passed = model.forward_backward([soft, lesson()], "cross_entropy").result()
    found = passed.loss_fn_outputs[0]["logprobs"]
    assert list(found.shape) == [7, 2]
    single = model.forward([lesson()], "cross_entropy").result().loss_fn_outputs[0]["logprobs"]
    assert np.allclose(np.reshape(found.data, (7, 2))[:, 0], single.data, atol=1e-5)
    rest = -sum(single.data[2:])
    assert np.isclose(
        passed.metrics["loss:sum"], float(-0.25 * np.sum(found.data) + rest), rtol=1e-5
    )


def test_targets_may_differ_from_the_input_as_cookbook_prompts_do(
    client: Any, folder: Path
) -> None:
    model = new_model(client, folder)
    blank = datum(logprobs=[0.0] * 7, advantages=[0.0] * 4 + [1.0] * 3)
    blank.loss_fn_inputs["target_tokens"] = tinker.TensorData.from_numpy(
        np.array([0, 0, 0, 0, *IDS[5:]])
    )
    whole = datum(logprobs=[0.0] * 7, advantages=[0.0] * 4 + [1.0] * 3)
    losses = [
        model.forward([one], "importance_sampling").result().metrics["loss:sum"]
        for one in (blank, whole)
    ]
    assert np.isclose(losses[0], losses[1], rtol=1e-6)


def test_the_program_of_the_page_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tinker-server.md").read_text()
    (program,) = re.findall(r"^```python learn.py\n(.*?)^```", page, re.S | re.M)
    pico = pico_folder(0)
    with tinker_server("pico", tmp_path) as address:
        monkeypatch.setenv("TINKER_BASE_URL", address)
        monkeypatch.setenv("TINKER_API_KEY", "tml-local")
        scope: dict[str, Any] = {"__name__": "page"}
        exec(compile(program, "docs/tinker-server.md", "exec"), scope)
    assert scope["losses"][-1] < 0.5 * scope["losses"][0]
    assert scope["model"].get_info().model_data.tokenizer_id == str(pico)
    assert "/weights/first" in capsys.readouterr().out


def test_the_head_learns_where_the_request_says_so(client: Any, folder: Path) -> None:
    sizes = []
    for parts in ({}, {"train_unembed": True}, {"train_mlp": False}):
        model = new_model(client, folder, **parts)
        train(model)
        path = model.save_weights_for_sampler("parts").result().path
        files = [
            *(folder / "checkpoints").glob(f"{path.split('/')[2].replace(':', '_')}/*/*/*.saf*")
        ]
        with safe_open(files[0], "pt") as weights:
            sizes.append({name.split(".")[-3] for name in weights.keys()})  # noqa: SIM118
    every = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert sizes[:2] == [every, every | {"lm_head"}]
    assert sizes[2] == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_a_merged_head_of_its_own_gives_the_log_probabilities_of_its_adapter(
    folder: Path, tmp_path: Path
) -> None:
    lora = Lora(4, 32.0, target_modules=("lm_head", "q_proj"))
    trainer = open_trainer(folder, lora, EngineOptions(device_map="cpu"))
    row = Row.of(IDS, [True] * len(IDS)).with_arrays(weights=1.0)
    for _ in range(3):
        trainer.forward_backward([row], cross_entropy())
        trainer.optim_step(Adam(1e-2))
    trainer.snapshot().write_merged(tmp_path)
    merged = open_sampler(tmp_path, EngineOptions(device_map="cpu"))
    expected = trainer.snapshot().logprobs([row])[0]
    assert np.allclose(merged.logprobs([row])[0], expected, atol=1e-4)


def test_a_stop_text_of_several_tokens_ends_a_sample(tmp_path: Path) -> None:
    with tinker_server("pico", tmp_path) as address, sdk_client(address) as own:
        sampler = done(own.create_sampling_client(base_model="pico"))
        prompt = tinker.ModelInput.from_ints([60, 61, 62])
        free = tinker.SamplingParams(max_tokens=12, seed=5, stop=[])
        whole = sampler.sample(prompt, 1, free).result().sequences[0]
        tokenizer = TextTokenizer.load(pico_folder(0))
        text = tokenizer.decode(list(whole.tokens)[2:5])
        ends = tinker.SamplingParams(max_tokens=12, seed=5, stop=text)
        cut = sampler.sample(prompt, 1, ends).result().sequences[0]
    assert (cut.stop_reason, list(cut.tokens)) == ("stop", list(whole.tokens)[: len(cut.tokens)])
    assert text in tokenizer.decode(list(cut.tokens))
    assert text not in tokenizer.decode(list(cut.tokens)[:-1])
