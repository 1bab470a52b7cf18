"""The tools that the model learns to call. Replace them by your own: any function with type hints
and a docstring, marked with @tool. What they return here follows from the arguments alone."""

from typing import Annotated, Literal

from pydantic import Field

from toolhone import tool

OrderId = Annotated[str, Field(pattern=r"^ORD-\d{5}$")]
Topic = Literal["billing", "delivery", "product_defect"]


@tool
def find_order(order_id: OrderId) -> dict:
    """Find an order."""
    return {"order_id": order_id, "status": "shipped", "total": 49.5}


@tool
def list_stores(city: str, open_on: Literal["Saturday", "Sunday"] | None = None) -> list[dict]:
    """List the stores in a city."""
    return [{"store": f"{city} Central", "open_on": open_on or "Saturday"}]


@tool
def open_ticket(order_id: OrderId, topic: Topic, note: str | None = None) -> dict:
    """Open a ticket for an order."""
    return {"ticket_id": f"T-{order_id[-4:]}", "topic": topic, "note": note or "none"}
