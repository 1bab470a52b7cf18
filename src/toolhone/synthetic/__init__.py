"""Data for the user's own tools, from their schemas and a few canonical examples.

    examples = read_examples("examples.jsonl", tools)
    templates = ManualTemplates(tools, examples, seed=0)
    templates.conversations(1000), templates.tasks(200, "held_out"), templates.report()

No model is asked; tools run in `with_answers` alone.
"""

from toolhone.synthetic.examples import CanonicalExample, read_examples
from toolhone.synthetic.generate import ManualTemplates

__all__ = ["CanonicalExample", "ManualTemplates", "read_examples"]
