"""Experiment files: defaults, overrides, and one sentence for each mistake."""

import json
from pathlib import Path

import jsonschema
import pytest

from toolhone.config.experiment import (
    experiment_of,
    json_schema,
    load_experiment,
    stored_experiment,
)
from toolhone.config.sections import Experiment
from toolhone.errors import ConfigError
from toolhone.models.pico import pico_folder


def test_an_empty_experiment_is_a_whole_one() -> None:
    experiment = load_experiment(None)
    assert experiment.model.name == "pico"
    assert experiment.training.learning_rate == 2e-4


def test_without_lora_the_learning_rate_is_lower_unless_given() -> None:
    assert load_experiment(None, ["training.lora=null"]).training.learning_rate == 2e-5
    assert (
        load_experiment(
            None, ["training.lora=null", "training.learning_rate=1e-3"]
        ).training.learning_rate
        == 1e-3
    )


def test_overrides_win_over_the_file_and_reach_nested_keys(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps({"training": {"steps": 5, "lora": {"rank": 4}}, "seed": 1}))
    experiment = load_experiment(
        path, ["training.lora.rank=8", "training.schedule=cosine", 'tools=["calculator"]']
    )
    assert (experiment.training.steps, experiment.seed) == (5, 1)
    assert experiment.training.lora is not None
    assert experiment.training.lora.rank == 8
    assert experiment.training.schedule.shape == "cosine"
    assert experiment.tools == ["calculator"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "training.stepz=3",
            (
                r"unknown key 'training.stepz' in section 'training' of the command "
                r"line \(did you mean 'steps'\?\)"
            ),
        ),
        (
            "trainig.steps=3",
            r"unknown key 'trainig' in the command line \(did you mean 'training'\?\)",
        ),
        ("training.lora.rnk=3", r"in section 'training.lora' .*did you mean 'rank'"),
        (
            "training.steps=many",
            r"training.steps in the command line: input should be a valid integer.* got 'many'",
        ),
        (
            "training.steps=0",
            r"training.steps in the command line: input should be greater than 0, got 0",
        ),
        (
            "training.method=sfft",
            (
                r"training.method in the command line: should be one of sft, .*did you "
                r"mean 'sft'.* got 'sfft'"
            ),
        ),
        ("training.batch_size", r"an override is key=value"),
    ],
)
def test_a_mistake_gets_one_sentence_with_place_and_remedy(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_experiment(None, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "text", "said"),
    [
        ("json", "{", "is not JSON"),
        ("json", "[]", "must hold an object with the keys of an experiment, not list"),
        ("json", '{"modle": {}}', "did you mean 'model'"),
        ("yaml", "model: [", "is not YAML that can be read"),
        ("yaml", "- model", "keys of an experiment, not list"),
        ("yaml", "1: 2", "not keys that are no text"),
        ("yaml", "!!python/object/apply:os.getcwd []", "is not YAML that can be read"),
    ],
)
def test_a_broken_file_is_named_in_one_line(
    tmp_path: Path, ending: str, text: str, said: str
) -> None:
    path = tmp_path / f"broken.{ending}"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_experiment(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


YAML = """
# an experiment
model: {name: pico}
training:
  steps: 7
  schedule: {warmup_ratio: 0.1}
"""


@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_a_yaml_file_is_an_experiment(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"sft.{ending}"
    path.write_text(YAML)
    plan = load_experiment(path, ["training.batch_size=3"])
    assert (plan.model.name, plan.training.steps, plan.training.batch_size) == ("pico", 7, 3)
    assert plan.training.schedule.warmup_ratio == 0.1


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "sft-small.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"did you mean 'sft-small\.json'"):
        load_experiment(tmp_path / "sft-smal.json")


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "e.json"
    path.write_text(
        json.dumps(
            {
                "model": {"name": "model"},
                "data": {"path": "d.jsonl"},
                "tools": ["calculator", "mine.py:f"],
            }
        )
    )
    experiment = load_experiment(path)
    assert experiment.model.name == str(tmp_path / "model")
    assert experiment.data.path == str(tmp_path / "d.jsonl")
    assert experiment.tools == ["calculator", f"{tmp_path}/mine.py:f"]


def test_the_schema_accepts_the_defaults_and_refuses_an_unknown_key() -> None:
    schema = json_schema()
    jsonschema.validate(load_experiment(None).model_dump(mode="json"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"training": {"stepz": 1}}, schema)


def test_no_section_has_more_than_twenty_fields_but_that_of_training() -> None:
    """`training` has 20 under the names of other systems, and some that name code or a section."""
    schema = json_schema()
    for name, section in [("experiment", schema), *schema["$defs"].items()]:
        fields = section.get("properties", {}).keys()  # a choice, of names for instance, has none
        assert len(fields - {"loss", "distill", "bake", "made", "recipe"}) <= 20, name


SCHEMA = {"name": "book", "description": "Book.", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    "held",
    [[SCHEMA], {"tools": [SCHEMA]}, {"jsonrpc": "2.0", "id": 1, "result": {"tools": [SCHEMA]}}],
    ids=["a list", "an object", "an MCP server's tools/list"],
)
@pytest.mark.parametrize("named", ["tools.json", ["tools.json", "weather"]])
def test_tools_may_name_a_file_of_schemas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: object, named: object
) -> None:
    (tmp_path / "tools.json").write_text(json.dumps(held))
    (tmp_path / "e.json").write_text(json.dumps({"tools": named}))
    wanted = [SCHEMA, *(["weather"] if isinstance(named, list) else [])]
    assert load_experiment(tmp_path / "e.json").tools == wanted
    monkeypatch.chdir(tmp_path)
    assert load_experiment(None, [f"tools={json.dumps(named)}"]).tools == wanted
    assert experiment_of({"tools": named}, "the test").tools == wanted


def test_code_that_a_file_of_tools_names_is_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "tools.json").write_text(json.dumps([{**SCHEMA, "function": "b.py:f"}]))
    (tmp_path / "e.json").write_text('{"tools": ["below/tools.json"]}')
    (tool,) = load_experiment(tmp_path / "e.json").tools
    assert isinstance(tool, dict)
    assert tool["function"] == f"{(tmp_path / 'below').resolve()}/b.py:f"


