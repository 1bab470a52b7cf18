"""The GRPO guide of the earlier MLX system: its thirteen command lines, and rows in its format."""

from __future__ import annotations

import json
import random

START = "--model MODEL --data DATA --train --train-type lora"
FULL = (
    "--learning-rate 1e-5 --max-completion-length 256 --temperature 0.7 --beta 0.1 "
    "--reward-functions tool_call_exact tool_call_function tool_call_overall "
    "--reward-weights 0.3 0.4 0.3"
)
SIZES = "--iters 1000 --batch-size 4 --group-size 8"
LINES = {
    "recommended": f"{START} {SIZES} {FULL} --save-every 100 --adapter-path adapters/tool_calling",
    "strict": f"{START} --reward-functions tool_call_exact --reward-weights 1.0 --epsilon 0.1 "
    "--epsilon-high 0.2",
    "phase 1": f"{START} --reward-functions tool_call_function tool_call_parseable "
    "--reward-weights 0.8 0.2 --iters 100",
    "phase 2": f"{START} --reward-functions tool_call_function tool_call_params "
    "--reward-weights 0.5 0.5 --iters 200",
    "phase 3": f"{START} --reward-functions tool_call_exact tool_call_overall "
    "--reward-weights 0.7 0.3 --iters 200",
    "balanced": f"{START} --reward-functions tool_call_exact tool_call_function tool_call_overall "
    "--reward-weights 0.3 0.4 0.3 --beta 0.1",
    "no thoughts": f"{START} --enforce-thinking false --two-phase-samples-per-group -1",
    "curriculum": f"{START} --curriculum-enabled true --curriculum-start-ratio 1.0 "
    "--curriculum-end-ratio 0.0 --curriculum-steps 500",
    "memory": f"{START} --grad-checkpoint true --max-completion-length 128 --batch-size 2 "
    "--group-size 4",
    "adapters": f"{START} --train-mode grpo --lora-layers 16 --lora-rank 32 --lora-alpha 64 "
    "--lora-dropout 0.1",
    "quick": f"{START} --iters 50 --batch-size 2 --group-size 4 --max-completion-length 128 "
    "--reward-functions tool_call_function --adapter-path adapters/tool_test",
    "full": f"{START} {SIZES} {FULL} --lora-layers 16 --lora-rank 32 --save-every 100 "
    "--adapter-path adapters/tool_calling_full --wandb-project tool-calling-grpo",
    "production": f"{START} --iters 2000 --batch-size 8 --group-size 16 --learning-rate 5e-6 "
    "--max-completion-length 384 --temperature 0.6 --beta 0.08 --reward-functions tool_call_exact "
    "tool_call_function tool_call_params tool_call_overall --reward-weights 0.25 0.3 0.2 0.25 "
    "--lora-layers 24 --lora-rank 64 --lora-alpha 128 --grad-checkpoint --save-every 50 "
    "--adapter-path adapters/tool_calling_production --wandb-project tool-calling-grpo",
}
"""The thirteen commands of the guide; those that it prints as fragments follow its common start."""
FUNCTIONS = [
    {
        "name": "calculate_factorial",
        "description": "The factorial of a whole number.",
        "parameters": {"n": {"description": "The number.", "type": "int"}},
    },
    {
        "name": "reverse_words",
        "description": "A text with its words reversed.",
        "parameters": {"text": {"description": "The text.", "type": "str"}},
    },
]


def guide_rows(count: int) -> list[dict]:
    """Rows as the guide describes them: everything in the prompt, the answer as lines of calls."""
    rng = random.Random(0)
    rows = []
    for number in range(count):
        if number % 2:
            numbers = rng.sample(range(1, 40), 1 + number % 3 // 2)
            question = f"What is the factorial of {' and of '.join(map(str, numbers))}?"
            answer = "\n".join(f"calculate_factorial(n={n})" for n in numbers)
        else:
            words = " ".join(rng.sample(["red", "blue", "sun", "sea", "cat", "dog", "tree"], 3))
            question, answer = f"Reverse the words of: {words}", f"reverse_words(text={words!r})"
        name = answer.partition("(")[0]
        rows.append(
            {
                "prompt": f"Use these functions.\n\n{json.dumps(FUNCTIONS)}\n\n{question}",
                "answer": answer,
                "type": "tool_call",
                "ground_truth": name,
                "ground_truth_text": name,
                "possible_boxed_answers": [each["name"] for each in FUNCTIONS],
                "is_multi_answer": "\n" in answer,
                "confidence": 1.0,
                "source": "tool_calling",
            }
        )
    return rows
