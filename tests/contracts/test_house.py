"""The rules of the house that a program can measure; each test names every file that breaks its
rule.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "toolhone"
ORDER = (
    *("__main__", "cli", "guide", "serve", "export", "reports", "api", "training", "agents"),
    *("evaluation", "rewards"),
    *(
        "models",
        "data.rl_tasks",
        "data.dataset",
        "episodes",
        "synthetic",
        "doctor",
        "data",
        "sources",
    ),
    *("tools", "backends", "dialects", "runs", "config", "tokenizer", "rows", "schema", "errors"),
)
"""From top to bottom. A file imports files of its own level and of those below. `data.dataset`
joins what synthetic and doctor do.
"""
SAME_STEM = {"data": "the verb and the room"}
"""File names that two rooms may share, each with its reason."""


@cache
def trees() -> dict[str, ast.Module]:
    """Every source file, by its dotted name without `toolhone.`; packages end in `__init__`."""
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(SOURCE.rglob("*.py"))
    }


@cache
def imports_of(name: str, at_run_time: bool = False) -> frozenset[str]:
    """The files that a file imports; `at_run_time` leaves out what only type checkers see."""
    hidden = set()
    if at_run_time:
        for node in ast.walk(trees()[name]):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                hidden |= {id(inner) for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(trees()[name]):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found |= {node.module, f"{node.module}.{alias.name}"}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    modules = {each.removeprefix("toolhone.") for each in found if each.startswith("toolhone.")}
    files = {f"{each}.__init__" if f"{each}.__init__" in trees() else each for each in modules}
    return frozenset(files & trees().keys()) - {name}


def room_of(name: str) -> str:
    return name.partition(".")[0]


def level_of(name: str) -> int:
    return ORDER.index(name if name in ORDER else room_of(name))


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, node


def test_imports_run_downwards_in_the_order_of_the_rooms() -> None:
    upwards = [
        f"{name} imports {other}"
        for name in trees()
        if name != "__init__"
        for other in imports_of(name)
        if level_of(other) < level_of(name)
    ]
    assert not upwards


def test_no_files_import_each_other_in_a_circle() -> None:
    """Packages re-export what is in them, so a package and its own files are no circle."""
    left = {
        name: {other for other in imports_of(name, at_run_time=True) if not is_parent(other, name)}
        for name in trees()
    }
    while True:
        free = {name for name, others in left.items() if not others & left.keys()}
        if not free:
            break
        left = {name: others for name, others in left.items() if name not in free}
    assert not sorted(left)


def is_parent(package: str, name: str) -> bool:
    return package.endswith("__init__") and name.startswith(package.removesuffix("__init__"))


def test_no_class_name_is_used_twice() -> None:
    places = defaultdict(list)
    for name, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert not {each: names for each, names in places.items() if len(names) > 1}


def test_no_file_name_is_used_twice() -> None:
    places = defaultdict(list)
    for name in trees():
        places[name.rpartition(".")[2]].append(name)
    twice = {stem for stem, names in places.items() if len(names) > 1}
    assert not {stem: places[stem] for stem in twice - {"__init__", *SAME_STEM}}


def test_files_have_at_most_400_lines() -> None:
    lengths = {str(path): path.read_text().count("\n") for path in SOURCE.rglob("*.py")}
    assert not {name: length for name, length in lengths.items() if length > 400}


def test_names_of_tests_have_at_most_80_characters() -> None:
    texts = {path: path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py")}
    names = {name for text in texts.values() for name in re.findall(r"def (test_\w+)", text)}
    assert len(names) > 1000
    assert not {name for name in names if len(name) > 80}


def test_functions_have_at_most_60_lines() -> None:
    lengths = {
        f"{name}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, node in functions()
    }
    assert not {name: length for name, length in lengths.items() if length > 60}


def test_functions_have_at_most_8_parameters() -> None:
    """Commands have one for each option; they are functions with defaults for everything but
    arguments.
    """
    counts = {
        f"{name}.{node.name}": len(parameters(node))
        for name, node in functions()
        if room_of(name) != "cli"
    }
    assert not {name: count for name, count in counts.items() if count > 8}


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def test_at_most_six_files_lie_beside_the_rooms() -> None:
    assert len(list(SOURCE.glob("*.py"))) <= 6


def test_concrete_backends_are_imported_in_their_room_alone() -> None:
    concrete = re.compile(r"backends\.(torch|toy|mlx|tinker)\b")
    assert not [
        f"{name} imports {other}"
        for name in trees()
        if room_of(name) != "backends"
        for other in imports_of(name)
        if concrete.match(other)
    ]


def test_every_module_says_what_it_does() -> None:
    assert not [name for name, tree in trees().items() if tree.body and not ast.get_docstring(tree)]


def test_no_page_of_the_documentation_has_a_figure_left_to_fill_in() -> None:
    root = SOURCE.parents[1]
    for page in (*root.glob("*.md"), *root.glob("docs/**/*.md")):
        assert not re.findall(r"@[A-Z0-9]+@|\bTODO\b|\bTBD\b", page.read_text()), page
