"""What somebody else's run folder may not do on this machine: run code that it names, reach
outside, or write files.

A run folder may come from anywhere. Its code must be in the working folder, outside the run and
outside what is installed; HTTP and command tools, tool results and code of the model are off. The
user can name each again as an override."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable, Collection
from pathlib import Path

from toolhone.config.experiment import run_folder, user_code_in
from toolhone.config.rl import ToolResultsSection
from toolhone.config.sections import Experiment
from toolhone.config.user_code import USER_CODE
from toolhone.errors import RunError


def restrict_untrusted_run(
    plan: Experiment, ref: Path, named: Collection[str], tell: Callable[[str], None]
) -> Experiment:
    """Return the experiment of a run, to sample with; note what is off. `named`: the keys of
    overrides."""
    run = run_folder(ref)
    # an algorithm and a loss are not loaded to sample; an agent starts only where it is named
    unused = {*named, "training.method", "training.loss", "agent.command"}
    for key, spec in _foreign_code(plan, run, unused):
        raise RunError(
            f"{run} names code to run ({key}: {spec}); if it is yours, name it yourself: {key}=..."
        )
    notes = {}
    if plan.allowed_tools:
        override = f"allowed_tools='{json.dumps(plan.allowed_tools)}'"
        notes["allowed_tools"] = f"HTTP and command tools are off; to allow them again: {override}"
    for name, path in plan.tool_results.model_dump(exclude_none=True).items():
        key = f"tool_results.{name}"
        notes[key] = f"the run's {key} is not used; to use it again: {key}={path}"
    if plan.model.trust_remote_code:
        key = "model.trust_remote_code"
        notes[key] = f"code that comes with the model is not run; to run it: {key}=true"
    for key, note in notes.items():
        if key not in named:
            tell(f"{ref}: {note}")
    model = plan.model.model_copy(update={"trust_remote_code": False})
    off = {"model": model, "allowed_tools": [], "tool_results": ToolResultsSection()}
    return plan.model_copy(update=off)


def refuse_to_resume_unnamed(plan: Experiment, folder: Path) -> None:
    """Refuse to resume from a run folder alone where that would run code or reach outside."""
    reasons = [f"allows the tools {', '.join(plan.allowed_tools)}"] if plan.allowed_tools else []
    reasons += ["runs code that comes with the model"] if plan.model.trust_remote_code else []
    if address := plan.data.teacher.base_url:
        reasons.append(f"asks a model at {address}")
    if agent := plan.agent.command:
        reasons.append(f"starts the agent {' '.join(agent)}")
    keeps = plan.tool_results != ToolResultsSection()
    reasons += ["keeps results of tools in files"] if keeps else []
    for key, spec in _foreign_code(plan, run_folder(folder), ()):
        reasons.append(f"names code to run ({key}: {spec})")
    if reasons:
        command = f"toolhone train FILE --resume --out {folder}"
        raise RunError(
            f"{folder} {reasons[0]}; resume with the experiment file that the run was made with: "
            f"{command}"
        )


def _foreign_code(plan: Experiment, run: Path, named: Collection[str]) -> list[tuple[str, str]]:
    """Return (key, text) of code that is not the user's own, by its place; a module may be anything
    that is installed."""
    paths = sysconfig.get_paths().items()
    outside = [run, *(Path(path).resolve() for name, path in paths if "lib" in name)]
    found = []
    for key, spec in user_code_in(plan):
        code = USER_CODE.fullmatch(spec)
        if key in named or code is None:
            continue
        place = Path(code["file"]).resolve() if code["file"] else None
        if (
            place is None
            or not place.is_relative_to(Path.cwd().resolve())
            or any(map(place.is_relative_to, outside))
        ):
            found.append((key, spec))
    return found
