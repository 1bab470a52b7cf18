"""An exported folder says what the run says, opens in other libraries, and carries its certificate;
else nothing is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from support.checkpoints import write_certificate
from toolhone import evaluate, open_model, train
from toolhone.cli.main import app
from toolhone.config.experiment import experiment_of
from toolhone.dialects.choose import open_syntax
from toolhone.dialects.probe.certificate import Certificate, check_same
from toolhone.errors import CapabilityError, DialectError, RunError, UserError
from toolhone.export.merged import ExportFormat, check_place, export, precision_of_weights, to_of
from toolhone.export.replay import LEAST, Replay, replay, replay_tasks
from toolhone.schema import Conversation
from toolhone.sources.files import write_jsonl
from toolhone.sources.source import tasks_of

RUN: dict[str, Any] = {
    "data": {"samples": 12},
    "training": {"steps": 4, "batch_size": 2, "learning_rate": 0.01, "validate_every": 0},
    "evaluation": {"at_end": False, "max_new_tokens": 12},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train(experiment_of(RUN, "the test"), folder / "lora")
    train(
        experiment_of({**RUN, "training": {**RUN["training"], "lora": None}}, "the test"),
        folder / "full",
    )
    return folder


@pytest.fixture(scope="module")
def exports(runs: Path) -> dict[str, Path]:
    made = {}
    for name, to in (
        ("lora", ExportFormat.MERGED),
        ("lora", ExportFormat.PEFT),
        ("full", ExportFormat.MERGED),
    ):
        done = export(open_model(runs / name), runs / f"{name}-{to}", to)
        assert done.replay.whole, done.replay.sentence()
        assert done.replay.read >= LEAST
        made[f"{name}-{to}"] = done.folder
    return made


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    """What plain transformers says."""
    with torch.no_grad():
        said = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=count)
    return [int(token) for token in said[0][len(prompt) :]]


def prompts_and_replies(run: Path) -> list[tuple[list[int], list[int]]]:
    model = open_model(run)
    policy, pairs = model.policy(), []
    for task in replay_tasks(model.experiment, print)[:4]:
        prompt = policy.open(task.messages, task.tools)
        stream = policy.stream()
        stream.submit(0, prompt)
        pairs.append((list(prompt.tokens), stream.poll()[0][1].tokens))
    return pairs


@pytest.mark.parametrize("name", ["lora", "full"])
def test_a_merged_export_opens_in_plain_transformers_and_says_the_same_ids(
    runs: Path, exports: dict[str, Path], name: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exports[f"{name}-merged"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    for prompt, said in prompts_and_replies(runs / name):
        assert greedy(model, prompt, 12) == said
    assert not [key for key in model.state_dict() if "lora" in key or ".base." in key]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False
    ).startswith("<|im_start|>")
    stops = open_model(runs / name).tokenizer.stop_ids(open_model(runs / name).dialect.stop)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == list(
        stops
    )


def test_a_peft_export_opens_with_peft_and_says_the_same_ids(
    runs: Path, exports: dict[str, Path]
) -> None:
    peft = pytest.importorskip("peft")
    model = peft.AutoPeftModelForCausalLM.from_pretrained(exports["lora-peft"])
    for prompt, said in prompts_and_replies(runs / "lora"):
        ours = greedy(model, prompt, 12)
        assert ours[: len(said)] == said


def test_an_adapter_folder_is_merged_as_its_run_is(
    exports: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    done = export(
        open_model(exports["lora-peft"], overrides=["evaluation.max_new_tokens=12"]),
        tmp_path / "out",
    )
    assert done.replay.whole
    one, two = (
        load_file(folder / "model.safetensors") for folder in (done.folder, exports["lora-merged"])
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_in_bfloat16_on_float32_weights_is_merged_in_float32(tmp_path: Path) -> None:
    values = {**RUN, "model": {"torch_dtype": "bfloat16"}}
    run = train(experiment_of(values, "the test"), tmp_path / "run")[0]
    words = ["export", str(run.folder), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    wide = open_model(run.folder, overrides=["model.torch_dtype=float32"])
    merged = export(wide, tmp_path / "same")
    assert merged.replay.tolerance is not None
    narrow = export(open_model(run.folder), tmp_path / "narrow")
    rounds = [any("loses small changes" in note for note in one.notes) for one in (merged, narrow)]
    assert rounds == [False, True]
    again = load_file(tmp_path / "same" / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in again)
    assert precision_of_weights(str(tmp_path / "out")) == []


def test_in_a_lower_precision_the_ids_decide(runs: Path, tmp_path: Path) -> None:
    done = export(
        open_model(runs / "full", overrides=["model.torch_dtype=bfloat16"]), tmp_path / "out"
    )
    assert done.replay.tolerance is None
    assert done.replay.whole
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_gpt2_s_transposed_layers_are_merged_the_right_way_round(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from toolhone.backends.base import Lora
    from toolhone.backends.torch.engine import EngineOptions, open_engine
    from toolhone.backends.torch.lora import LoraLayer

    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    ).save_pretrained(tmp_path / "base")
    engine = open_engine(tmp_path / "base", EngineOptions(), Lora(rank=4))
    for part in engine.model.modules():
        if isinstance(part, LoraLayer):
            torch.nn.init.normal_(part.lora_B.weight)
    (tmp_path / "out").mkdir()
    engine.write_merged(tmp_path / "out")
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        ours, theirs = (
            engine.model(ids).logits,
            GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()(ids).logits,
        )
        plain = GPT2LMHeadModel.from_pretrained(tmp_path / "base").eval()(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert (ours - plain).abs().max() > 1e-2


def test_merging_changes_a_copy_and_leaves_the_engine_as_it_was(
    runs: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    engine = open_model(runs / "lora").sampler._engine
    before = {name: value.clone() for name, value in engine.model.state_dict().items()}
    name = engine.lora_layers[0]

    def save(model: Any, folder: Path) -> None:  # noqa: ARG001
        weight = model.state_dict()[f"{name}.weight"]
        assert (weight - before[f"{name}.base.weight"]).abs().max() > 1e-4
        raise OSError("disk full")

    monkeypatch.setattr(type(engine.model), "save_pretrained", save)
    with pytest.raises(OSError, match="disk full"):
        engine.write_merged(tmp_path)
    after = engine.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ["lora-merged", "lora-peft", "full-merged"])
def test_the_certificate_of_an_export_is_the_run_s_and_is_checked_again(
    runs: Path, exports: dict[str, Path], name: str
) -> None:
    trained = Certificate.read(runs / name.partition("-")[0])
    kept = Certificate.read(exports[name])
    assert trained is not None
    assert kept is not None
    check_same(trained, kept, "here")
    open_model(exports[name])
    with pytest.raises(DialectError, match="was trained in another format"):
        _with_other_hash(exports[name] / "certificate.json", lambda: open_model(exports[name]))


def _with_other_hash(path: Path, act: Any) -> None:
    whole = path.read_text()
    changed = json.loads(whole)
    changed["hashes"]["template"] = "0" * 64
    write_certificate(path.parent, changed)
    try:
        act()
    finally:
        write_certificate(path.parent, whole)


@pytest.mark.parametrize("verb", [["export", "--out", "OUT"], ["serve", "--port", "0"]])
def test_a_run_whose_certificate_does_not_fit_is_refused_and_nothing_is_written(
    runs: Path, verb: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [str(out) if word == "OUT" else word for word in verb]

    def act() -> None:
        result = CliRunner().invoke(app, [words[0], str(runs / "full"), *words[1:]])
        assert isinstance(result.exception, UserError)
        raise result.exception

    place = runs / "full" / "checkpoints" / "final_checkpoint" / "certificate.json"
    with pytest.raises(DialectError, match="template differ"):
        _with_other_hash(place, act)
    assert not out.exists()
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_is_written_as_another_one_is_refused_and_nothing_is_left(
    runs: Path, tmp_path: Path
) -> None:
    model = open_model(runs / "full")
    model.tokenizer.wrapped.chat_template += "{# other #}"
    with pytest.raises(DialectError, match="template and dialect differ"):
        export(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_another_dialect_on_purpose_gets_a_certificate_of_its_own(
    runs: Path, tmp_path: Path
) -> None:
    model = open_model(runs / "full", overrides=["model.dialect=json"])
    done = export(model, tmp_path / "out")
    assert done.replay.whole
    assert any("the dialect json" in note for note in done.notes)
    kept, trained = Certificate.read(done.folder), Certificate.read(runs / "full")
    assert kept is not None
    assert trained is not None
    assert kept.hashes["dialect"] != trained.hashes["dialect"]
    assert open_model(done.folder).dialect.name == "json"


def test_a_folder_that_says_something_else_is_found_by_the_replay(
    runs: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from toolhone.backends.torch.sampler import TorchSampler

    plain = TorchSampler.write_merged

    def broken(self: TorchSampler, folder: Path) -> None:
        with torch.no_grad():
            for value in self._engine.model.parameters():
                value.mul_(-1.0)
        plain(self, folder)
        with torch.no_grad():
            for value in self._engine.model.parameters():
                value.mul_(-1.0)

    monkeypatch.setattr(TorchSampler, "write_merged", broken)
    result = CliRunner().invoke(
        app, ["export", str(runs / "full"), "--out", str(tmp_path / "out"), "--json"]
    )
    told = json.loads(result.stdout)["replay"]
    assert result.exit_code == 1
    assert told["equal"] < told["read"]
    assert told["first_difference"]
    assert not told["whole"]


def test_the_verb_prints_what_was_replayed_and_one_json_object_when_asked(
    runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["export", str(runs / "lora"), "--out", str(out)])
    assert result.exit_code == 0
    assert "replayed 12 of 12 equal" in result.stdout
    again = CliRunner().invoke(
        app,
        ["export", str(runs / "lora"), "--out", str(out), "--overwrite", "--to", "peft", "--json"],
    )
    told = json.loads(again.stdout)
    assert again.exit_code == 0
    assert told["to"] == "peft"
    assert told["replay"]["equal"] == 12
    assert "adapter_model.safetensors" in told["files"]
    assert "model.safetensors" not in told["files"]
    assert "Examples: toolhone export" in CliRunner().invoke(app, ["export", "--help"]).stdout


def test_forms_that_are_not_here_are_refused_by_name() -> None:
    for word in ("mlx", "gguf", "GGUF"):
        with pytest.raises(
            CapabilityError, match=f"--to {word} is not available yet; available: merged, peft"
        ):
            to_of(word)
    with pytest.raises(CapabilityError, match="did you mean 'merged'"):
        to_of("merge")


def test_a_run_of_full_training_has_no_adapter_to_export(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="has no adapter"):
        export(open_model(runs / "full"), tmp_path / "out", ExportFormat.PEFT)
    assert not list(tmp_path.iterdir())


def test_nothing_but_an_export_is_ever_overwritten(
    runs: Path, exports: dict[str, Path], tmp_path: Path
) -> None:
    run = str(runs / "lora")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="--overwrite"):
        check_place(exports["lora-merged"], run, overwrite=False)
    check_place(exports["lora-merged"], run, overwrite=True)
    for place in (
        tmp_path / "mine",
        runs,
        runs / "lora",
        runs / "lora" / "checkpoints" / "final_checkpoint",
        runs / "full",
    ):
        with pytest.raises(RunError, match="would delete"):
            check_place(place, run, overwrite=True)
    with pytest.raises(RunError, match="would delete"):
        check_place(exports["full-merged"], str(exports["full-merged"]), overwrite=True)
    with pytest.raises(RunError, match="is a file"):
        check_place(tmp_path / "mine" / "notes.txt", run, overwrite=True)


def test_a_replay_counts_what_differs_and_too_few_prompts_prove_nothing(runs: Path) -> None:
    one, other = open_model(runs / "lora"), open_model(runs / "full")
    tasks = replay_tasks(one.experiment, print)
    found = replay(one, other, tasks)
    assert found.read == len(tasks)
    assert found.equal < found.read
    assert not found.whole
    assert Replay(8, 8, 1e-5, 1e-3).whole
    assert not Replay(7, 7, 0.0, 1e-3).whole
    assert not Replay(8, 8, 2e-3, 1e-3).whole
    assert Replay(8, 8, 2e-3, None).whole


def test_where_the_run_s_data_is_gone_prompts_come_from_templates_and_that_is_told() -> None:
    told: list[str] = []
    plan = experiment_of({**RUN, "data": {"path": "gone.jsonl"}}, "the test")
    assert len(replay_tasks(plan, told.append)) >= LEAST
    assert "gone.jsonl" in told[0]
    assert "templates" in told[0]


def test_a_run_in_bfcl_s_prompt_exports_and_evaluates_in_it(tmp_path: Path) -> None:
    ring = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tools = [{"name": "ring", "description": "Ring.", "parameters": ring}]
    called = [{"name": "ring", "arguments": {"n": number}} for number in range(4)]
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"ring {call['arguments']['n']}"},
                {"role": "assistant", "content": None, "tool_calls": [{"function": call}]},
            ],
            "tools": tools,
        }
        for call in called
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    plan: dict[str, Any] = {
        "model": {"name": "pico-trained", "dialect": "bfcl"},
        "tools": tools,
        "data": {"strategy": "file", "path": str(tmp_path / "rows.jsonl")},
        "training": {**RUN["training"], "steps": 1, "max_length": 1024},
        "evaluation": {"at_end": False, "max_new_tokens": 8},
    }
    train(experiment_of(plan, "the test"), tmp_path / "run")
    trained, run = Certificate.read(tmp_path / "run"), open_model(tmp_path / "run")
    done = export(run, tmp_path / "out")
    exported = open_model(done.folder, overrides=["evaluation.max_new_tokens=8"])
    kept = Certificate.read(done.folder)
    assert done.replay.whole
    assert trained is not None
    assert kept is not None
    check_same(trained, kept, "here")
    assert trained.dialect["syntax"] == "bfcl"
    assert run.dialect.name == exported.dialect.name == "bfcl"
    tasks = [task for row in rows for task in tasks_of(Conversation.from_dict(row))]
    before, after = (evaluate(model, tasks) for model in (run, exported))
    assert [one.text for one in before.samples] == [one.text for one in after.samples]
    opened = exported.policy().open(tasks[0].messages, tasks[0].tools)
    prompt = exported.tokenizer.decode(opened.tokens)
    assert open_syntax("bfcl").instructions(tasks[0].tools) in prompt
