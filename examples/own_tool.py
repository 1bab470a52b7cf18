"""A tool of one's own, data made for it, a trained model that calls it: the Python interface in a
few lines.

    python examples/own_tool.py

Takes about a minute on two cores with the embedded model; it is far too short a training for a good
one.
"""

from pathlib import Path

from toolhone import (
    ChatSession,
    Conversation,
    Message,
    Registry,
    Tool,
    ToolCall,
    evaluate,
    experiment,
    open_model,
    tool,
    train,
)
from toolhone.sources.files import write_jsonl


@tool
def area(width: int, height: int) -> int:
    """The area of a rectangle.

    Args:
        width: in metres
        height: in metres
    """
    return width * height


def conversation(width: int, height: int) -> Conversation:
    """A question, the right call, what the tool says, and the answer."""
    call = ToolCall("area", {"width": width, "height": height}, f"c{width}")
    result = Registry([area]).run(call).content
    return Conversation(
        (
            Message("user", f"How large is a room of {width} by {height} metres?"),
            Message("assistant", None, tool_calls=(call,)),
            Message("tool", result, tool_call_id=call.id, name="area"),
            Message("assistant", f"It has {result} square metres."),
        ),
        (Tool.of(area),),
        id=f"{width}x{height}",
    )


def main() -> None:
    folder = Path("runs/own-tool")
    write_jsonl(
        "runs/own-tool.jsonl",
        (conversation(w, h).to_dict() for w in range(2, 40) for h in range(2, 40, 3)),
    )
    plan = experiment(
        {
            "data": {"path": "runs/own-tool.jsonl"},
            "tools": [f"{__file__}:area"],
            "training": {
                "steps": 120,
                "batch_size": 16,
                "lora": None,
                "optimizer": "muon",
                "learning_rate": 0.003,
            },
        }
    )
    train(plan, folder)
    model = open_model(folder)
    print(evaluate(model).metrics["exact_match"])
    for event in ChatSession(model.policy(), model.registry).say(
        "How large is a room of 7 by 11 metres?"
    ):
        print(event)


if __name__ == "__main__":
    main()
