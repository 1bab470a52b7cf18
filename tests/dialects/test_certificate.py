"""Certificates of good and bad templates; no run is used in another format than its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.checkpoints import write_certificate
from support.dialect_models import QWEN_LIKE, THINKING, llama_tokenizer, small_tokenizer
from toolhone.api import evaluate, experiment, open_model, train
from toolhone.cli import main as cli
from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.choose import FormatRequest
from toolhone.dialects.probe.certificate import Certificate, CertificateVerdict, certify, check_same
from toolhone.dialects.probe.probing import TemplateFact
from toolhone.dialects.probe.template_facts import cures, examine
from toolhone.errors import DialectError
from toolhone.models.pico import pico_folder
from toolhone.tokenizer import TextTokenizer

QUICK = {
    "training": {"steps": 1, "lora": None, "batch_size": 2, "validate_every": 0},
    "data": {"samples": 12},
}

SMALL = {**QUICK, "tools": ["calculator"]}


def found(tokenizer: TextTokenizer, probe: str) -> TemplateFact:
    return next(finding for finding in examine(TemplateMarkup(tokenizer)) if finding.probe == probe)


def test_a_good_template_is_certified_without_limits_and_every_probe_has_a_finding() -> None:
    dialect, certificate = certify(small_tokenizer(QWEN_LIKE), FormatRequest())
    assert dialect is not None
    assert (certificate.verdict, certificate.limits, certificate.reason) == (
        CertificateVerdict.CERTIFIED,
        (),
        "",
    )
    probes = {finding.probe for finding in certificate.findings}
    assert probes >= {
        "tools",
        "arguments as a mapping",
        "two calls",
        "null content",
        "text beside a call",
        "reasoning",
        "prefix",
    }
    assert set(certificate.hashes) == {"template", "tokenizer", "dialect"}
    assert certificate.versions["transformers"]


def test_limits_name_what_a_template_cannot_say() -> None:
    _, single = certify(llama_tokenizer(), FormatRequest())
    assert single.verdict is CertificateVerdict.LIMITED
    assert any("several calls in one turn" in limit for limit in single.limits)
    assert any("text beside a call" in limit for limit in single.limits)
    _, rewriting = certify(small_tokenizer(THINKING), FormatRequest())
    assert rewriting.limits == (
        "the template rewrites earlier turns: each turn is a row of its own",
    )
    _, kept = certify(small_tokenizer(THINKING), FormatRequest(keep_history=True))
    assert "is not asked" in kept.limits[0]


def test_a_template_that_drops_calls_is_refused_and_json_is_certified_instead() -> None:
    tokenizer = small_tokenizer(QWEN_LIKE.replace("message.tool_calls or []", "[]"))
    dialect, certificate = certify(tokenizer, FormatRequest())
    assert dialect is None
    assert certificate.verdict is CertificateVerdict.REFUSED
    assert "model.dialect=json" in certificate.reason
    assert found(tokenizer, "calls").found == "never shown"
    ours, other = certify(tokenizer, FormatRequest("json"))
    assert ours is not None
    assert other.verdict is CertificateVerdict.LIMITED
    assert other.limits[0] == "text beside a call cannot be written: training stops at such rows"


def test_findings_see_what_each_fault_is() -> None:
    for change, probe, wanted in (
        (("{{- '\\n' + tool.function.name", "{{- '\\n'"), "tools", "no"),
        (
            ("call.function.arguments}", "call.function.arguments | string}"),
            "arguments as a mapping",
            "Python repr",
        ),
        (
            ("for call in message.tool_calls or []", "for call in (message.tool_calls or [])[:1]"),
            "two calls",
            "second dropped",
        ),
        (
            ("(message.content or '')", "('' if message.tool_calls else message.content)"),
            "text beside a call",
            "text dropped",
        ),
        (("'\\n<tool_response>' + message.content", "'\\n<tool_response>'"), "results", "dropped"),
    ):
        template = QWEN_LIKE.replace(*change)
        assert template != QWEN_LIKE
        assert found(small_tokenizer(template), probe).found == wanted
        assert found(small_tokenizer(QWEN_LIKE), probe).found in ("yes", "ok", "kept")


def test_a_broken_prefix_has_letters_a_cause_and_a_keyword_that_cures_it() -> None:
    assert found(small_tokenizer(QWEN_LIKE), "prefix").found == "keeps"
    finding = found(small_tokenizer(THINKING), "prefix with reasoning")
    assert set(finding.found) <= set("fght")
    assert finding.fault
    assert finding.why == "thoughts of earlier turns are rewritten"
    template = THINKING.replace(
        "{%- if loop.last %}", "{%- if loop.last or keep_thoughts is defined and keep_thoughts %}"
    )
    tokenizer = small_tokenizer(template)
    whys = {one.probe: one.why for one in cures(tokenizer, TemplateMarkup(tokenizer))}
    assert "keeps all prefixes" in whys["switch keep_thoughts=true"]


def test_a_certificate_comes_back_from_its_file_and_a_damaged_one_is_a_sentence(
    tmp_path: Path,
) -> None:
    _, certificate = certify(llama_tokenizer(), FormatRequest())
    certificate.save(tmp_path)
    assert Certificate.read(tmp_path) == Certificate.model_validate(
        json.loads(json.dumps(certificate.to_dict()))
    )
    (tmp_path / "certificate.json").write_text('{"verdict": "splendid"}')
    with pytest.raises(DialectError, match="is no certificate"):
        Certificate.read(tmp_path)
    assert Certificate.read(tmp_path / "elsewhere") is None


def test_a_file_of_an_older_run_is_read_and_compares_as_the_same(tmp_path: Path) -> None:
    _, certificate = certify(llama_tokenizer(), FormatRequest())
    whole = certificate.to_dict()
    assert "reason" not in whole
    assert all("why" not in fact or fact["why"] for fact in whole["findings"])
    older = {**whole, "constrained": True, "versions": {"toolhone": "0.0"}}
    for fact in older["findings"]:
        fact.pop("why", None)
    (tmp_path / "certificate.json").write_text(json.dumps(older))
    read = Certificate.read(tmp_path)
    assert read is not None
    assert (read.verdict, read.limits, read.hashes) == (
        certificate.verdict,
        certificate.limits,
        certificate.hashes,
    )
    check_same(read, certificate, "runs/older")


@pytest.mark.parametrize(
    "damage",
    [
        {"dialect": {"stop": 5}},
        {"dialect": {"stop": [5]}},
        {"dialect": ["qwen"]},
        {"dialect": [["name", "qwen"]]},
        {"hashes": {"dialect": 5}},
        {"versions": {"jinja2": None}},
        {"limits": "none"},
        {"limits": 3},
        {"findings": {"probe": "tools"}},
        {"findings": [5]},
        {"findings": None},
        {"verdict": ["certified"]},
    ],
)
def test_a_certificate_with_a_value_of_another_type_is_one_sentence(
    tmp_path: Path, damage: dict[str, object]
) -> None:
    (tmp_path / "certificate.json").write_text(json.dumps({"verdict": "certified", **damage}))
    with pytest.raises(DialectError, match=r"certificate\.json is no certificate of a format: "):
        Certificate.read(tmp_path)


def test_two_certificates_differ_by_template_tokenizer_switches_and_history() -> None:
    _, one = certify(small_tokenizer(QWEN_LIKE), FormatRequest())
    check_same(one, certify(small_tokenizer(QWEN_LIKE), FormatRequest())[1], "runs/a")
    for tokenizer, wanted, word in (
        (small_tokenizer(QWEN_LIKE.replace("Tools:", "These:")), FormatRequest(), "template"),
        (small_tokenizer(QWEN_LIKE, eos="<|im_end|>"), FormatRequest(), "tokenizer"),
        (small_tokenizer(QWEN_LIKE), FormatRequest("json"), "dialect"),
        (
            small_tokenizer(QWEN_LIKE),
            FormatRequest(template_kwargs={"enable_thinking": True}),
            "dialect",
        ),
    ):
        with pytest.raises(DialectError, match=f"another format than .*{word}"):
            check_same(one, certify(tokenizer, wanted)[1], "runs/a")


def test_a_tokenizer_keeps_its_hash_when_it_is_saved_and_loaded(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(QWEN_LIKE)
    tokenizer.save(tmp_path)
    assert TextTokenizer.load(tmp_path).identity() == tokenizer.identity()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certified") / "run"
    train(experiment(QUICK), folder)
    return folder


def test_run_checkpoint_and_evaluation_carry_the_certificate(run: Path, tmp_path: Path) -> None:
    whole = Certificate.read(run)
    assert whole is not None
    assert (
        whole
        == Certificate.read(run / "checkpoints" / "final_checkpoint")
        == Certificate.read(run / "evaluation")
    )
    evaluate(open_model(run), num_samples=2, out=tmp_path / "again")
    assert Certificate.read(tmp_path / "again") == whole


def test_a_run_whose_format_has_changed_is_not_opened_by_accident_but_on_purpose(
    run: Path, tmp_path: Path
) -> None:
    path = run / "checkpoints" / "final_checkpoint" / "certificate.json"
    good = path.read_text()
    changed = json.loads(good)
    changed["hashes"]["dialect"] = "0" * 64
    write_certificate(path.parent, changed)
    try:
        with pytest.raises(DialectError, match=r"trained in another format.*dialect.*--dialect"):
            open_model(run)
        opened = open_model(run, overrides=["model.dialect=json"])
        assert opened.certificate.dialect["name"] == "json"
        evaluate(opened, num_samples=1, out=tmp_path / "json")
        changed["hashes"]["template"] = "0" * 64
        write_certificate(path.parent, changed)
        with pytest.raises(DialectError, match="template"):
            open_model(run, overrides=["model.history=template"])
        assert (
            json.loads((tmp_path / "json" / "certificate.json").read_text())["dialect"]["name"]
            == "json"
        )
    finally:
        write_certificate(path.parent, good)


def test_a_run_is_not_resumed_in_another_format(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    plan = experiment({**QUICK, "training": {**QUICK["training"], "steps": 4, "save_every": 1}})
    train(plan, folder)
    for name in ("final_checkpoint",):
        for file in sorted((folder / "checkpoints" / name).iterdir()):
            file.unlink()
        (folder / "checkpoints" / name).rmdir()
    changed = json.loads((folder / "certificate.json").read_text())
    changed["hashes"]["tokenizer"] = "0" * 64
    (folder / "certificate.json").write_text(json.dumps(changed))
    with pytest.raises(DialectError, match="tokenizer"):
        train(plan, folder, resume=True)


def test_doctor_prints_the_certificate_with_its_verdict_on_top(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_verb("doctor", "--model", "pico", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "certified with limits"
    assert "descriptions of tools do not reach the prompt" in report["limits"]
    assert report["dialect"]["syntax"] == "tool_call_tags"
    assert run_verb("doctor", "--model", "pico") == 0
    shown = capsys.readouterr().out
    assert "verdict: certified with limits" in shown
    assert "tokens are supervised" in shown


def test_doctor_exits_with_1_for_a_template_that_loses_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_tokenizer(QWEN_LIKE.replace("message.tool_calls or []", "[]")).save(tmp_path)
    assert run_verb("doctor", "--model", str(tmp_path), "--json") == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "refused"
    assert run_verb("doctor", "--model", str(tmp_path), "--dialect", "json") == 0
    assert run_verb("doctor") == 2


def run_verb(*words: str) -> int:
    """The exit code of a command line."""
    import sys

    before, sys.argv = sys.argv, ["toolhone", *words]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def test_a_model_to_start_from_keeps_the_format_it_was_trained_in(tmp_path: Path) -> None:
    json_run = tmp_path / "json"
    train(experiment({**SMALL, "model": {"dialect": "json"}}), json_run)
    weights = str(json_run / "checkpoints" / "final_checkpoint")
    kept, _ = train(experiment({**SMALL, "model": {"name": weights}}), tmp_path / "kept")
    assert json.loads((kept.folder / "certificate.json").read_text())["dialect"]["name"] == "json"
    run, _ = train(
        experiment({**SMALL, "model": {"name": weights, "dialect": "calls"}}), tmp_path / "calls"
    )
    assert json.loads((run.folder / "certificate.json").read_text())["dialect"]["name"] == "calls"


def test_weights_that_were_copied_away_from_their_run_still_tell_their_format(
    tmp_path: Path,
) -> None:
    import shutil

    train(experiment({**SMALL, "model": {"dialect": "json"}}), tmp_path / "run")
    shutil.copytree(tmp_path / "run" / "checkpoints" / "final_checkpoint", tmp_path / "whole")
    (tmp_path / "whole" / "state.json").unlink()
    assert open_model(tmp_path / "whole").dialect.name == "json"
    named = open_model(tmp_path / "whole", overrides=["model.dialect=native"])
    assert named.dialect.name == "native"


def test_without_a_template_the_certificate_says_which_markup_it_took_and_why() -> None:
    tokenizer = TextTokenizer.load(pico_folder(0))
    tokenizer.wrapped.chat_template = None
    dialect, certificate = certify(tokenizer, FormatRequest("json"))
    assert dialect is not None
    (fact,) = [fact for fact in certificate.findings if fact.probe == "markup"]
    assert fact.found == "chatml"
    assert fact.why == "there is no template, and <|im_end|> is a token of this tokenizer"
    assert certify(tokenizer, FormatRequest("auto"))[1].reason.endswith("but plain turns")
