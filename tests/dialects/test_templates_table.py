"""Facts on published templates: equal to facts measured elsewhere; each has a certificate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import SHARED
from support.template_zoo import TEMPLATES, zoo_parameters, zoo_tokenizer
from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.choose import FormatRequest
from toolhone.dialects.probe.certificate import CertificateVerdict, certify
from toolhone.dialects.probe.template_facts import examine

FACTS = SHARED.parent / "facts" / "chat_templates.md"
NAMES = {
    "trl/deepseekv3": "deepseek_v3",
    "trl/deepseekv3_training": "deepseek_v3_training",
    "trl/gptoss": "gpt_oss",
    "trl/glm4moe": "glm4.5",
    "trl/lfm2": "lfm2",
    "trl/lfm2_2_5": "lfm2.5",
    "trl/llama3_1": "llama3.1",
    "trl/llama3_2": "llama3.2",
    "trl/nemotron_3_nano": "nemotron_3_nano",
    "trl/qwen2_5": "qwen2.5",
    "trl/qwen2_5_training": "qwen2.5_training",
    "trl/qwen3": "qwen3",
    "trl/qwen3_5_think": "qwen3.5",
    "trl/qwen3_5_think_training": "qwen3.5_training",
    "trl/qwen3_6": "qwen3.6",
    "trl/qwen3_instruct_2507": "qwen3_instruct_2507",
    "trl/qwen3_training": "qwen3_training",
    "shared/command_r7b": "command_r7b",
    "shared/deepseek_r1_distill_qwen": "deepseek_r1_distill_qwen",
    "shared/deepseek_v3.1": "deepseek_v3.1",
    "shared/functionary_v3.1": "functionary_v3.1",
    "shared/functionary_v3.2": "functionary_v3.2",
    "shared/gemma4": "gemma4",
    "shared/glm4.6": "glm4.6",
    "shared/glm4.7_flash": "glm4.7_flash",
    "shared/hermes_2_pro": "hermes_2_pro",
    "shared/ministral_3": "ministral_3",
    "shared/mistral_nemo": "mistral_nemo",
    "shared/mistral_small_3.2": "mistral_small_3.2",
    "shared/qwen3_coder_original": "qwen3_coder_original",
    "shared/smollm3": "smollm3",
}
COLUMNS = (
    "tools",
    "arguments as a mapping",
    "arguments as JSON text",
    "two calls",
    "null content",
    "text beside a call",
)
COLUMNS += ("reasoning", "prefix", "prefix with reasoning")
OTHERWISE = {
    # transformers 5 removes a content of null before the template sees it: null is a missing key.
    ("deepseek_v3", "null content"): "error",
    ("deepseek_v3_training", "null content"): "error",
    ("gpt_oss", "null content"): "ok",
    ("lfm2.5", "null content"): "ok",
    ("ministral_3", "null content"): "ok",
    # For the same reason a call with content null, the only form that showed it, is never tried.
    ("deepseek_r1_distill_qwen", "arguments as a mapping"): "dropped",
    ("deepseek_r1_distill_qwen", "arguments as JSON text"): "dropped",
    # A null inside a list is written `None`; the measurement elsewhere had none in its probe.
    ("gemma4", "arguments as a mapping"): "ok, Python literals",
}
"""Where this examination finds something else than the table, and why."""


def expected() -> dict[str, dict[str, str]]:
    """The table of measured facts, by template and probe."""
    rows = {}
    for line in FACTS.read_text(encoding="utf-8").splitlines() if FACTS.is_file() else []:
        cells = [cell.strip() for cell in line.replace(r"\|", "¦").strip().strip("|").split("|")]
        if len(cells) == 11 and cells[0] not in ("template", "---"):
            rows[cells[0]] = dict(zip(COLUMNS, cells[1:10], strict=True))
    return rows


def plain(cell: str) -> str:
    """A cell without emphasis and remarks."""
    return re.sub(r"\s*\((content null)\)|\*\*|, reformatted", "", cell).replace(
        "as analysis", "as reasoning"
    )


@pytest.mark.real
@pytest.mark.skipif(not FACTS.is_file(), reason=f"no table of measured facts at {FACTS}")
@pytest.mark.parametrize("name", [name for name in NAMES if name in TEMPLATES])
def test_findings_equal_what_was_measured_elsewhere_but_for_named_differences(name: str) -> None:
    fact = expected()[NAMES[name]]
    found = {
        one.probe: one.found
        for one in examine(TemplateMarkup(zoo_tokenizer(TEMPLATES[name].read_text())))
    }
    for probe, cell in fact.items():
        wanted = OTHERWISE.get((NAMES[name], probe), plain(cell))
        if wanted in ("-", "required") or (
            probe not in found and found.get("calls") == "never shown"
        ):
            continue
        if probe == "prefix with reasoning" and found["reasoning"] == "ignored":
            probe = "prefix"
        assert found[probe] == wanted, (name, probe)


@pytest.mark.parametrize("name", zoo_parameters())
def test_every_template_is_certified_or_refused_for_losing_tools_or_calls(name: str) -> None:
    dialect, certificate = certify(zoo_tokenizer(TEMPLATES[name].read_text()), FormatRequest())
    found = {one.probe: one.found for one in certificate.findings}
    loses = found["tools"] in ("no", "error") or found.get("calls") == "never shown"
    assert (certificate.verdict is CertificateVerdict.REFUSED) == loses, certificate.reason
    assert (dialect is None) == loses
    assert bool(certificate.reason) == loses


@pytest.mark.parametrize("name", zoo_parameters())
def test_the_page_of_templates_matches_the_certificates(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8")
    usable, _, others = page.partition("## Refused")
    rows = {line.split("|")[1].strip(): line for line in usable.splitlines() if line[:2] == "| "}
    refused = {each for line in others.splitlines() for each in line.strip("| ").split(", ")}
    refused |= {each.rpartition(" | ")[2] for each in refused}
    if name not in rows.keys() | refused:
        pytest.skip(f"{name} is not on the page: it was generated with another version of trl")
    _, certificate = certify(zoo_tokenizer(TEMPLATES[name].read_text()), FormatRequest())
    on_page = "refused" if name in refused else rows[name].strip("| ").split("|")[1].strip()
    assert on_page == certificate.verdict.value, (
        "generate the page anew: python benchmarks/templates_table.py > docs/templates.md"
    )
