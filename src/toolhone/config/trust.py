"""What somebody else's run folder may not do on this machine: run code that it names, reach outside, or write files.

    plan = as_opened(run.experiment, Path("runs/theirs"), named=set(), tell=print)

An experiment file is the user's own word. A run folder may come from anywhere, so of the experiment that it holds only this is
believed: code must lie in the working folder, outside the run and outside what is installed; HTTP and command tools are off;
results of tools are neither written nor read; code that comes with a model is not run. Whoever made the run names these again, as
overrides (or, to resume, with the experiment file). The weights themselves are read from safetensors, which hold no code.
"""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable, Collection
from pathlib import Path

from toolhone.config.experiment import user_code_in
from toolhone.config.sections import Experiment, ToolResultsSection
from toolhone.config.user_code import file_of, is_user_code
from toolhone.errors import RunError


def restrict_untrusted_run(
    plan: Experiment, ref: Path, named: Collection[str], tell: Callable[[str], None]
) -> Experiment:
    """The experiment of a run or checkpoint, to sample with; `named` are the keys of overrides. What is switched off is told."""
    _refuse_code(
        plan, run_folder(ref), {*named, "training.method"}
    )  # an algorithm is not loaded to sample
    kept = plan.tool_results.model_dump(exclude_none=True)
    if plan.allowed_tools and "allowed_tools" not in named:
        tell(
            f"{ref}: HTTP and command tools are off; to allow them again: allowed_tools='{json.dumps(plan.allowed_tools)}'"
        )
    for key, path in kept.items():
        if f"tool_results.{key}" not in named:
            tell(
                f"{ref}: the run's tool_results.{key} is not used; to use it again: tool_results.{key}={path}"
            )
    if plan.model.trust_remote_code and "model.trust_remote_code" not in named:
        tell(
            f"{ref}: code that comes with the model is not run; to run it: model.trust_remote_code=true"
        )
    model = plan.model.model_copy(update={"trust_remote_code": False})
    return plan.model_copy(
        update={"model": model, "allowed_tools": [], "tool_results": ToolResultsSection()}
    )


def refuse_to_resume_unnamed(plan: Experiment, folder: Path) -> None:
    """Stop a resumption that knows of its experiment only from the run folder, where that would run code or reach outside."""
    again = f"resume with the experiment file that the run was made with: toolhone train FILE --resume --out {folder}"
    reasons = [f"allows the tools {', '.join(plan.allowed_tools)}"] if plan.allowed_tools else []
    reasons += ["runs code that comes with the model"] if plan.model.trust_remote_code else []
    reasons += (
        ["keeps results of tools in files"] if plan.tool_results != ToolResultsSection() else []
    )
    reasons += [
        f"names code to run ({key}: {spec})"
        for key, spec in _foreign_code(plan, run_folder(folder), ())
    ]
    if reasons:
        raise RunError(f"{folder} {reasons[0]}; {again}")


def run_folder(path: Path) -> Path:
    """The run that a run folder, a checkpoint or anything inside belongs to; the path itself where there is none."""
    place = path.resolve()
    inside = next(
        (parent.parent for parent in place.parents if parent.name == "checkpoints"), place
    )
    return next(
        (folder for folder in (place, *place.parents) if (folder / "experiment.json").is_file()),
        inside,
    )


def _refuse_code(plan: Experiment, run: Path, named: Collection[str]) -> None:
    for key, spec in _foreign_code(plan, run, named):
        raise RunError(
            f"{run} names code to run ({key}: {spec}); if it is yours, name it yourself: {key}=..."
        )


def _foreign_code(plan: Experiment, run: Path, named: Collection[str]) -> list[tuple[str, str]]:
    code = [
        (key, spec) for key, spec in user_code_in(plan) if key not in named and is_user_code(spec)
    ]
    return [(key, spec) for key, spec in code if not _is_users(file_of(spec), run)]


def _is_users(file: Path | None, run: Path) -> bool:
    """Whether a file is the user's own, as far as its place can tell; a module may be anything that is installed."""
    if file is None:
        return False
    place = file.resolve()
    installed = [
        Path(path).resolve() for name, path in sysconfig.get_paths().items() if "lib" in name
    ]
    return place.is_relative_to(Path.cwd().resolve()) and not any(
        map(place.is_relative_to, [run, *installed])
    )
