"""`toolhone serve --record FOLDER`: the sessions of a server become lines of episodes.jsonl.

    service = RecordingService(model, Path("recorded"), rewards)
    read_episodes(Path("recorded"))          # the episodes again, with their exact token ids

A session ends with its reward, or with the server. Its requests are sampled as they ask.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolhone.agents.gateway import Posted
from toolhone.agents.openai import ChatRequest
from toolhone.agents.sessions import AgentSession, SessionEndedError
from toolhone.api import Model
from toolhone.backends.base import StopReason
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.driver import sample_key
from toolhone.episodes.episode import Episode, EpisodeStatus, Recording, TurnOutcome
from toolhone.episodes.policy import Turn
from toolhone.errors import CapabilityError, DataError, RunError, UserError
from toolhone.rewards.reward_registry import Reward, compute_reward
from toolhone.runs.run import write_json, writing
from toolhone.schema import Json, Message, Task, Tool, dicts_of
from toolhone.serve.app import ModelService
from toolhone.serve.worker import Opened
from toolhone.sources.files import BadLine, read_lines
from toolhone.tools.result import ToolResult, ToolStatus

EPISODES, ABOUT = "episodes.jsonl", "recorded.json"
MOST_SESSIONS = 4096
"""Sessions that may be open at the same time."""


class RecordingService(ModelService):
    """Answers requests with one model and records their sessions."""

    any_model = True

    def __init__(self, model: Model, folder: Path, rewards: Sequence[Reward] = ()) -> None:
        super().__init__(model, self._open)
        self._folder, self._rewards = folder, rewards
        self._sessions: dict[str, tuple[int, AgentSession]] = {}
        self._ended = set[str]()
        self._lock = threading.Lock()
        if (folder / ABOUT).exists() or (folder / EPISODES).exists():
            raise RunError(f"--record: {folder} holds recorded sessions; name another folder")
        about: Json = {"model": model.name, "format": model.certificate.to_dict()}
        about["constrained"] = model.experiment.evaluation.constrained
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / ABOUT, about)

    def submit(self, chat: ChatRequest, session: str) -> Future[Turn]:
        if not session:
            right = "send its name as the API key, or as the header x-session-id"
            raise CapabilityError(f"a request that is recorded belongs to a session; {right}")
        if session in self._ended:
            raise SessionEndedError(f"the session {session!r:.80} has ended; name a new one")
        return self.worker.submit(chat, session)

    def reward(self, session: str, reward: Posted) -> dict[str, Json]:
        """Take a reward and write the episode."""
        with self._lock:
            if session not in self._sessions:
                known = "has ended" if session in self._ended else "has no request yet"
                raise SessionEndedError(f"the session {session!r:.80} {known}")
            return self._write(session, reward)

    def close(self) -> None:
        """End the worker and write the sessions that are still open."""
        super().close()
        self.worker.join()
        with self._lock:
            for name in list(self._sessions):
                self._write(name, None)

    def _open(self, chat: ChatRequest, session: str) -> Opened:
        """Continue a session; called in the worker's thread."""
        with self._lock:
            if session in self._ended:
                raise SessionEndedError(f"the session {session!r:.80} has ended")
            if session not in self._sessions and len(self._sessions) >= MOST_SESSIONS:
                right = "post a reward for each when it ends"
                raise CapabilityError(f"{MOST_SESSIONS} sessions are open already; {right}")
            number = len(self._sessions) + len(self._ended) + 1
            number, one = self._sessions.setdefault(
                session, (number, AgentSession(self.worker.policy))
            )
            request = one.ask(chat)
        key = sample_key(number, request.turn)

        def record(turn: Turn) -> Turn:
            with self._lock:
                return one.add(chat, request, turn)

        return request.prompt, key, record

    def _write(self, name: str, reward: Posted | None) -> dict[str, Json]:
        """Write the episode of a session, with its reward, and end it."""
        _, session = self._sessions.pop(name)
        self._ended.add(name)
        episode = session.episode(name, reward)
        record = episode.recording
        assert record is not None, "a session records"
        line = episode_to_dict(episode)
        line["sampling"] = [asdict(params) for params in session.params]
        if self._rewards and episode.turns:
            task = Task(name, record.messages, record.tools)
            try:
                result = compute_reward(self._rewards, task, episode)
                line["scores"] = {"reward": result.total, **result.parts}
            except UserError as error:  # the session is kept without it
                print(f"note: session {name}: {error}", file=sys.stderr)
        with writing(self._folder), (self._folder / EPISODES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        shown = {key: line[key] for key in ("id", "ending", "reward", "breaks")}
        scores = {} if line.get("scores") is None else {"scores": line["scores"]}
        return {**shown, "turns": len(episode.turns), **scores}


def episode_to_dict(episode: Episode) -> dict[str, Json]:
    """A recorded episode as a line of a file: a conversation, and beside it every turn with ids."""
    record = episode.recording or Recording()
    return {
        "id": episode.task_id,
        "messages": dicts_of(record.messages),
        "tools": dicts_of(record.tools),
        "ending": episode.ending.value,
        "outcomes": [outcome.value for outcome in episode.outcomes],
        "reward": record.reward,
        "breaks": dict(record.breaks),
        "results": [
            [{"outcome": one.outcome.value, "content": one.content} for one in results]
            for results in episode.results
        ],
        "turns": [
            {
                "message": turn.message.to_dict(),
                "text": turn.text,
                "tokens": turn.tokens,
                "logprobs": turn.logprobs,
                "prompt": turn.prompt,
                "prefill": turn.prefill,
                "problem": turn.problem.value,
                "stop_reason": turn.stop_reason.value,
            }
            for turn in episode.turns
        ],
    }


def read_episodes(folder: Path, report: Callable[[str], None] = lambda _: None) -> list[Episode]:
    """Read the recorded episodes of a folder; report and leave out a last line that was cut off."""
    path = folder / EPISODES
    if not path.is_file():
        raise DataError(f"{folder} holds no recorded sessions: there is no {EPISODES} in it")
    rows = [row for _, row in read_lines(path)]
    if isinstance(last := rows[-1], BadLine):
        rows.pop()
        report(f"{last.line}: cut off, left out")
    if bad := next((row for row in rows if isinstance(row, BadLine)), None):
        raise bad.error
    try:
        return [_read_episode(row) for row in rows if not isinstance(row, BadLine)]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a file of episodes: {error!r:.80}") from None


def _read_episode(line: dict[str, Any]) -> Episode:
    turns = tuple(
        Turn(
            Message.from_dict(one["message"]),
            one["text"],
            ParseProblem(one["problem"]),
            list(one["tokens"]),
            list(one["logprobs"]),
            StopReason(one["stop_reason"]),
            tuple(one["prompt"]),
            tuple(one["prefill"]),
        )
        for one in line["turns"]
    )
    results = tuple(
        tuple(ToolResult(ToolStatus(one["outcome"]), one["content"]) for one in each)
        for each in line["results"]
    )
    messages = tuple(Message.from_dict(one) for one in line["messages"])
    tools = tuple(Tool.of(one) for one in line["tools"])
    record = Recording(messages, tools, line["reward"], line["breaks"])
    outcomes = tuple(map(TurnOutcome, line["outcomes"]))
    ending = EpisodeStatus(line["ending"])
    states = (None,) * sum(map(bool, results))
    return Episode(
        line["id"], turns, results, ending, outcomes=outcomes, states=states, recording=record
    )
