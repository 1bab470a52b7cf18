"""Asks a stronger model behind an OpenAI-compatible address, and keeps every paid reply on disk.

    client = TeacherClient.open(plan)                    # the section `data.teacher`
    reply = client.ask("single 7", messages)             # a `PaidReply`, or None

A reply is written to `plan.replies` as soon as it is there, under a hash of the question, and never
asked for again. The key comes from the environment and is never written.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from toolhone.config.small_sections import TeacherModelSection
from toolhone.errors import ConfigError, DataError
from toolhone.runs.run import write_text, writing
from toolhone.schema import Json
from toolhone.tools.http import Address, HttpReply, HttpRequest, exchange
from toolhone.tools.result import CallError, ToolStatus

MAX_BYTES = 4_000_000
PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before the second try, doubled for each further one; and the most that is waited."""
WRONG_USE = (400, 401, 403, 404, 405, 422)
"""Answers after which no other request can succeed."""


@dataclass(frozen=True)
class PaidReply:
    """The text of a reply, and the tokens that it cost; `recalled`: it was paid for earlier."""

    text: str
    prompt_tokens: int = 0
    reply_tokens: int = 0
    recalled: bool = False


@dataclass
class TeacherClient:
    """The address with its journal; safe to use from several threads."""

    plan: TeacherModelSection
    address: Address
    target: str
    key: str
    paid: dict[str, PaidReply] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    """Requests so far, those of earlier runs and failed ones included."""
    recalled: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def open(plan: TeacherModelSection) -> TeacherClient:
        """Read the journal; `ConfigError` for an address that is none."""
        url = urlsplit(plan.base_url or "")
        where = "data.teacher.base_url"
        if url.scheme not in ("http", "https") or not url.netloc:
            raise ConfigError(f"{where} {plan.base_url!r} is no address such as https://host/v1")
        if "@" in url.netloc or url.query:
            raise ConfigError(
                f"{where} holds a secret or a query; a key comes from {where}.key_env"
            )
        address = Address.of(url.scheme, url.netloc, where)
        target = f"{url.path.rstrip('/')}/chat/completions"
        client = TeacherClient(plan, address, target, os.environ.get(plan.key_env, ""))
        client._read_journal(Path(plan.replies))
        return client

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of all prompts and of all replies that were paid for."""
        paid = self.paid.values()
        return sum(one.prompt_tokens for one in paid), sum(one.reply_tokens for one in paid)

    @property
    def price(self) -> float:
        """What all replies cost, at the prices of the plan."""
        prompts, replies = self.tokens
        return (prompts * self.plan.price_in + replies * self.plan.price_out) / 1e6

    @property
    def without_usage(self) -> int:
        """Replies whose cost the address did not tell; they count as 0 tokens."""
        return sum(one.prompt_tokens + one.reply_tokens == 0 for one in self.paid.values())

    def within(self, most_requests: int) -> bool:
        """Whether the budget allows another request."""
        most = self.plan.max_tokens
        if most is not None and self.without_usage:
            raise DataError(
                f"data.teacher.max_tokens={most} cannot be held: {self.plan.base_url} does not "
                "tell what its replies cost (`usage`); set data.teacher.max_requests instead"
            )
        return self.requests < most_requests and (most is None or sum(self.tokens) < most)

    def ask(
        self, name: str, messages: Sequence[Mapping[str, Json]], schema: Json = None
    ) -> PaidReply | None:
        """The reply to messages, paid for now or earlier; None after `retries` failures.

        `name` sets questions with equal messages apart; `schema`: what the address is to hold the
        reply to. Raises `DataError` where the address refuses every request.
        """
        body, digest = self._body(name, messages, schema)
        with self._lock:
            if (known := self.paid.get(digest)) is not None:
                self.recalled += 1
                return PaidReply(known.text, known.prompt_tokens, known.reply_tokens, True)
        for attempt in range(self.plan.retries + 1):
            if attempt:
                time.sleep(min(LONGEST_PAUSE, PAUSE * 2 ** (attempt - 1)))
            reply, problem = self._request(body)
            with self._lock:
                self.requests += 1
                if reply is not None:
                    self.paid[digest] = reply
                    self._write(
                        {
                            "id": digest,
                            "name": name,
                            "text": reply.text,
                            "prompt_tokens": reply.prompt_tokens,
                            "reply_tokens": reply.reply_tokens,
                        }
                    )
                    return reply
                self.failed[problem] += 1
                self._write({"failed": problem})
        return None

    def knows(self, name: str, messages: Sequence[Mapping[str, Json]], schema: Json = None) -> bool:
        """Whether the reply was paid for earlier."""
        return self._body(name, messages, schema)[1] in self.paid

    def _body(
        self, name: str, messages: Sequence[Mapping[str, Json]], schema: Json
    ) -> tuple[dict[str, Json], str]:
        """The request, and the hash that names its reply in the journal."""
        body: dict[str, Json] = {
            "model": self.plan.model,
            "messages": list(messages),
            "temperature": self.plan.temperature,
            "max_tokens": self.plan.max_reply_tokens,
        }
        if schema is not None:
            named = {"name": "conversation", "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        text = json.dumps([name, body], sort_keys=True)
        return body, hashlib.sha256(text.encode()).hexdigest()

    def _request(self, body: Mapping[str, Json]) -> tuple[PaidReply | None, str]:
        """The reply, or why there is none."""
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = HttpRequest("POST", self.target, headers, json.dumps(body).encode())
        try:
            reply = exchange(self.address, request, self.plan.timeout, MAX_BYTES)
        except CallError as error:
            late = error.outcome is ToolStatus.TIMEOUT
            return None, "no reply in time" if late else "the connection failed"
        status = reply.response.status_code
        if status in WRONG_USE:
            shown = reply.body[:300].decode("utf-8", "replace")
            shown = shown.replace(self.key, "***") if self.key else shown
            raise DataError(
                f"data.teacher: {self.plan.base_url} answers HTTP {status}: {shown}; check "
                f"base_url, model and the key in the variable {self.plan.key_env}"
            )
        if status != 200:
            return None, f"HTTP {status}"
        return read_completion(reply)

    def _read_journal(self, path: Path) -> None:
        """Read what was paid for; a last line that was cut off is removed."""
        if not path.is_file():
            return
        *lines, torn = path.read_text(encoding="utf-8").split("\n")
        if torn:
            write_text(path, "".join(f"{line}\n" for line in lines))
        self.requests = len(lines)
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if "failed" not in entry:
                    numbers = entry["prompt_tokens"], entry["reply_tokens"]
                    self.paid[entry["id"]] = PaidReply(entry["text"], *numbers)
            except (ValueError, TypeError, KeyError):
                right = "it is no file of replies; name another one in data.teacher.replies"
                raise DataError(f"{path}, line {number}: {line:.60}: {right}") from None

    def _write(self, entry: Mapping[str, Json]) -> None:
        path = Path(self.plan.replies)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())


def read_completion(reply: HttpReply) -> tuple[PaidReply | None, str]:
    """The text and usage of a chat completion, or what is wrong with it."""
    try:
        value = json.loads(reply.body)
        text = value["choices"][0]["message"]["content"]
        usage = value.get("usage") or {}
        prompts, replies = (int(usage.get(f"{n}_tokens") or 0) for n in ("prompt", "completion"))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None, "the reply is no chat completion"
    return PaidReply(str(text or ""), prompts, replies), ""
