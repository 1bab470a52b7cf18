"""The world `shop`: find products, fill a cart, place and cancel orders.

    shop = ShopWorld({"products": {"p17": {"name": "red mug", "price": 12}}, "cart": {}, ...})
    shop.call(ToolCall("search", {"name": "red mug"}))      # [{"id": "p17", ...}]

Levels: 1 an id is given; 2 a product has to be found; 3 found and ordered, or an order found and
cancelled; 4 the cheapest of several; 5 two products in one order.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from toolhone.schema import Json, ToolCall
from toolhone.tools.worlds import Assignment, Plan, StateWorld, new_names

THINGS = (
    *("mug", "chair", "box", "bag", "hat", "pen", "ball", "book", "lamp", "cup", "plate", "bowl"),
    *("clock", "coat", "shirt", "shoe", "table", "desk", "kite", "tent"),
)
REQUESTS: Mapping[str, tuple[str, ...]] = {
    "add_known": (
        "Put {quantity} of {product} into my cart.",
        "Add {quantity} of {product} to my cart, please.",
        "I would like {quantity} of {product} in the cart.",
    ),
    "remove_known": (
        "Take {product} out of my cart.",
        "Remove {product} from the cart, please.",
        "I do not want {product} any more: out of the cart with it.",
    ),
    "add": (
        "Put {quantity} of the {words} into my cart.",
        "Add {quantity} of the {words} to my cart, please.",
        "I would like {quantity} of the {words} in the cart.",
    ),
    "price": (
        "What does the {words} cost?",
        "How much is the {words}?",
        "Tell me the price of the {words}.",
    ),
    "order": (
        "Order {quantity} of the {words}.",
        "Buy {quantity} of the {words} for me, please.",
        "I need {quantity} of the {words}; please order them.",
    ),
    "cancel": (
        "Cancel my order of the {words}.",
        "Please cancel the order with the {words}.",
        "I do not need the {words} any more: cancel that order.",
    ),
    "cheapest": (
        "Order {quantity} of the cheapest {words}.",
        "Buy {quantity} of the cheapest {words} that there is.",
        "Which {words} is the cheapest? Order {quantity} of it.",
    ),
    "two": (
        "Order {quantity} of the {words} and {more} of the {other}, together.",
        "Buy {quantity} of the {words} and {more} of the {other} in one order.",
    ),
}
LEVELS: tuple[tuple[str, ...], ...] = (
    ("add_known", "remove_known"),
    ("add", "price"),
    ("order", "cancel"),
    ("cheapest",),
    ("two",),
)


class ShopWorld(StateWorld):
    """State: `products` by id, `cart` (quantity by id), `orders` by id (`items` and `status`)."""

    name, about = "shop", "find products, fill a cart, place and cancel orders"
    levels, requests = LEVELS, REQUESTS
    tool_names = (*("search", "add", "remove"), *("order", "list_orders", "cancel"))

    def search(self, name: Annotated[str, "Words that are in the name."]) -> list[Json]:
        """Find products by words of their name."""
        asked = name.lower().split()
        return [
            {"id": key, **product}
            for key, product in self.now["products"].items()
            if asked and all(word in product["name"].split() for word in asked)
        ]

    def add(self, id: str, count: Annotated[int, Field(ge=1, le=99)]) -> Json:
        """Put a product into the cart, by its id; returns the cart."""
        self.entry("products", id)
        self.now["cart"][id] = self.now["cart"].get(id, 0) + count
        return dict(self.now["cart"])

    def remove(self, id: str) -> Json:
        """Take a product out of the cart, by its id; returns the cart."""
        self.entry("cart", id)
        del self.now["cart"][id]
        return dict(self.now["cart"])

    def order(self) -> Json:
        """Order what is in the cart."""
        if not self.now["cart"]:
            raise ValueError("the cart is empty")
        number = 1 + max((int(key[1:]) for key in self.now["orders"]), default=10)
        self.now["orders"][f"o{number}"] = {"items": self.now["cart"], "status": "open"}
        self.now["cart"] = {}
        return {"id": f"o{number}", "status": "open"}

    def list_orders(self) -> list[Json]:
        """List all orders."""
        names = {key: product["name"] for key, product in self.now["products"].items()}
        return [
            {"id": key, "items": [names[item] for item in order["items"]]}
            | {"status": order["status"]}
            for key, order in self.now["orders"].items()
        ]

    def cancel(self, id: str) -> Json:
        """Cancel an open order, by its id."""
        found = self.entry("orders", id)
        if found["status"] != "open":
            raise ValueError(f"the order {id!r} is {found['status']}")
        found["status"] = "cancelled"
        return {"id": id, "status": "cancelled"}

    @classmethod
    def draft(cls, kind: str, rng: random.Random, held_out: bool) -> Assignment:
        state, names = _stock(rng, held_out, several=kind == "cheapest")
        products, expected = state["products"], dict[str, Json]()
        chosen, other = rng.sample(list(products), 2)
        quantity, more = rng.randint(1, 9), rng.randint(1, 9)
        words, goal, answer = names[chosen], dict[str, Json](), None
        if kind == "cheapest":
            words = words.split()[1]
            chosen = min(products, key=lambda key: products[key]["price"])
        wants = {"add_known": {"product": chosen}, "price": {}, "cancel": {}, "remove_known": {}}
        if (want := wants.get(kind, {"words": words})) or kind == "add_known":
            goal["add"] = [{**want, "quantity": quantity}]
            expected["cart"] = {chosen: quantity}
        if kind == "two":
            goal["add"].append({"words": names[other], "quantity": more})
            expected["cart"][other] = more
        if kind in ("order", "cheapest", "two"):
            goal["order"] = True
            placed = {"items": expected["cart"], "status": "open"}
            (old,) = state["orders"]
            orders = {**state["orders"], f"o{int(old[1:]) + 1}": placed}
            expected = {"cart": {}, "orders": orders}
        elif kind == "remove_known":
            state["cart"] = {chosen: quantity, other: more}
            goal["remove"], expected["cart"] = chosen, {other: more}
        elif kind == "cancel":
            first, second = rng.sample(range(11, 50), 2)
            wanted = {"items": {chosen: quantity}, "status": "open"}
            state["orders"] = {
                f"o{first}": wanted,
                f"o{second}": {"items": {other: more}, "status": "open"},
            }
            if rng.random() < 0.5:
                state["orders"] = dict(reversed(state["orders"].items()))
            goal["cancel"], expected = words, {"orders": copy.deepcopy(state["orders"])}
            expected["orders"][f"o{first}"]["status"] = "cancelled"
        elif kind == "price":
            goal["price"], answer = words, str(products[chosen]["price"])
        said = {"product": chosen, "words": words, "other": names[other]}
        said |= {"quantity": quantity, "more": more}
        return Assignment(state, goal, said, expected, answer)

    @classmethod
    def solve(cls, goal: Mapping[str, Json]) -> Plan:
        for want in goal.get("add", ()):
            product = want.get("product")
            if product is None:
                found = yield ToolCall("search", {"name": want["words"]})
                product = min(found, key=lambda one: one["price"])["id"]
            yield ToolCall("add", {"id": product, "count": want["quantity"]})
        if "remove" in goal:
            yield ToolCall("remove", {"id": goal["remove"]})
        if goal.get("order"):
            yield ToolCall("order")
        if "cancel" in goal:
            orders = yield ToolCall("list_orders")
            found = next(one["id"] for one in orders if goal["cancel"] in one["items"])
            yield ToolCall("cancel", {"id": found})
        if "price" in goal:
            found = yield ToolCall("search", {"name": goal["price"]})
            return f"It costs {found[0]['price']}."
        return "Done."


def _stock(
    rng: random.Random, held_out: bool, several: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """A shop with four products and an old order, and the names by id; `several`: of one thing."""
    brands, things = new_names(rng, 4, held_out), rng.sample(THINGS, 2)
    kinds = [things[0]] * 4 if several else [things[0], things[0], things[1], things[1]]
    ids = [f"p{number}" for number in rng.sample(range(10, 100), 4)]
    prices = rng.sample(range(3, 99), 4)
    names = {key: f"{b} {kind}" for key, b, kind in zip(ids, brands, kinds, strict=True)}
    products = {
        key: {"name": name, "price": price}
        for (key, name), price in zip(names.items(), prices, strict=True)
    }
    old = {"items": {ids[3]: 1}, "status": "open"}
    orders = {f"o{rng.randint(11, 50)}": old}
    return {"products": products, "cart": {}, "orders": orders}, names
