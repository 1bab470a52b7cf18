"""A policy that answers from a script, for tests: a real tokenizer and dialect around a sampler
that is a plain function.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from toolhone.backends.base import Sample, SamplingParams, StopReason
from toolhone.dialects.choose import open_dialect
from toolhone.episodes.policy import TokenPolicy
from toolhone.rows import Tokens
from toolhone.schema import Task, Tool
from toolhone.tokenizer import TextTokenizer

STOP = "<|im_end|>"
Script = Callable[[str], str]
"""What to say, given the whole prompt as text."""


@cache
def byte_tokenizer() -> TextTokenizer:
    """A byte-level tokenizer with some merges, so that a text has more than one spelling."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>", "<|im_start|>", STOP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(
        ["calculator expression weather parameters name the answer is"] * 4, trainer
    )
    return TextTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=core, eos_token=STOP, pad_token="<|endoftext|>")
    )


class ScriptedStream:
    """A stream over a sampler's `sample`: each poll answers at most `most` queued prompts with
    equal params.
    """

    def __init__(self, sampler, most: int | None = None) -> None:
        self._sampler, self._most = sampler, most
        self._queue: dict[int, tuple[Tokens, SamplingParams]] = {}

    def submit(self, key: int, prompt: Tokens, params: SamplingParams, grammar=None) -> None:
        assert grammar is None, "a script follows no grammar"
        assert key not in self._queue, f"key {key} is queued already"
        self._queue[key] = (prompt, params)

    def poll(self) -> list[tuple[int, list[Sample]]]:
        if not self._queue:
            return []
        params = next(iter(self._queue.values()))[1]
        keys = [key for key, (_, own) in self._queue.items() if own == params][: self._most]
        prompts = [self._queue.pop(key)[0] for key in keys]
        return list(zip(keys, self._sampler.sample(prompts, params, keys), strict=True))

    def cancel(self, key: int) -> None:
        self._queue.pop(key, None)

    def close(self) -> None:
        self._queue.clear()


class ScriptedSampler:
    """Says what the script says. `spelled` writes byte by byte, as no tokenizer would. `asked`
    notes (key, prompt).
    """

    def __init__(self, script: Script, spelled: bool = False) -> None:
        self.script, self.spelled = script, spelled
        self.asked: list[tuple[int, list[int]]] = []

    def sample(
        self, prompts: Sequence[Tokens], params: SamplingParams, keys: Sequence[int] | None = None
    ) -> list[list[Sample]]:
        keys = range(len(prompts)) if keys is None else keys
        return [
            [self._one(key, list(prompt), params)]
            for key, prompt in zip(keys, prompts, strict=True)
        ]

    def _one(self, key: int, prompt: list[int], params: SamplingParams) -> Sample:
        self.asked.append((key, prompt))
        tokenizer = byte_tokenizer()
        text = self.script(tokenizer.decode(prompt))
        pieces = list(text) if self.spelled else [text]
        ids = [token for piece in pieces for token in tokenizer.encode(piece)]
        ids = [*ids, *tokenizer.stop_ids([STOP])]
        cut = ids[: params.max_tokens]
        reason = StopReason.STOP if len(cut) == len(ids) else StopReason.LENGTH
        return Sample(cut, [-0.5] * len(cut), reason)

    def stream(self) -> ScriptedStream:
        return ScriptedStream(self)

    def logprobs(self, rows, temperature=1.0):
        raise NotImplementedError


class OneAtATime(ScriptedSampler):
    """The same, but prompts are answered singly, in a random order."""

    def __init__(self, script: Script, seed: int) -> None:
        super().__init__(script)
        self.rng = random.Random(seed)

    def stream(self):
        sampler = self

        class Stream(ScriptedStream):
            def poll(self):
                if not self._queue:
                    return []
                key = sampler.rng.choice(sorted(self._queue))
                prompt, params = self._queue.pop(key)
                return [(key, sampler.sample([prompt], params, [key])[0])]

        return Stream(self)


def scripted_policy(
    script: Script,
    dialect: str = "tagged",
    max_tokens: int = 400,
    max_context: int = 0,
    sampler: ScriptedSampler | None = None,
) -> TokenPolicy:
    tokenizer = byte_tokenizer()
    params = SamplingParams(max_tokens=max_tokens, temperature=0, seed=11)
    chosen = sampler or ScriptedSampler(script)
    return TokenPolicy(
        chosen, open_dialect(tokenizer, dialect, "chatml"), tokenizer, params, max_context
    )


def task(name: str, query: str, tools: Sequence[Tool], expect: dict, **more: str) -> Task:
    """A task with one question."""
    source = {
        "id": name,
        "messages": [{"role": "user", "content": query}],
        "expect": expect,
        **more,
    }
    return Task.from_dict({**source, "tools": [tool.to_dict() for tool in tools]})


def last_user(prompt: str) -> str:
    """The text of the last user turn in a prompt."""
    return prompt.rsplit("<|im_start|>user\n", 1)[1].split(STOP)[0]
