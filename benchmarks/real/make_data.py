"""Rows and tasks of `make real`: the five tools of a customer desk, the built-in tools, plain chat.

    make_data(Path("OUT/data"), Sizes(rows=320, tasks=40), seed=0, plain=[("Hello", "Hi!")])

Desk requests have three sets of phrasings: SFT is labelled with the first, whose optional parts
come and go (`[a|b]`), so that no argument follows from another; GRPO plays the second, and the
third, with other cities, streets, countries and languages, is only measured.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolhone.data.templates import Templates

DESK = json.loads(Path(__file__).with_name("desk.json").read_text(encoding="utf-8"))
CHAT = json.loads(Path(__file__).with_name("chat.json").read_text(encoding="utf-8"))
SHARES = {"desk": 0.58, "missing": 0.18, "builtin": 0.04, "plain": 0.2}
"""Of the rows of SFT."""
INVENTED = 0.5
"""Share of SFT's streets and cities that are made of syllables: a name has to be read, letter by
letter, where no list of names can be learned."""
LEFT_OUT = 0.7
"""How often SFT leaves an optional part of a request out: a reason is then in 33 % of the calls
that may have one; with each alternative alike it was in 52 %."""
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August")
Record = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """Rows of SFT, GRPO tasks, and measured tasks of each kind."""

    rows: int
    grpo: int
    tasks: int


def slots(rng: random.Random, place: str) -> dict[str, tuple[Any, str]]:
    """A value for every slot, and how it is said in a request."""
    pools = DESK["pools"]
    month = rng.randrange(1, 7)
    found: dict[str, tuple[Any, str]] = {}
    for name, shift in (("date", 0), ("after", 0), ("before", 2)):
        day, number = rng.randrange(1, 29), month + shift
        value = f"2026-{number:02d}-{day:02d}"
        said = (value, f"{MONTHS[number - 1]} {day}, 2026", f"{day} {MONTHS[number - 1]} 2026")
        found[name] = value, rng.choice(said)
    amount = rng.choice((rng.randrange(5, 900), round(rng.uniform(2, 500), 2)))
    first, second = rng.sample(pools["currency"], 2)
    number = rng.randrange(2, 30)
    order = f"{rng.choice('ABCDKR')}-{rng.randrange(1000, 9999)}"
    filters = DESK["tools"][0]["parameters"]["properties"]["filter"]["properties"]
    status = rng.choice(filters["status"]["enum"])
    slot = rng.choice(("morning", "afternoon", "evening"))
    customer = f"C{rng.randrange(10000, 99999)}"
    street = f"{rng.randrange(1, 200)} {rng.choice(pools[place]['street'])}"
    plain = {"amount": amount, "currency": first, "currency2": second, "n": number, "order": order}
    plain |= {"status": status, "slot": slot, "customer": customer, "street": street}
    plain["city"], plain["country"] = rng.choice(pools[place]["place"])
    if place == "train" and rng.random() < INVENTED:
        plain["street"] = f"{rng.randrange(1, 200)} {invented(rng)} {rng.choice(DESK['ways'])}"
        plain["city"] = invented(rng)
    plain["language"] = rng.choice(pools[place]["language"])
    found |= {name: (value, str(value)) for name, value in plain.items()}
    found["reason"] = tuple(rng.choice(pools["reason"]))
    return found


def invented(rng: random.Random) -> str:
    """A made-up name of a place, other than those that are only measured."""
    starts, middles, ends = DESK["syllables"]
    middle = rng.choice(middles) if rng.random() < 0.4 else ""
    name = str(rng.choice(starts) + middle + rng.choice(ends))
    held = DESK["pools"]["held"]
    return invented(rng) if name in str((held["place"], held["street"])) else name


def one_of(text: str, rng: random.Random) -> str:
    """Draw one alternative for each `[a|b|c]`; an optional slot, `[|a {slot}]`, is left out with
    probability `LEFT_OUT`."""

    def drawn(found: re.Match[str]) -> str:
        parts: list[str] = found[1].split("|")
        if "" in parts and "{" in found[1]:
            parts = [""] if rng.random() < LEFT_OUT else [part for part in parts if part]
        return rng.choice(parts)

    return re.sub(r"\[([^]]*)\]", drawn, text)


def desk_request(rng: random.Random, kind: str) -> tuple[str, str, Record]:
    """A request with its tool and arguments: the slots that occur in its text.

    Tools with many arguments are trained on more often; measured and played are all alike.
    """
    hardness = [len(slots) ** 2 if kind == "sft" else 1 for slots in DESK["slots"].values()]
    tool = rng.choices(list(DESK["slots"]), hardness)[0]
    text = rng.choice([text for text, of in DESK["requests"][kind] if of == tool])
    values = slots(rng, "held" if kind == "held" else "train")
    text, arguments = one_of(text, rng), {"filter": {}} if tool == "find_orders" else Record()
    for slot, (*outer, name) in DESK["slots"][tool].items():
        if f"{{{slot}}}" in text:
            place = arguments
            for key in outer:
                place = place.setdefault(key, {})
            place[name] = values[slot][0]
    return text.format(**{name: said for name, (_, said) in values.items()}), tool, arguments


def function(tool: Record) -> Record:
    return {"type": "function", "function": tool}


def desk_row(rng: random.Random) -> Record:
    """A labelled request; a third go on to the result and an answer, some to a second request."""
    tools, messages = [function(tool) for tool in DESK["tools"]], list[Record]()
    for _ in range(rng.choice((1, 1, 1, 2))):
        text, tool, arguments = desk_request(rng, "sft")
        messages += [{"role": "user", "content": text}, calling(tool, arguments)]
        result, answer = DESK["answers"][tool]
        messages.append({"role": "tool", "tool_call_id": "0", "content": json.dumps(result)})
        messages.append({"role": "assistant", "content": answer})
    if len(messages) == 4 and rng.random() < 0.66:
        messages = messages[:2]
    return {"messages": messages, "tools": tools}


def calling(tool: str, arguments: Record) -> Record:
    call = {"name": tool, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "0", "type": "function", "function": call}],
    }


def desk_missing(rng: random.Random, kind: str) -> tuple[str, str]:
    text, answer = rng.choice(DESK["missing"][kind])
    said = {name: said for name, (_, said) in slots(rng, "train").items()}
    return one_of(text, rng).format(**said), answer


def spoken(question: str, answer: str, tools: Sequence[Record] = ()) -> Record:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "tools": list(tools)}


def task(number: int, category: str, text: str, tools: Sequence[Record], expect: Record) -> Record:
    messages = [{"role": "user", "content": text}]
    named = {"id": f"{category}-{number:04d}", "category": category}
    return {**named, "messages": messages, "tools": list(tools), "expect": expect}


def desk_tasks(kind: str, count: int, seed: int, category: str) -> Iterator[Record]:
    rng, tools = random.Random(f"{kind} {seed}"), [function(tool) for tool in DESK["tools"]]
    for number in range(count):
        text, tool, arguments = desk_request(rng, kind)
        expect = {"calls": [{"name": tool, "arguments": arguments}]}
        yield task(number, category, text, tools, expect)


def no_call_tasks(count: int, seed: int) -> Iterator[Record]:
    """Requests that lack something, and plain questions, both with the desk's tools on offer."""
    rng, tools = random.Random(f"no call {seed}"), [function(tool) for tool in DESK["tools"]]
    for number in range(count):
        text = desk_missing(rng, "held")[0] if number % 2 else CHAT["asked"][number % 20]
        category = "desk, something missing" if number % 2 else "plain questions beside tools"
        yield task(number, category, text, tools, {"no_call": True})


