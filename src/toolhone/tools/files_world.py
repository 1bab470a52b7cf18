"""The world `files`: list, read, write, move, delete and search small texts in folders.

    files = FilesWorld({"files": {"inbox/rent.txt": "falcon 48"}})
    files.call(ToolCall("find", {"word": "falcon"}))      # ["inbox/rent.txt"]

Levels: 1 a path is given; 2 a file has to be found or read; 3 read before the next call is known;
4 all files of a folder; 5 their texts as well.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from toolhone.schema import Json, ToolCall
from toolhone.tools.worlds import Assignment, Plan, StateWorld, new_names, phrasings

FOLDERS = ("inbox", "work", "home", "drafts", "archive", "shared", "photos", "letters", "school")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "path": ("{path}", "the file {path}"),
    "word": ("the file with the word {word}", "the file that mentions {word}"),
    "link": ("the file that {path} names", "the file whose path is in {path}"),
    "folder": ("all files of {folder}", "every file in {folder}"),
}
ACTIONS: Mapping[str, tuple[str, ...]] = {
    "delete": ("Delete {what}.", "Remove {what}, please."),
    "move": ("Move {what} to {target}.", "Put {what} into {target}, please."),
    "copy": ("Copy {what} to {target}.", "Make a copy of {what} in {target}, please."),
    "read": ("Which number is in {what}?", "Tell me the number in {what}."),
    "merge": ("Write the texts of {what} into {new}, one line each.",),
    "write": ('Write "{text}" into {new}.', 'Make a file {new} that says "{text}".'),
}
LEVELS: tuple[tuple[str, ...], ...] = (
    ("delete path", "move path", "write path"),
    ("delete word", "move word", "read path"),
    ("copy word", "read word", "delete link", "read link"),
    ("delete folder", "move folder"),
    ("copy folder", "merge folder"),
)
REQUESTS: Mapping[str, tuple[str, ...]] = {
    kind: phrasings(ACTIONS[kind.split()[0]], CHOICES[kind.split()[1]])
    for level in LEVELS
    for kind in level
}


class FilesWorld(StateWorld):
    """State: `files`, the text of each by its path. A folder is what paths begin with."""

    name, about = "files", "list, read, write, move, delete and search files in folders"
    levels, requests = LEVELS, REQUESTS
    tool_names = (*("list_files", "find", "read"), *("write", "move", "delete"))

    def list_files(self, folder: str) -> list[Json]:
        """List the paths of the files in a folder."""
        found = [path for path in self.now["files"] if path.startswith(f"{folder}/")]
        if not found:
            raise ValueError(f"there is no folder {folder!r}")
        return list(found)

    def find(self, word: str) -> list[Json]:
        """Find the paths of the files whose text has a word."""
        return [path for path, text in self.now["files"].items() if word in text.split()]

    def read(self, path: str) -> str:
        """Read the text of a file."""
        return str(self.entry("files", path))

    def write(self, path: str, text: str) -> Json:
        """Write a text into a file, which is made or replaced."""
        self._put(path, text)
        return {"path": path, "size": len(text)}

    def move(self, path: str, folder: str) -> Json:
        """Move a file into a folder; returns its new path."""
        text, new = self.entry("files", path), f"{folder}/{path.rpartition('/')[2]}"
        if new in self.now["files"]:
            raise ValueError(f"there is a file {new!r} already")
        self._put(new, text)
        del self.now["files"][path]
        return {"path": new}

    def delete(self, path: str) -> Json:
        """Delete a file."""
        self.entry("files", path)
        del self.now["files"][path]
        return {"deleted": path}

    def _put(self, path: str, text: str) -> None:
        if not all(path.split("/")):
            raise ValueError(f"{path!r} is no path such as 'folder/name.txt'")
        for other in self.now["files"]:
            if other.startswith(f"{path}/"):
                raise ValueError(f"{path!r} is the folder of {other!r}")
            if path.startswith(f"{other}/"):
                raise ValueError(f"{other!r} is a file and no folder")
        self.now["files"][path] = text

    @classmethod
    def draft(cls, kind: str, rng: random.Random, held_out: bool) -> Assignment:
        action, choice = kind.split()
        folders, names = rng.sample(FOLDERS, 3), new_names(rng, 10, held_out)
        names, words = names[:5], names[5:]
        own = [f"{folders[0]}/{name}.txt" for name in names[: rng.randint(2, 3)]]
        paths = [*own, *(f"{folders[1]}/{name}.txt" for name in names[len(own) : -1])]
        rng.shuffle(paths)
        numbers = rng.sample(range(10, 100), 5)
        texts = [f"{word} {number}" for word, number in zip(words, numbers, strict=True)]
        files: dict[str, Any] = dict(zip(paths, texts, strict=False))
        place = rng.randrange(len(paths))
        path, target, new = paths[place], folders[2], f"{folders[2]}/{names[4]}.txt"
        said = {"path": path, "word": words[place], "folder": folders[0], "target": target}
        said |= {"new": new, "text": texts[4]}
        if choice == "link":
            said["path"] = link = f"{target}/{names[4]}.txt"
            files[link] = path
        goal: dict[str, Json] = {"do": action, choice: said[choice if choice != "link" else "path"]}
        goal |= {key: said[key] for key in ("target", "new", "text")}
        chosen = [one for one in files if one in own] if choice == "folder" else [path]
        ends = {one: f"{target}/{one.rpartition('/')[2]}" for one in chosen}
        kept = {one: text for one, text in files.items() if one not in chosen}
        after: dict[str, Json] = {
            "delete": kept,
            "move": {**kept, **{ends[one]: files[one] for one in chosen}},
            "copy": {**files, **{ends[one]: files[one] for one in chosen}},
            "write": {**files, new: texts[4]},
            "merge": {**files, new: "\n".join(files[one] for one in chosen)},
        }
        answer = str(numbers[place]) if action == "read" else None
        expected = {"files": after[action]} if action in after else {}
        return Assignment({"files": files}, goal, said, expected, answer)

    @classmethod
    def solve(cls, goal: Mapping[str, Json]) -> Plan:
        if goal["do"] == "write":
            yield ToolCall("write", {"path": goal["new"], "text": goal["text"]})
            return "Done."
        if "word" in goal:
            chosen = yield ToolCall("find", {"word": goal["word"]})
        elif "folder" in goal:
            chosen = yield ToolCall("list_files", {"folder": goal["folder"]})
        elif "link" in goal:
            chosen = [(yield ToolCall("read", {"path": goal["link"]}))]
        else:
            chosen = [goal["path"]]
        texts = []
        for path in chosen:
            if goal["do"] == "delete":
                yield ToolCall("delete", {"path": path})
            elif goal["do"] == "move":
                yield ToolCall("move", {"path": path, "folder": goal["target"]})
            else:
                texts.append((yield ToolCall("read", {"path": path})))
            if goal["do"] == "copy":
                end = f"{goal['target']}/{path.rpartition('/')[2]}"
                yield ToolCall("write", {"path": end, "text": texts[-1]})
        if goal["do"] == "merge":
            yield ToolCall("write", {"path": goal["new"], "text": "\n".join(texts)})
        return f"It is {texts[0].split()[1]}." if goal["do"] == "read" else "Done."
