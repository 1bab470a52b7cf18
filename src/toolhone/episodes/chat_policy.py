"""A policy behind an OpenAI-compatible address: each turn is one `POST /chat/completions`.

    policy = ChatPolicy.of("http://127.0.0.1:8000/v1#qwen3", max_tokens=256)
    turn = policy.complete(policy.open(messages, tools))

There are no token ids, so nothing can be trained on its turns. The key comes from a variable of the
environment and is never written.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from toolhone.backends.base import StopReason
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.policy import Prompt, Turn
from toolhone.errors import ConfigError, DataError, ServiceError
from toolhone.schema import Json, Message, Tool, ToolCall, dicts_of
from toolhone.tools.http import Address, HttpRequest, exchange
from toolhone.tools.result import CallError

KEY = "OPENAI_API_KEY"
AT_ONCE = 8
"""Requests that are open at the same time."""
MAX_BYTES = 8_000_000
RETRIES, PAUSE = 4, 0.5
"""Further tries after a failure that may pass, and seconds before the first, doubled each time."""


@dataclass
class ChatPolicy:
    """The address with its sampling; `reply_tokens` counts what the address says that it wrote."""

    url: str
    model: str
    address: Address
    target: str
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    timeout: float = 300.0
    reply_tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def of(url: str, max_tokens: int = 256, temperature: float = 0.0, seed: int = 0) -> ChatPolicy:
        """Read `http://host/v1#model`; the model may be left out where the server has one."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
            raise ConfigError(f"{url!r} is no address such as http://127.0.0.1:8000/v1#model")
        address = Address.of(parts.scheme, parts.netloc, "the address")
        target = f"{parts.path.rstrip('/')}/chat/completions"
        model = parts.fragment or "default"
        return ChatPolicy(url, model, address, target, max_tokens, temperature, seed)

    def describe(self) -> dict[str, Json]:
        """How turns are sampled, for a report."""
        sampling = {"temperature": self.temperature, "max_new_tokens": self.max_tokens}
        return {"model": self.model, **sampling, "seed": self.seed, "constrained": None}

    def open(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Prompt:
        return Prompt(tuple(messages), tuple(tools))

    def extend(self, prompt: Prompt, turn: Turn, results: Sequence[Message]) -> Prompt:
        return Prompt((*prompt.messages, turn.message, *results), prompt.tools)

    def fits(self, prompt: Prompt) -> bool:  # noqa: ARG002 (the server decides)
        return True

    def check_tools(self, offers: Iterable[Sequence[Tool]]) -> None:
        """Nothing to check: the server sees the tools with each request."""

    def stream(self) -> ChatStream:
        return ChatStream(self, ThreadPoolExecutor(AT_ONCE, thread_name_prefix="chat"))

    def complete(self, prompt: Prompt) -> Turn:
        """One turn; `ServiceError` where the address gives none."""
        body = json.dumps(self._body(prompt)).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        request, problem = HttpRequest("POST", self.target, headers, body), ""
        for attempt in range(RETRIES + 1):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                reply = exchange(self.address, request, self.timeout, MAX_BYTES)
            except CallError as error:
                problem = str(error)
                continue
            status = reply.response.status_code
            if status == 200:
                return self._read(reply.body)
            shown = reply.body[:200].decode("utf-8", "replace")
            problem = f"HTTP {status}: {shown.replace(key, '***') if key else shown}"
            if status not in (408, 409, 429) and status < 500:
                break
        raise ServiceError(f"{self.url} gives no reply: {problem}; check address, model and {KEY}")

    def _body(self, prompt: Prompt) -> dict[str, Json]:
        messages = []
        for message in dicts_of(prompt.messages):
            calls = [
                {
                    "id": call.get("id") or f"call{number}",
                    "type": "function",
                    "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
                }
                for number, call in enumerate(message.get("tool_calls") or ())
            ]
            plain = {"role": message["role"], "content": message.get("content")}
            if message["role"] == "tool":
                plain["tool_call_id"] = message.get("tool_call_id") or "call0"
            messages.append(plain | ({"tool_calls": calls} if calls else {}))
        tools = dicts_of(prompt.tools)
        return {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            **({"tools": tools} if tools else {}),
        }

    def _read(self, body: bytes) -> Turn:
        """The turn of a completion; arguments that are no JSON object make it malformed."""
        try:
            value = json.loads(body)
            choice = value["choices"][0]
            said, ended = choice["message"], choice.get("finish_reason")
            raw = said.get("tool_calls") or []
            content = said.get("content")
            usage = value.get("usage") or {}
            with self._lock:
                self.reply_tokens += int(usage.get("completion_tokens") or 0)
            written = [(one["function"]["name"], one["function"]["arguments"]) for one in raw]
            names = [str(one.get("id") or "") for one in raw]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            raise ServiceError(
                f"{self.url} answers with no chat completion: {body[:100]!r}"
            ) from None
        text = "\n".join([content or "", *(f"{name}({given})" for name, given in written)]).strip()
        stop = StopReason.LENGTH if ended == "length" else StopReason.STOP
        try:
            calls = []
            for (name, given), identity in zip(written, names, strict=True):
                found = json.loads(given or "{}") if isinstance(given, str | None) else given
                if not isinstance(found, dict):
                    raise ValueError("arguments must be an object")
                call = {"name": name, "arguments": found, "id": identity or None}
                calls.append(ToolCall.from_dict(call))
        except (ValueError, DataError):
            message = Message("assistant", text)
            return Turn(message, text, ParseProblem.NOT_JSON, stop_reason=stop)
        return Turn(Message("assistant", content, tool_calls=tuple(calls)), text, stop_reason=stop)


@dataclass
class ChatStream:
    """Turns of several prompts at once, as `TurnStream` has them."""

    policy: ChatPolicy
    threads: ThreadPoolExecutor
    running: dict[Future[Turn], int] = field(default_factory=dict)

    def submit(self, key: int, prompt: Prompt) -> None:
        self.running[self.threads.submit(self.policy.complete, prompt)] = key

    def poll(self) -> list[tuple[int, Turn]]:
        """Wait until a prompt is answered; returns all that are, [] only when none is left."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        return sorted(((self.running.pop(one), one.result()) for one in done), key=lambda p: p[0])

    def close(self) -> None:
        self.threads.shutdown(cancel_futures=True)
        self.running.clear()