def silent_tasks(count: int, seed: int) -> Iterator[Record]:
    """What GRPO plays beside calls, in phrasings of SFT: without it the model forgets to ask."""
    rng, tools = random.Random(f"silent {seed}"), [function(tool) for tool in DESK["tools"]]
    for number in range(count):
        plain = CHAT["trained"][number // 2 % len(CHAT["trained"])]
        text = desk_missing(rng, "sft")[0] if number % 2 else plain
        yield task(number, "no call", text, tools, {"no_call": True})


def sft_rows(count: int, seed: int, plain: Sequence[tuple[str, str]]) -> list[Record]:
    """Rows of all kinds, in the shares of `SHARES`; half of plain chat has tools on offer."""
    rng = random.Random(f"sft {seed}")
    numbers = {name: round(count * share) for name, share in SHARES.items()}
    rows = [desk_row(rng) for _ in range(numbers["desk"])]
    tools = [function(tool) for tool in DESK["tools"]]
    rows += [spoken(*desk_missing(rng, "sft"), tools) for _ in range(numbers["missing"])]
    rows += [row.to_dict() for row in Templates(seed).conversations(numbers["builtin"])]
    rows += [
        spoken(*plain[number % len(plain)], tools if number % 2 else ())
        for number in range(numbers["plain"] if plain else 0)
    ]
    rng.shuffle(rows)
    for number, row in enumerate(rows):
        row["id"] = f"row-{number:05d}"
    return rows


def published_tasks(file: Path, count: int, seed: int) -> Iterator[Record]:
    """Tasks drawn from a file that `toolhone data import` wrote, in a category of their own."""
    lines = file.read_text(encoding="utf-8").splitlines()
    tasks = [record for record in map(json.loads, lines) if "expect" in record]
    for record in random.Random(seed).sample(tasks, min(count // 2, len(tasks))):
        name = file.name.partition(".")[0]
        yield {**record, "id": f"{name}-{record['id']}", "category": name}


def make_data(
    out: Path,
    sizes: Sizes,
    seed: int,
    plain: Sequence[tuple[str, str]],
    published: Sequence[Path] = (),
) -> dict[str, Path]:
    """Write rows.jsonl, grpo.jsonl and tasks.jsonl (measured); return them.

    grpo.jsonl: tasks to play, and a quarter as many rows of SFT, which are played as well, and
    whose gradient goes beside the reward. published: files of tasks, half as many, only measured.
    """
    builtin = [one.to_dict() for one in Templates(seed).tasks(sizes.tasks, "held_out_fillers")]
    for one in builtin:
        one["category"] = "built-in tools"
    measured = [
        *desk_tasks("held", sizes.tasks, seed, "desk, held-out phrasings"),
        *desk_tasks("grpo", sizes.tasks, seed + 1000, "desk, phrasings of GRPO"),
        *no_call_tasks(sizes.tasks, seed),
        *builtin,
        *(one for file in published for one in published_tasks(file, sizes.tasks, seed)),
    ]
    played = [*desk_tasks("grpo", sizes.grpo, seed, "desk"), *silent_tasks(sizes.grpo // 4, seed)]
    rows = sft_rows(sizes.rows, seed, plain)
    mixed = [*played, *rows[: len(played) // 4]]
    random.Random(seed).shuffle(mixed)
    files = {"rows": rows, "grpo": mixed, "tasks": measured}
    out.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, records in files.items():
        paths[name] = out / f"{name}.jsonl"
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        paths[name].write_text("".join(lines), encoding="utf-8")
    return paths
