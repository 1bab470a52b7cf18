"""Five tools of a customer desk: what `desk.json` trains a model to call.

Results follow from the arguments alone: a customer, orders and tickets that exist nowhere.
"""

from datetime import date
from typing import Annotated, Literal
from zlib import crc32

from pydantic import BaseModel, Field

from toolhone import tool

Currency = Literal["EUR", "USD", "GBP", "JPY", "CHF", "SEK"]
OrderId = Annotated[str, Field(pattern=r"^ORD-\d{5}$")]
CustomerId = Annotated[str, Field(pattern=r"^C-\d{4}$")]
_IN_EUR = {"EUR": 1.0, "USD": 0.92, "GBP": 1.17, "JPY": 0.0061, "CHF": 1.04, "SEK": 0.088}
_STATUS = ("open", "paid", "shipped", "delivered", "returned")


class Placed(BaseModel):
    start: date | None = None
    end: date | None = None


class Total(BaseModel):
    min: Annotated[float, Field(ge=0, le=500)] | None = None
    max: Annotated[float, Field(ge=0, le=500)] | None = None


class Filters(BaseModel):
    status: Literal["open", "paid", "shipped", "delivered", "returned"] | None = None
    channel: Literal["web", "app", "store", "phone"] | None = None
    placed: Placed | None = None
    total: Total | None = None


def _digits(text: str, count: int) -> str:
    return str(crc32(text.encode()) % 10**count).zfill(count)


@tool
def find_customer(name: str, country: str | None = None, email: str | None = None) -> dict:
    """Find a customer."""
    known = {"country": country, "email": email}
    found = {key: value for key, value in known.items() if value is not None}
    return {"customer_id": f"C-{_digits(name, 4)}", "name": name, **found}


@tool
def search_orders(
    filters: Filters,
    sort_by: Literal["date", "total", "status"] | None = None,
    limit: Annotated[int, Field(ge=1, le=50)] | None = None,
) -> list[dict]:
    """Search orders."""
    text = filters.model_dump_json()
    least = (filters.total and filters.total.min) or 10.0
    orders = [
        {
            "order_id": f"ORD-{_digits(f'{text}{number}', 5)}",
            "status": filters.status or _STATUS[number],
            "total": round(least + 12.5 * number, 2),
        }
        for number in range(min(limit or 2, 2))
    ]
    return sorted(orders, key=lambda order: str(order.get(sort_by or "total")))


@tool
def refund_order(
    order_id: OrderId,
    amount: Annotated[float, Field(gt=0, le=2000)],
    currency: Currency,
    reason: Literal["damaged", "late", "wrong_item", "not_as_described", "other"],
    notify_customer: bool | None = None,
) -> dict:
    """Refund an order."""
    refund_id = f"R-{_digits(f'{order_id}{reason}', 5)}"
    notified = {"notified": True} if notify_customer else {}
    return {"refund_id": refund_id, "amount": amount, "currency": currency, **notified}


@tool
def create_ticket(
    customer_id: CustomerId,
    topic: Literal["billing", "delivery", "product_defect", "account", "feedback"],
    priority: Literal["low", "normal", "high", "urgent"],
    due_date: date | None = None,
    tags: list[Literal["vip", "repeat", "legal", "press"]] | None = None,
    note: str | None = None,
) -> dict:
    """Create a ticket."""
    ticket_id = f"T-{_digits(f'{customer_id}{topic}{tags}{note}', 4)}"
    due = {} if due_date is None else {"due": due_date.isoformat()}
    return {"ticket_id": ticket_id, "priority": priority, **due}


@tool
def convert_currency(
    amount: Annotated[float, Field(gt=0, le=10000)],
    from_currency: Currency,
    to_currency: Currency,
    on: date | None = None,
) -> dict:
    """Convert an amount of money."""
    converted = round(amount * _IN_EUR[from_currency] / _IN_EUR[to_currency], 2)
    day = {} if on is None else {"on": on.isoformat()}
    return {"amount": converted, "currency": to_currency, **day}
