"""A talk on a terminal: what lines and commands do, what is kept of it, and what survives a Ctrl-C.
The model is a script.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.scripted import ScriptedSampler, byte_tokenizer
from toolhone.backends.base import SamplingParams
from toolhone.cli.chat import COMMANDS, ChatREPL, Next, TranscriptWriter
from toolhone.cli.console import Terminal, event_lines
from toolhone.dialects.choose import open_dialect
from toolhone.doctor.checks import check
from toolhone.episodes.chat_session import ChatEnd, ChatSession, Event, transcript_of
from toolhone.episodes.policy import TokenPolicy, Turn
from toolhone.errors import RunError
from toolhone.schema import Message, ToolCall
from toolhone.sources.messages import read_conversations
from toolhone.tools.registry import Registry

CALL = '{"tool": "double", "args": {"number": 21}}'
WRONG_TYPE = '{"tool": "double", "args": {"number": "many"}}'
UNKNOWN = '{"tool": "triple", "args": {"number": 21}}'
HELLO = '{"final": "Hello."}'
DONE = '{"final": "It is 42."}'
BROKEN = '{"tool": "doub'


def double(number: int) -> int:
    """Twice a number.

    Args:
        number: any
    """
    if number == 13:
        raise ValueError("13 is not doubled here")
    return 2 * number


class Paper:
    """A screen that notes what is shown. `at_event` is called with each event."""

    def __init__(self, at_event: Callable[[Event], None] = lambda _: None) -> None:
        self.events: list[Event] = []
        self.notes: list[str] = []
        self.shown: list[str] = []
        self.at_event = at_event

    def event(self, event: Event) -> None:
        self.events.append(event)
        self.at_event(event)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def show(self, text: str) -> None:
        self.shown.append(text)

    raw = show


class Bench:
    """A talk with a scripted model, its screen, and the file it is kept in."""

    def __init__(
        self,
        answers: list[str],
        path: Path | None = None,
        interactive: bool = True,
        paper: Paper | None = None,
        max_turns: int = 4,
    ) -> None:
        script = iter(answers)
        self.tokenizer = byte_tokenizer()
        self.sampler = ScriptedSampler(lambda _: next(script))
        self.registry = Registry([double])
        policy = TokenPolicy(
            self.sampler,
            open_dialect(self.tokenizer, "json", "chatml"),
            self.tokenizer,
            SamplingParams(200, 0.0),
            4000,
        )
        self.paper = paper or Paper()
        self.writer = TranscriptWriter(path, self.registry.tools)
        self.repl = ChatREPL(
            lambda: ChatSession(policy, self.registry, max_turns),
            self.registry.tools,
            self.paper,
            self.writer,
            lambda turn, whole: self.tokenizer.decode(
                [*(turn.prompt if whole else ()), *turn.tokens]
            ),
            interactive,
        )

    def take(self, *lines: str) -> Next:
        return [self.repl.take(line) for line in lines][-1]

    def roles(self) -> list[str]:
        return [message.role for message in self.repl.session.messages]


def saved(path: Path) -> list[list[str]]:
    """The roles of each conversation in a file, which must read and pass the data check."""
    conversations = read_conversations(path)
    assert check(conversations, path.name).findings == []
    return [[message.role for message in conversation.messages] for conversation in conversations]


def test_calls_and_results_are_shown_as_they_happen() -> None:
    paper = Paper(lambda event: order.append("turn" if isinstance(event, Turn) else "result"))
    order: list[str] = []
    bench = Bench([CALL, DONE], paper=paper)
    assert bench.take("double 21") is Next.CONTINUE
    assert order == ["turn", "result", "turn"]
    assert bench.roles() == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize("line", ["", "   ", "/quit", "/quit now"])
def test_an_empty_line_and_quit_end_the_talk(line: str) -> None:
    assert Bench([]).take(line) is Next.END


def test_help_lists_every_command_and_each_of_them_is_known() -> None:
    bench = Bench([])
    bench.take("/help")
    assert all(command in bench.paper.shown[0] for command in COMMANDS)
    bench.take(*[command for command in COMMANDS if command != "/quit"])
    assert not [text for text in bench.paper.notes if "there is no command" in text]


def test_an_unknown_command_names_the_nearest_and_says_nothing_to_the_model() -> None:
    bench = Bench([])
    bench.take("/udno")
    assert "did you mean '/undo'" in bench.paper.notes[0]
    assert bench.sampler.asked == []


def test_two_slashes_say_one() -> None:
    bench = Bench([HELLO])
    bench.take("//etc is a folder")
    assert bench.repl.session.messages[0].content == "/etc is a folder"


def test_tools_are_listed_with_the_first_line_of_their_description() -> None:
    bench = Bench([])
    bench.take("/tools")
    assert bench.paper.shown == ["double: Twice a number."]


def test_undo_goes_on_with_the_token_ids_of_before() -> None:
    bench = Bench([HELLO, DONE, DONE])
    bench.sampler.spelled = True
    bench.take("hi", "wrong", "/undo", "right")
    assert bench.paper.notes == ["taken back: wrong"]
    (_, first), (_, second), (_, third) = bench.sampler.asked
    text = bench.tokenizer.decode(third)
    kept = len(first) + len(HELLO)
    assert third[:kept] == second[:kept]
    assert "right" in text
    assert "wrong" not in text
    assert bench.roles() == ["user", "assistant"] * 2


def test_undo_with_nothing_said_says_so() -> None:
    bench = Bench([])
    bench.take("/undo")
    assert bench.paper.notes == ["there is no message yet"]


def test_another_try_draws_from_another_random_stream() -> None:
    bench = Bench([HELLO, HELLO])
    bench.take("hi", "/undo", "hi")
    assert [key for key, _ in bench.sampler.asked] == [0, 1]


def test_raw_shows_stop_marks_and_raw_all_the_prompt_too() -> None:
    bench = Bench([CALL, DONE])
    bench.take("double 21", "/raw", "/raw all")
    assert bench.paper.shown[:2] == [f"{CALL}<|im_end|>", f"{DONE}<|im_end|>"]
    assert bench.paper.shown[2].startswith("<|im_start|>system")
    assert bench.paper.shown[2].endswith(f"{DONE}<|im_end|>")
    assert len(bench.paper.shown) == 3


def interrupt(_: str) -> str:
    raise KeyboardInterrupt


def test_ctrl_c_while_the_model_writes_takes_the_question_back_and_the_talk_goes_on(
    tmp_path: Path,
) -> None:
    bench = Bench([HELLO], tmp_path / "talk.jsonl")
    bench.take("hi")
    scripted = bench.sampler.script
    bench.sampler.script = interrupt
    assert bench.take("long story") is Next.CONTINUE
    assert "stopped" in bench.paper.notes[0]
    assert bench.roles() == ["user", "assistant"]
    bench.sampler.script = lambda _: DONE
    bench.take("and now?")
    assert "long story" not in bench.tokenizer.decode(bench.sampler.asked[-1][1])
    assert scripted is not bench.sampler.script
    assert saved(tmp_path / "talk.jsonl") == [["user", "assistant"] * 2]


def test_ctrl_c_between_a_call_and_its_result_leaves_no_call_without_result() -> None:
    def stop_at_result(event: Event) -> None:
        if not isinstance(event, Turn):
            raise KeyboardInterrupt

    bench = Bench([CALL, HELLO], paper=Paper(stop_at_result))
    bench.take("double 21", "hi")
    assert bench.roles() == ["user", "assistant"]


def test_ctrl_c_before_anything_was_begun_takes_nothing_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench([HELLO])
    bench.take("hi")
    monkeypatch.setattr(bench.repl.session, "say", interrupt)
    bench.take("again")
    assert bench.roles() == ["user", "assistant"]


def test_ctrl_c_ends_a_talk_that_nobody_types() -> None:
    bench = Bench([], interactive=False)
    bench.sampler.script = interrupt
    with pytest.raises(KeyboardInterrupt):
        bench.take("hi")


def test_an_exchange_that_was_not_followed_is_taken_back_by_the_next() -> None:
    bench = Bench([CALL, HELLO])
    dialogue = bench.repl.session
    next(dialogue.say("double 21"))
    assert dialogue.exchanges[-1].ended is ChatEnd.STOPPED
    list(dialogue.say("hi"))
    assert bench.roles() == ["user", "assistant"]


def test_a_full_context_is_a_sentence_and_the_talk_can_begin_anew() -> None:
    bench = Bench([HELLO, DONE])
    bench.take("hi", "x" * 5000)
    assert "fills the model's context" in bench.paper.notes[0]
    assert "/reset" in bench.paper.notes[0]
    bench.take("/reset", "hi")
    assert bench.roles() == ["user", "assistant"]


def test_a_model_that_only_calls_is_told_of() -> None:
    bench = Bench([CALL, CALL], max_turns=2)
    bench.take("double 21")
    assert bench.paper.notes == [
        "the model called tools 2 times and did not answer (evaluation.max_turns)"
    ]


def test_a_tool_that_fails_is_shown_with_its_reason() -> None:
    lines = []
    bench = Bench(['{"tool": "double", "args": {"number": 13}}', UNKNOWN, HELLO])
    bench.take("double 13")
    for event in bench.paper.events:
        lines += [line.plain for line in event_lines(event)]
    assert "  double -> [error] 13 is not doubled here" in lines
    assert any(
        line.startswith("  triple -> [unknown_tool] there is no tool 'triple'") for line in lines
    )


def test_what_model_and_tool_write_cannot_control_the_terminal() -> None:
    call = ToolCall("dou\x1b[2Jble", {"text": "a\x1b]0;title\x07", "code": "x = 1\n\x1b[31mx"})
    bench = Bench([])
    result = bench.registry.run(ToolCall("dou\x1bble", {}))
    turn = Turn(Message("assistant", "\x1b[2J", tool_calls=(call,)), "")
    shown = [line.plain for event in (turn, (call, result)) for line in event_lines(event)]
    assert not [line for line in shown if "\x1b" in line or "\x07" in line]


def test_a_program_in_a_call_is_shown_whole_on_its_own_lines() -> None:
    code = "total = 0\nfor i in range(10):\n    total += i\n" + "# " + "x" * 200
    turn = Turn(Message("assistant", None, tool_calls=(ToolCall("python", {"code": code}),)), "")
    text = "\n".join(line.plain for line in event_lines(turn))
    assert "    |     total += i" in text
    assert "x" * 200 in text


def test_a_talk_is_kept_while_it_goes_on_as_one_conversation(tmp_path: Path) -> None:
    path = tmp_path / "chats" / "talk.jsonl"
    bench = Bench([HELLO, CALL, DONE], path)
    bench.take("hi")
    assert saved(path) == [["user", "assistant"]]
    bench.take("double 21")
    assert saved(path) == [["user", "assistant", "user", "assistant", "tool", "assistant"]]
    assert bench.writer.close() == [f"saved as a conversation to train on: {path}"]


def test_undo_takes_it_out_of_the_file_too_and_an_empty_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    bench = Bench([HELLO], path)
    bench.take("hi", "/undo")
    assert not path.exists()
    assert bench.writer.close() == []


def test_a_new_talk_is_another_conversation_and_the_same_talk_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    bench = Bench([HELLO, DONE, HELLO], path)
    bench.take("hi", "/reset", "again", "/reset", "hi")
    assert saved(path) == [["user", "assistant"]] * 2
    assert len({conversation.id for conversation in read_conversations(path)}) == 2


def test_exchanges_that_are_nothing_to_learn_from_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    bench = Bench([HELLO, BROKEN, WRONG_TYPE, DONE, UNKNOWN, DONE, CALL, DONE], path)
    bench.take("hi", "broken", "wrong type", "unknown tool", "double 21")
    assert saved(path) == [["user", "assistant", "user", "assistant", "tool", "assistant"]]
    assert bench.writer.close()[:2] == [
        "2 messages are not saved: their turn was cut off or could not be read",
        "8 messages are not saved: a call in them does not fit its tool",
    ]
    transcript = transcript_of(bench.repl.session, bench.registry.tools, "x")
    kept = 0 if transcript.conversation is None else len(transcript.conversation.messages)
    assert kept + sum(transcript.left_out.values()) == len(bench.repl.session.messages)


def test_what_is_left_out_at_the_end_is_said_so(tmp_path: Path) -> None:
    bench = Bench([HELLO, BROKEN], tmp_path / "talk.jsonl")
    bench.take("hi", "broken")
    assert "2 messages at the end are not saved" in bench.writer.close()[0]


def test_lines_of_others_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    first, second = Bench([HELLO], path), Bench([DONE, HELLO], path)
    first.take("hi")
    before = path.read_text()
    second.take("how much?", "hello")
    assert path.read_text().startswith(before)
    assert len(read_conversations(path)) == 2
    second.take("/undo", "/undo")
    assert path.read_text() == before


def test_save_writes_now_and_again_in_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    bench = Bench([HELLO, DONE])
    bench.take("hi", f"/save {path}")
    assert bench.paper.notes == [f"2 messages saved to {path}"]
    bench.take("how much?", f"/save {path}")
    assert saved(path) == [["user", "assistant"] * 2]


def test_save_without_a_name_and_into_a_list_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[]")
    bench = Bench([HELLO])
    bench.take("hi", "/save", f"/save {path}", f"/save {tmp_path}")
    assert "needs the name of a file" in bench.paper.notes[0]
    assert "JSON list" in bench.paper.notes[1]
    assert "no ordinary file" in bench.paper.notes[2]
    assert path.read_text() == "[]"


def test_a_file_that_cannot_be_kept_ends_a_talk_that_nobody_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[]")
    with pytest.raises(RunError):
        Bench([HELLO], path, interactive=False).take("hi")


def test_nothing_is_kept_where_no_file_is_named() -> None:
    bench = Bench([BROKEN])
    bench.take("hi")
    assert bench.writer.close() == []


def test_remarks_go_to_standard_error_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = Terminal()
    screen.note("a remark\x1b")
    screen.show("a text\x1b")
    with screen.thinking():
        pass
    out, err = capsys.readouterr()
    assert (out, err) == (
        "a text\N{REPLACEMENT CHARACTER}\n",
        "a remark\N{REPLACEMENT CHARACTER}\n",
    )
