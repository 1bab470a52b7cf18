"""A talk with a person: what the model is shown, what is kept, and what happens when a turn goes
wrong.
"""

from collections.abc import Sequence

from support.scripted import ScriptedSampler, byte_tokenizer
from toolhone.backends.base import SamplingParams, StopReason
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.chat_session import ChatEnd, ChatSession, Event
from toolhone.episodes.policy import TokenPolicy, Turn
from toolhone.tools.registry import Registry

CALL = '{"tool": "calculator", "args": {"expression": "6 * 7"}}'


def talk(
    answers: Sequence[str], max_turns: int = 8, max_tokens: int = 200
) -> tuple[ChatSession, ScriptedSampler]:
    script = iter(answers)
    sampler = ScriptedSampler(lambda _: next(script))
    tokenizer = byte_tokenizer()
    policy = TokenPolicy(
        sampler,
        open_dialect(tokenizer, "json", "chatml"),
        tokenizer,
        SamplingParams(max_tokens, 0.0),
    )
    return ChatSession(policy, Registry(["calculator"]), max_turns), sampler


def roles(dialogue: ChatSession) -> list[str]:
    return [message.role for message in dialogue.messages]


def seen(sampler: ScriptedSampler) -> str:
    """The last prompt as text."""
    return byte_tokenizer().decode(sampler.asked[-1][1])


def test_a_call_runs_and_its_result_is_shown_to_the_model() -> None:
    dialogue, sampler = talk([CALL, '{"final": "It is 42."}'])
    events: list[Event] = list(dialogue.say("What is 6 * 7?"))
    assert isinstance(events[1], tuple)
    assert events[1][1].content == "42"
    assert isinstance(events[2], Turn)
    assert events[2].message.content == "It is 42."
    assert roles(dialogue) == ["user", "assistant", "tool", "assistant"]
    assert "42" in seen(sampler)
    assert dialogue.exchanges[-1].ended is ChatEnd.ANSWERED


def test_results_of_the_last_allowed_turn_reach_the_next_prompt() -> None:
    dialogue, sampler = talk([CALL, CALL, '{"final": "yes"}'], max_turns=2)
    list(dialogue.say("Go on."))
    assert roles(dialogue) == ["user", "assistant", "tool", "assistant", "tool"]
    list(dialogue.say("And?"))
    assert roles(dialogue)[-2:] == ["user", "assistant"]
    assert seen(sampler).count("42") == 2
    assert seen(sampler).count("Go on.") == 1


def test_the_next_prompt_continues_the_ids_of_the_last_one() -> None:
    dialogue, sampler = talk(['{"final": "one"}', '{"final": "two"}'])
    list(dialogue.say("First."))
    list(dialogue.say("Second."))
    first, second = (prompt for _, prompt in sampler.asked)
    assert second[: len(first)] == first


def test_an_unreadable_turn_ends_the_answer_and_is_unreadable() -> None:
    dialogue, _ = talk(['{"final": "good"}', '{"tool": "calcul', '{"final": "again"}'])
    list(dialogue.say("First."))
    (turn,) = dialogue.say("Second.")
    assert isinstance(turn, Turn)
    assert turn.problem is not ParseProblem.NONE
    assert dialogue.exchanges[-1].ended is ChatEnd.UNREADABLE
    list(dialogue.say("Third."))
    assert dialogue.exchanges[-1].ended is ChatEnd.ANSWERED
    assert roles(dialogue) == ["user", "assistant"] * 3


def test_after_a_turn_that_was_cut_off_the_talk_goes_on_from_its_messages() -> None:
    dialogue, sampler = talk(["x" * 500, '{"final": "short"}'], max_tokens=40)
    (turn,) = dialogue.say("First.")
    assert isinstance(turn, Turn)
    assert turn.stop_reason is StopReason.LENGTH
    (answer,) = dialogue.say("Second.")
    assert isinstance(answer, Turn)
    assert answer.message.content == "short"
    assert "First." in seen(sampler)
