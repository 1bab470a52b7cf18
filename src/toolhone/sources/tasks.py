"""Tasks from conversations: each place where the assistant had to decide becomes a task that asks
for that decision.

    tasks = [task for conversation in conversations for task in tasks_of(conversation)]

An assistant turn with calls, after a user turn or after tool results, gives a task that expects
these calls; a plain reply right after a user turn gives one that expects no call. Everything before
that turn is the task's history, so a task never depends on what a model said before. A final reply
after tool results gives no task: its wording is not something to match. Nothing is played or scored
here.
"""

from __future__ import annotations

import hashlib
import json

from toolhone.schema import Conversation, Expect, ExpectedCall, Message, Task


def tasks_of(conversation: Conversation, category: str = "") -> list[Task]:
    """The tasks of a conversation, in the order of its turns; ids are `<conversation id>#<index of
    the assistant's message>`.

    Without a category each task gets one by its shape: `one_call`, `several_calls`, `later_call`
    (after results) or `no_call`.
    """
    identity = conversation.id or fingerprint(conversation.messages)[:12]
    tasks = []
    for index, message in enumerate(conversation.messages):
        expect = _expectation(conversation.messages, index)
        if expect is not None:
            tasks.append(
                Task(
                    id=f"{identity}#{index}",
                    messages=conversation.messages[:index],
                    tools=conversation.tools,
                    expect=expect,
                    category=category or _shape(conversation.messages[index - 1], message),
                    source=conversation.source,
                )
            )
    return tasks


def _expectation(messages: tuple[Message, ...], index: int) -> Expect | None:
    message, before = messages[index], messages[index - 1].role if index else ""
    if message.role != "assistant" or before not in ("user", "tool"):
        return None
    if message.tool_calls:
        return Expect(
            calls=tuple(ExpectedCall(call.name, call.arguments) for call in message.tool_calls)
        )
    return Expect(no_call=True) if before == "user" else None


def _shape(before: Message, message: Message) -> str:
    if not message.tool_calls:
        return "no_call"
    if before.role == "tool":
        return "later_call"
    return "one_call" if len(message.tool_calls) == 1 else "several_calls"


def fingerprint(messages: tuple[Message, ...]) -> str:
    """A hash (64 hexadecimal digits) of what messages say; the ids of calls do not count, since
    they link and say nothing."""
    said = [
        [
            message.role,
            message.content,
            message.reasoning,
            [[call.name, call.arguments] for call in message.tool_calls],
        ]
        for message in messages
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
