"""Read a study: an experiment with variants, values to sweep over, and runs to prepare.

study = read_study("methods", [], {})                     # a study that ships, by name
study = read_study("sft.json", ["data.samples=100,400"], {})
study.settings                                               # what is trained once for each seed
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from toolhone.config.experiment import experiment_of, is_preset, load_experiment
from toolhone.config.sections import Experiment
from toolhone.errors import ConfigError, nearest
from toolhone.runs.run import read_json
from toolhone.schema.json_input import packaged_json, packaged_names

_STUDIES = "config/presets/studies"
KEYS = ("experiment", "prepare", "variants", "over", "metric", "by_category", "groups")
"""Keys of a study file; `$comment` besides."""
UNTRAINED, IN_CONTEXT = "untrained", "in_context"
"""Keys of a variant that are none of the experiment: evaluate the model as it is, or with this many
training conversations before each task."""


@dataclass(frozen=True)
class Setting:
    """One setting of a study. changes: dotted keys of the experiment and their values; `{name}` in
    a text, also inside an object, is the folder of a prepared run of the same seed."""

    name: str
    variant: str
    values: Mapping[str, Any]
    changes: Mapping[str, Any]
    is_trained: bool = True
    in_context: int = 0

    @property
    def folder_name(self) -> str:
        return re.sub(r"[^\w.=+-]+", "_", self.name)[:100] or "run"


@dataclass(frozen=True)
class Study:
    """source: the experiment that all settings change: its values, a file or a preset. prepare:
    changes of runs to start from, by name. over: dotted keys and the values to sweep over. groups:
    groups of tasks that are compared on their own, and how the ids of each begin."""

    source: Mapping[str, Any] | Path
    prepare: Mapping[str, Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Any]]
    over: Mapping[str, Sequence[Any]]
    metric: str
    by_category: bool
    groups: Mapping[str, str]

    @cached_property
    def settings(self) -> list[Setting]:
        """Every variant with every combination of values."""
        found = []
        for (name, changes), values in product(self.variants.items(), product(*self.over.values())):
            chosen = dict(zip(self.over, values, strict=True))
            words = [name]
            for key, value in chosen.items():
                if isinstance(value, list) and all(isinstance(one, str) for one in value):
                    text = "+".join(value)
                else:
                    text = value if isinstance(value, str) else json.dumps(value)
                words.append(f"{key.rpartition('.')[2]}={text}")
            rest = {k: v for k, v in changes.items() if k not in (UNTRAINED, IN_CONTEXT)}
            examples = int(changes.get(IN_CONTEXT, 0))
            trained = not (changes.get(UNTRAINED) or examples)
            label = ", ".join(filter(None, words))
            found.append(Setting(label, name, chosen, {**rest, **chosen}, trained, examples))
        counts = Counter(setting.folder_name for setting in found)
        if twice := [place for place, count in counts.items() if count > 1]:
            raise ConfigError(f"{counts[twice[0]]} settings have the folder {twice[0]}; rename one")
        return found

    def plan(
        self, changes: Mapping[str, Any], seed: int, overrides: Sequence[str], **runs: Path
    ) -> Experiment:
        """The experiment of a setting or a prepared run; overrides of the command line win.

        runs: the folders that `{name}` in a change stands for.
        """
        words = []
        for key, value in {**changes, "seed": seed}.items():
            text = json.dumps(value)
            for name, folder in runs.items():
                text = text.replace(f"{{{name}}}", json.dumps(str(folder.resolve()))[1:-1])
            words.append(f"{key}={text}")
        words += overrides
        if isinstance(self.source, Path):
            return load_experiment(self.source, words, tell=lambda _: None)
        return experiment_of(self.source, "the study's experiment", words, tell=lambda _: None)


def study_names() -> list[str]:
    """The studies that ship."""
    return packaged_names(_STUDIES)


def study_comment(name: str) -> str:
    return str(packaged_json(f"{_STUDIES}/{name}.json")["$comment"])


def read_study(name: str, over: Sequence[str]) -> Study:
    """Read a study that ships, a study file, an experiment file or a preset.

    over: `key=a,b,c`, each value JSON or else text; a comma inside brackets or quotes divides
    nothing.
    """
    path = Path(name)
    if name in study_names() and not path.is_file():
        found = packaged_json(f"{_STUDIES}/{name}.json")
    elif is_preset(path) or path.is_file():
        found = {} if is_preset(path) else read_json(path)
        found = found if "experiment" in found else {"experiment": name}
    else:
        near = nearest(name, study_names())
        known = f"studies that ship: {', '.join(study_names())}"
        raise ConfigError(f"there is no file and no study {name!r}{near}; {known}")
    for key in found:
        if key not in (*KEYS, "$comment"):
            raise ConfigError(
                f"{name}: a study has no key {key!r}{nearest(key, KEYS)}; it has {', '.join(KEYS)}"
            )
    for key in ("prepare", "variants", "over", "groups"):
        value = found.get(key, {})
        if not isinstance(value, Mapping):
            kind = type(value).__name__
            raise ConfigError(f"{name}: {key} must be an object, it is {kind}")
    for key, value in found.get("over", {}).items():
        if not isinstance(value, list) or not value:
            raise ConfigError(f"{name}: over.{key} must be a list of values, it is {value!r}")
    chosen = {**found.get("over", {}), **dict(map(parse_values, over))}
    base = found["experiment"]
    return Study(
        source=Path(base) if isinstance(base, str) else base,
        prepare=found.get("prepare", {}),
        variants=found.get("variants", {"": {}}),
        over=chosen,
        metric=found.get("metric", "exact_match"),
        by_category=bool(found.get("by_category", False)),
        groups=found.get("groups", {}),
    )


def parse_values(text: str) -> tuple[str, list[Any]]:
    """Read `key=a,b,c`."""
    key, equals, rest = text.partition("=")
    if not equals or not key or not rest:
        raise ConfigError(
            f"--over {text!r}: wanted key=a,b,c, such as training.learning_rate=1e-4,3e-4"
        )
    parts = re.findall(r"""((?:\[[^\]]*\]|\{[^}]*\}|"[^"]*"|[^,\[{"])+)(?:,|$)""", rest)
    values = []
    for part in parts:
        try:
            values.append(json.loads(part))
        except ValueError:
            values.append(part)
    return key, values
