"""The world `calendar`: list events, find free hours, create, move and cancel events, invite.

    calendar = CalendarWorld({"events": {"e12": {"title": "review", "day": "Monday", ...}}})
    calendar.call(ToolCall("find_free", {"day": "Monday", "hours": 2}))      # [11, 12, 15]

Levels: 1 an id is given; 2 an event has to be found; 3 a free hour has to be found; 4 all events of
a day; 5 the first of two days with room, and two guests.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from toolhone.schema import Json, ToolCall
from toolhone.tools.worlds import Assignment, Plan, StateWorld, new_names, phrasings

Day = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
Start = Annotated[int, Field(ge=9, le=16, description="Full hour, 9 to 16.")]
Hours = Annotated[int, Field(ge=1, le=8)]
DAYS: tuple[str, ...] = get_args(Day)
FIRST, LAST = 9, 17
"""Full hours between which a day has its events."""
KINDS = ("review", "lunch", "workshop", "interview", "lesson", "demo", "training", "meeting")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "id": ("{id}", "event {id}"),
    "title": ("the {title} on {day}", "my {title} on {day}"),
    "day": ("everything on {day}", "all events on {day}"),
}
ACTIONS: Mapping[str, tuple[str, ...]] = {
    "cancel": ("Cancel {what}.", "Please cancel {what}."),
    "invite": ("Invite {guest} to {what}.", "Add {guest} to {what}, please."),
    "move": ("Move {what} to {other}, as early as possible.",),
}
REQUESTS: Mapping[str, tuple[str, ...]] = {
    **{
        f"{action} {choice}": phrasings(said, things)
        for action, said in ACTIONS.items()
        for choice, things in CHOICES.items()
    },
    "create event": (
        'Put "{new}" on {other} at {start} for {hours} h.',
        'Book {hours} h for "{new}" on {other} at {start}, please.',
    ),
    "tell hour": ("What do I have on {day} at {at}?", "Which event is on {day} at {at}?"),
    "book day": (
        'Put "{new}" on {other} for {hours} h, as early as possible.',
        'Book the first free {hours} h on {other} for "{new}".',
    ),
    "book either": (
        'Put "{new}" on {day}, or on {other} if {day} is full, for {hours} h, as early as '
        "possible, and invite {guest} and {second}.",
        'Book the first free {hours} h on {day}, else on {other}, for "{new}" with {guest} and '
        "{second}.",
    ),
}
LEVELS: tuple[tuple[str, ...], ...] = (
    ("cancel id", "invite id", "create event"),
    ("cancel title", "invite title", "tell hour"),
    ("book day", "move title"),
    ("cancel day", "invite day"),
    ("book either",),
)
NAMED_BY = {"id": ("id",), "title": ("title", "day"), "hour": ("day", "at"), "day": ("day",)}
"""What a request names an event by."""


class CalendarWorld(StateWorld):
    """State: `events` by id (`title`, `day`, `start`, `hours`, and `guests` in order of names)."""

    name, about = "calendar", "list events, find free hours, create, move, cancel, invite"
    levels, requests = LEVELS, REQUESTS
    tool_names = (*("list_events", "find_free", "create"), *("move", "cancel", "invite"))

    def list_events(self, day: Day) -> list[Json]:
        """List the events of a day, the earliest first."""
        events = [{"id": key, **event} for key, event in self.now["events"].items()]
        found = [event for event in events if event["day"] == day]
        return sorted(found, key=lambda event: event["start"])

    def find_free(self, day: Day, hours: Hours) -> list[Json]:
        """Find the full hours of a day at which so many hours are free."""
        return [*free_starts(self.now["events"], day, hours)]

    def create(self, title: str, day: Day, start: Start, hours: Hours) -> Json:
        """Create an event in free hours; returns its id."""
        self._check_free(self.now["events"], day, start, hours)
        key = new_id(self.now["events"])
        event = {"title": title, "day": day, "start": start, "hours": hours, "guests": []}
        self.now["events"][key] = event
        return {"id": key}

    def move(self, id: str, day: Day, start: Start) -> Json:
        """Move an event, by its id, to free hours of a day."""
        event = self.entry("events", id)
        others = {key: one for key, one in self.now["events"].items() if key != id}
        self._check_free(others, day, start, event["hours"])
        event |= {"day": day, "start": start}
        return {"id": id, "day": day, "start": start}

    def cancel(self, id: str) -> Json:
        """Cancel an event, by its id."""
        self.entry("events", id)
        del self.now["events"][id]
        return {"cancelled": id}

    def invite(self, id: str, guest: str) -> Json:
        """Invite a guest to an event, by its id; returns the guests."""
        event = self.entry("events", id)
        event["guests"] = sorted({*event["guests"], guest})
        return list(event["guests"])

    def _check_free(self, events: Mapping[str, Any], day: str, start: int, hours: int) -> None:
        if start not in free_starts(events, day, hours):
            raise ValueError(f"{day} from {start} to {start + hours} is not free")

    @classmethod
    def draft(cls, kind: str, rng: random.Random, held_out: bool) -> Assignment:
        action, choice = kind.split()
        either, full = choice == "either", choice == "either" and rng.random() < 0.5
        day, other, third = rng.sample(DAYS, 3)
        names = new_names(rng, 7, held_out)
        *titles, new = [f"{name} {rng.choice(KINDS)}" for name in names[2:]]
        guests = [name.title() for name in names[:2]]
        numbers, events = iter(rng.sample(range(10, 90), 8)), dict[str, Any]()
        for one, size in ((day, 4 if full else rng.randint(2, 3)), (other, 2), (third, 1)):
            starts = rng.sample(range(FIRST, LAST, 2), size)
            for title, start in zip(rng.sample(titles, size), starts, strict=True):
                fields = {"title": title, "day": one, "start": start}
                length = 2 if full else rng.randint(1, 2)
                events[f"e{next(numbers)}"] = {**fields, "hours": length, "guests": []}
        own = [key for key, event in events.items() if event["day"] == day]
        chosen, hours = rng.choice(own), rng.randint(1, 2)
        event, start = events[chosen], rng.choice(free_starts(events, other, hours))
        said = {"id": chosen, "title": event["title"], "day": day, "at": event["start"]}
        said |= {"new": new, "hours": hours, "other": other, "start": start}
        said |= {"guest": guests[0], "second": guests[1]}
        invited = {"either": guests}.get(choice, guests[:1] if action == "invite" else [])
        goal: dict[str, Json] = {"do": action, "guests": invited}
        if action in ("create", "book"):
            goal |= {"new": new, "hours": hours, "days": [day, other] if either else [other]}
            on, at = day if either and not full else other, start
            if action == "create":
                goal["start"] = start
            else:
                at = free_starts(events, on, hours)[0]
            made = {"title": new, "day": on, "start": at, "hours": hours}
            after = {**events, new_id(events): {**made, "guests": sorted(invited)}}
            return Assignment({"events": events}, goal, said, {"events": after})
        goal |= {name: said[name] for name in NAMED_BY[choice]} | {"other": other}
        which = own if choice == "day" else [chosen]
        moved = {"day": other, "start": free_starts(events, other, event["hours"])[0]}
        changes = {"invite": {"guests": invited}, "move": moved}.get(action, {})
        after = {key: one | (changes if key in which else {}) for key, one in events.items()}
        if action == "cancel":
            after = {key: one for key, one in events.items() if key not in which}
        if action == "tell":
            return Assignment({"events": events}, goal, said, answer=event["title"])
        return Assignment({"events": events}, goal, said, {"events": after})

    @classmethod
    def solve(cls, goal: Mapping[str, Json]) -> Plan:
        if "new" in goal:
            starts, day = [goal.get("start")], goal["days"][0]
            if "start" not in goal:
                for day in goal["days"]:
                    starts = yield ToolCall("find_free", {"day": day, "hours": goal["hours"]})
                    if starts:
                        break
            event = {"title": goal["new"], "day": day, "start": starts[0], "hours": goal["hours"]}
            made = yield ToolCall("create", event)
            for guest in goal["guests"]:
                yield ToolCall("invite", {"id": made["id"], "guest": guest})
            return "Done."
        found = [goal]
        if "id" not in goal:
            found = yield ToolCall("list_events", {"day": goal["day"]})
        if "at" in goal:
            return f"The {next(one['title'] for one in found if one['start'] == goal['at'])}."
        for one in found:
            if goal.get("title") not in (None, one.get("title")):
                continue
            if goal["do"] == "cancel":
                yield ToolCall("cancel", {"id": one["id"]})
            elif goal["do"] == "invite":
                yield ToolCall("invite", {"id": one["id"], "guest": goal["guests"][0]})
            else:
                free = {"day": goal["other"], "hours": one["hours"]}
                starts = yield ToolCall("find_free", free)
                to = {"id": one["id"], "day": goal["other"], "start": starts[0]}
                yield ToolCall("move", to)
        return "Done."


def free_starts(events: Mapping[str, Any], day: str, hours: int) -> list[int]:
    """The full hours at which an event of so many hours fits into a day."""
    taken = {
        hour
        for event in events.values()
        if event["day"] == day
        for hour in range(event["start"], event["start"] + event["hours"])
    }
    starts = range(FIRST, LAST - hours + 1)
    return [start for start in starts if taken.isdisjoint(range(start, start + hours))]


def new_id(events: Mapping[str, Any]) -> str:
    """The id that the next event gets."""
    return f"e{1 + max((int(key[1:]) for key in events), default=10)}"
