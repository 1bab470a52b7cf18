"""The rules of the house that can be measured: imports run downwards, files and functions stay short."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "toolhone"
ROOMS = (
    ("cli",),
    ("demo",),
    ("lessons", "machine", "serve"),
    ("api",),
    ("bench",),
    ("model_ref",),
    ("reports",),
    ("algorithms",),
    ("evaluation",),
    ("rewards",),
    ("episodes",),
    ("data",),
    ("tools",),
    ("backends",),
    ("dialects",),
    ("tokenizer",),
    ("tracking",),
    ("progress", "run", "trust"),
    ("config",),
    ("aliases", "sections"),
    ("sections_rl",),
    ("rows", "schema"),
    ("signature", "owncode", "presets", "dotenv"),
    ("errors",),
)
"""From top to bottom. A room imports itself and what is below; rooms on one line do not import each other."""
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
FILES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        rooms |= {name.split(".")[1] for name in names if name.startswith("toolhone.")}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_downwards(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for other in imported_rooms(path):
        assert other == room or LEVEL[other] > LEVEL[room], (
            f"{room} imports {other}, which is above or beside it"
        )


def test_no_concrete_backend_is_imported_outside_the_workshop() -> None:
    for path in FILES:
        if room_of(path) in ("backends", "api", "bench"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "toolhone.backends"
            ):
                assert node.module == "toolhone.backends.base", f"{path} imports {node.module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_are_short_and_modules_explain_themselves(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    tree = ast.parse(text)
    if tree.body:
        assert ast.get_docstring(tree), "the first lines of a module say what it does"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


def test_no_page_of_the_documentation_has_a_figure_left_to_fill_in() -> None:
    root = SOURCE.parents[1]
    for page in (*root.glob("*.md"), *root.glob("docs/**/*.md")):
        assert not re.findall(r"@[A-Z0-9]+@|\bTODO\b|\bTBD\b", page.read_text()), page
