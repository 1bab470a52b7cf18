"""Published chat templates on a small tokenizer that carries their marks: of an installed `trl`,
and beside the repository.

    TEMPLATES           name -> path of every template found here ("trl/qwen3", "shared/glm4.6")
    zoo_tokenizer(text) a byte-level tokenizer on which every mark of the template is one token
    zoo_dialect(name)   the native dialect of a template, or the sentence that refuses it

Nothing of `trl` is imported: its folder is looked up, for importing it takes seconds.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from support.dialect_models import small_tokenizer
from toolhone.dialects.chat_template.dialect import ChatTemplateDialect
from toolhone.dialects.chat_template.sanitise import TEMPLATE_ERRORS
from toolhone.dialects.probe.prove import prove_template
from toolhone.errors import DialectError
from toolhone.tokenizer import TextTokenizer

MARK = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<[|｜][^<>\n]{1,40}[|｜]>|</?[A-Za-z_][\w:.-]{0,40}"
    r">|<[a-z_]+\|>|<\|[a-z_]+>|\[/?[A-Z][A-Z_ ]+\]"
    r"|<\|\"\|>|\[\|[a-z]+\|\]|\]~!?b[\[\]]|\[e~\["
)
"""What looks like a control token in a template's text."""
ALWAYS = ("<s>", "</s>", "<|endoftext|>")


def _found() -> dict[str, Path]:
    trl = importlib.util.find_spec("trl")
    folders = {"trl": Path(str(trl.origin)).parent / "chat_templates"} if trl is not None else {}
    folders["shared"] = SHARED / "chat_templates"
    return {
        f"{room}/{path.stem}": path
        for room, folder in folders.items()
        for path in sorted(folder.glob("*.jinja"))
    }


TEMPLATES = _found()


def zoo_tokenizer(template: str) -> TextTokenizer:
    """A tokenizer for this template: its marks are added tokens, `</s>` ends texts.

    Marks are looked for in the template, and in what it writes, for some are put together there.
    """
    marks = dict.fromkeys(MARK.findall(template))
    while True:
        plain = tuple(mark for mark in ALWAYS if mark not in marks)
        tokenizer = small_tokenizer(None, plain, tuple(marks), eos="</s>")
        tokenizer.wrapped.bos_token = "<s>"
        tokenizer.wrapped.chat_template = template
        more = [mark for mark in MARK.findall(_written(tokenizer)) if mark not in marks]
        if not set(more) - {*ALWAYS}:
            return tokenizer
        marks |= dict.fromkeys(more)


def _written(tokenizer: TextTokenizer) -> str:
    """What the template writes for a plain talk; nothing where it refuses one."""
    talk: Any = [
        {"role": role, "content": "text"} for role in ("user", "assistant", "user", "assistant")
    ]
    try:
        return str(tokenizer.wrapped.apply_chat_template(talk, tokenize=False))
    except TEMPLATE_ERRORS:
        return ""


@lru_cache(maxsize=128)
def zoo_dialect(name: str) -> tuple[TextTokenizer, ChatTemplateDialect | str]:
    """The tokenizer of a published template, and its native dialect or why there is none."""
    tokenizer = zoo_tokenizer(TEMPLATES[name].read_text())
    try:
        return tokenizer, prove_template(tokenizer)
    except DialectError as error:
        return tokenizer, str(error)


def zoo_parameters() -> list[object]:
    """Every template's name as a test parameter; one that skips where there is no template."""
    if not TEMPLATES:
        return [
            pytest.param(
                "none",
                marks=pytest.mark.skip(reason="neither trl nor the shared chat templates are here"),
            )
        ]
    return [
        pytest.param(name, id=name, marks=[pytest.mark.real] if name.startswith("shared/") else [])
        for name in TEMPLATES
    ]