@pytest.mark.parametrize("text", ["{", '{"tool": []}', '["weather"]', "7"])
def test_a_file_that_holds_no_tools_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "tools.json").write_text(text)
    (tmp_path / "e.json").write_text('{"tools": "tools.json"}')
    with pytest.raises(ConfigError, match=r"tools: .*tools\.json"):
        load_experiment(tmp_path / "e.json")


RECIPE = {
    "model": {"name": "pico"},
    "data": {"samples": 77, "validation_fraction": 0.2},
    "training": {"steps": 9, "learning_rate": 0.003, "optimizer": "muon", "lora": None},
}


def test_the_recipe_for_pico_does_not_follow_to_another_model(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps(RECIPE))
    notes: list[str] = []
    for keys in ([], ["model.name=pico"]):
        plan = load_experiment(tmp_path / "e.json", keys, notes.append)
        assert (plan.training.steps, plan.data.samples, notes) == (9, 77, [])
    keys = ["model.name=Qwen/Qwen3-0.6B", "training.steps=5"]
    plan, defaults = load_experiment(tmp_path / "e.json", keys, notes.append), Experiment()
    assert plan.training == defaults.training.model_copy(update={"steps": 5})
    assert (plan.data.samples, plan.data.validation_fraction) == (4000, 0.2)
    (note,) = notes
    assert "data.samples" in note
    assert "training.learning_rate" in note


def test_the_recipe_stays_for_a_trained_pico_and_for_files_that_name_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "e.json").write_text(json.dumps(RECIPE))
    keys = [f"model.name={pico_folder(0)}"]
    assert load_experiment(tmp_path / "e.json", keys).training.steps == 9
    (tmp_path / "e.json").write_text(json.dumps({**RECIPE, "model": {"name": "a/b"}}))
    assert load_experiment(tmp_path / "e.json", ["model.name=c/d"]).training.steps == 9


def test_an_experiment_that_a_run_kept_before_split_seed_is_split_by_its_seed() -> None:
    assert stored_experiment({"seed": 3}, "a run").data.split_seed == 3
    assert stored_experiment({"seed": 3, "data": {"split_seed": 0}}, "a run").data.split_seed == 0
    assert experiment_of({"seed": 3}, "a file").data.split_seed == 0


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("e.json", '{"seed": 1, "seed": 2}', "the key 'seed' occurs twice"),
        (
            "e.json",
            '{"training": {"steps": 1, /* x */ "steps": 2,}}',
            "the key 'steps' occurs twice",
        ),
        ("e.yaml", "training:\n  steps: 1\n  steps: 2\n", "the key 'steps' occurs twice"),
        ("e.json", '{"training": {"steps": true}}', "'steps' must be a number, not true"),
        ("e.json", '{"training": {"rl": {"beta": false}}}', "'beta' must be a number, not false"),
    ],
)
def test_an_experiment_that_says_two_things_is_refused(
    tmp_path: Path, name: str, text: str, wrong: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=wrong):
        load_experiment(tmp_path / name)


def test_a_file_of_tools_in_an_experiment_is_read_strictly(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text('[{"name": "a", "name": "b"}]')
    (tmp_path / "e.json").write_text('{"tools": ["tools.json"]}')
    with pytest.raises(ConfigError, match="the key 'name' occurs twice"):
        load_experiment(tmp_path / "e.json")
