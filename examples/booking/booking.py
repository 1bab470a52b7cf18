"""A tool with a nested schema: what `booking.json` trains a model to call."""

from typing import Literal

from pydantic import BaseModel

from toolhone import tool

Seat = Literal["window", "bar", "terrace"]


class Contact(BaseModel):
    name: str
    phone: str


@tool
def book_table(restaurant: str, people: int, contact: Contact, seat: Seat | None = None) -> dict:
    """Book a table in a restaurant."""
    return {"booked": f"{people} at {restaurant} for {contact.name}", "seat": seat or "any"}
