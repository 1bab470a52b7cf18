"""The embedded model: same bytes for the same seed, text round-trips, and its template writes what
the data says.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from toolhone.data.templates import Templates
from toolhone.models.pico import chat_template, make_pico, pico_folder

CALL = '<tool_call>{"name":"weather","arguments":{"city":"Oslo"}}</tool_call>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pico(tmp_path_factory.mktemp("pico"), seed=0)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def _messages(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wrapped = [{"type": "function", "function": call} for call in calls]
    return [
        {"role": "user", "content": "how is it?"},
        {"role": "assistant", "content": None, "tool_calls": wrapped},
    ]


def test_same_seed_same_bytes_in_another_process(folder: Path, tmp_path: Path) -> None:
    imports = "from pathlib import Path; from toolhone.models.pico import make_pico"
    code = f"{imports}; make_pico(Path({str(tmp_path)!r}), 0)"
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
    )
    assert _digests(folder) == _digests(tmp_path)


def test_the_vocabulary_stays_the_one_that_the_demo_was_measured_with(folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    words = json.dumps([model["vocab"], model["merges"]]).encode()
    assert hashlib.sha256(words).hexdigest()[:16] == "c8e2d3709810453f"


def test_another_seed_gives_other_weights_and_the_same_tokenizer(
    folder: Path, tmp_path: Path
) -> None:
    first, second = _digests(folder), _digests(make_pico(tmp_path, seed=1))
    assert first["model.safetensors"] != second["model.safetensors"]
    assert first["tokenizer.json"] == second["tokenizer.json"]


def test_it_is_a_small_qwen3_that_transformers_loads(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert 0.7e6 < sum(weight.numel() for weight in model.parameters()) < 0.9e6


@pytest.mark.parametrize(
    "text",
    [
        "Žluťoučký kůň 漢字 😀",
        ' \t\r\n  {"a": [1, 2.50]}',
        "<|im_end|> and </tool_call>",
        "\x00\x7f",
        "",
    ],
)
def test_any_text_round_trips(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text


def test_a_word_has_the_same_tokens_in_a_question_and_in_a_call(tokenizer: Any) -> None:
    word = tokenizer.encode("Trondheim")
    for text in (
        "weather in Trondheim?",
        '{"city":"Trondheim"}',
        "print('Trondheim'[::-1])",
        "1. Trondheim, 2",
    ):
        ids = tokenizer.encode(text)
        assert any(ids[i : i + len(word)] == word for i in range(len(ids))), text


def test_marks_are_single_tokens(tokenizer: Any) -> None:
    for mark in (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<tool_call>",
        "</tool_call>",
        "<tool_response>",
        "</tool_response>",
    ):
        assert len(tokenizer.encode(mark)) == 1


def test_the_whole_conversation_as_text(tokenizer: Any) -> None:
    tools = [tool.to_dict() for tool in Templates(0).tools]
    messages = _messages(
        [
            {"name": "weather", "arguments": {"city": "Oslo"}},
            {"name": "weather", "arguments": {"city": "Bergen"}},
        ]
    )
    messages += [
        {"role": "tool", "content": "4"},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "4 and 7."},
    ]
    assert tokenizer.apply_chat_template(messages, tools=tools, tokenize=False) == (
        "<|im_start|>system\nTools: calculator(expression) python(code) weather(city,unit?) "
        "search(query,limit?)<|im_end|>\n"
        "<|im_start|>user\nhow is it?<|im_end|>\n"
        f"<|im_start|>assistant\n{CALL}{CALL.replace('Oslo', 'Bergen')}<|im_end|>\n"
        "<|im_start|>tool\n4<|im_end|>\n<|im_start|>tool\n7<|im_end|>\n"
        "<|im_start|>assistant\n4 and 7.<|im_end|>\n"
    )


def test_own_system_text_comes_before_the_tools(tokenizer: Any) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {"type": "object", "properties": {"a": {"type": "object"}}},
        },
    }
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(
        messages, tools=[tool], tokenize=False, add_generation_prompt=True
    )
    assert (
        text == "<|im_start|>system\nBe brief.\nTools: f(a?)<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    without = tokenizer.apply_chat_template(messages[1:], tokenize=False)
    assert without == "<|im_start|>user\nhi<|im_end|>\n"


def test_a_rendered_prefix_never_changes(tokenizer: Any) -> None:
    tools = [tool.to_dict() for tool in Templates(0).tools]
    for row in Templates(0).conversations(40):
        messages = [
            {
                **m.to_dict(),
                "tool_calls": [
                    {"type": "function", "function": call.to_dict()} for call in m.tool_calls
                ],
            }
            for m in row.messages
        ]
        whole = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        for end in range(1, len(messages)):
            ask = messages[end]["role"] == "assistant"
            assert whole.startswith(
                tokenizer.apply_chat_template(
                    messages[:end], tools=tools, tokenize=False, add_generation_prompt=ask
                )
            )


def test_calls_are_json_whatever_the_arguments_hold(tokenizer: Any) -> None:
    arguments = {
        "text": 'a "quote" \\ and\nline',
        "nested": {"list": [1, 2.5, None, True]},
        "unicode": "Tromsø",
        "html": "<b>&</b>",
    }
    text = tokenizer.apply_chat_template(
        _messages([{"name": "f", "arguments": arguments}]), tokenize=False
    )
    body = text.split("<tool_call>")[1].split("</tool_call>")[0]
    assert json.loads(body) == {"name": "f", "arguments": arguments}
    assert "Tromsø" in body


def test_the_cache_is_used_again_and_found_by_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def make(draft: Path, seed: int) -> Path:
        made.append(seed)
        (draft / "model.safetensors").write_bytes(bytes([seed]))
        return draft

    monkeypatch.setattr("toolhone.models.pico.make_pico", make)
    monkeypatch.setenv("TOOLHONE_CACHE", str(tmp_path))
    first = pico_folder(0)
    assert pico_folder(0) == first
    assert made == [0]
    second = pico_folder(1)
    assert made == [0, 1]
    assert [(one / "model.safetensors").read_bytes() for one in (first, second)] == [b"\0", b"\1"]
    assert [path.name.startswith("pico-") for path in tmp_path.iterdir()] == [True, True]


def test_the_template_ships_with_the_package() -> None:
    assert "<tool_call>" in chat_template()
