"""Data for the user's own tools: from their schemas and a few canonical examples to any number of questions with their calls.

    examples = read_examples("examples.jsonl", tools)
    made = ManualTemplates(tools, examples, seed=0)
    made.conversations(1000)                    # supervised data
    made.tasks(200, split="held_out")           # other values and other phrasings than training has
    made.report()                               # rows by tool, draws that were thrown away by reason, distinct questions

`examples` reads them, `phrases` finds their values in the question and draws others, `described` puts tools without an example
into words, `shipped` knows the built-in tools and talk without calls, `paraphrase` varies the words around the values,
`templates` puts rows together. `values`, `texts`, `regex` and `schemas` draw values, `spelling` writes and finds them. Tools
are not run and no model is asked.
"""

from toolhone.synthetic.examples import CanonicalExample, read_examples
from toolhone.synthetic.generate import ManualTemplates

__all__ = ["CanonicalExample", "ManualTemplates", "read_examples"]
