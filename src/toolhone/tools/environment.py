"""Values from the environment that a header or a command may carry, and that nobody may read in a result.

    token = FromEnvironment.of("Bearer ${API_TOKEN}")
    token.check("tool 'x', header Authorization")     # ConfigError where the variable is not set
    text, secrets = token.filled(), token.secrets()
    hidden(reply, secrets)                            # the reply with "[hidden]" where a secret stood

A value is read at the moment of use and never kept. Hiding is for a service that repeats what it was sent: as it is, in JSON, or
quoted as in an address. A service that means to give a secret away can. Values of fewer than `SHORTEST` characters are not hidden,
since any text has them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from toolhone.errors import ConfigError
from toolhone.schema import Json

SHORTEST = 4
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class FromEnvironment:
    """A text with `${NAME}` in it; it holds the names, not the values."""

    text: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(_REFERENCE.findall(self.text))

    def check(self, where: str) -> None:
        """Stop where a variable is not set."""
        for name in self.names:
            if not os.environ.get(name):
                raise ConfigError(
                    f"{where} needs the environment variable {name}, which is not set (or is empty)"
                )

    def filled(self) -> str:
        self.check("a tool")
        return _REFERENCE.sub(lambda match: os.environ[match[1]], self.text)

    def secrets(self) -> tuple[str, ...]:
        """The values that were filled in."""
        return tuple(os.environ.get(name, "") for name in self.names)


def hidden(value: Json, secrets: Iterable[str]) -> Json:
    """The value with every secret in its texts replaced."""
    found = sorted(_spellings(secrets), key=len, reverse=True)
    return _hidden(value, found) if found else value


def _spellings(secrets: Iterable[str]) -> set[str]:
    long = [secret for secret in secrets if len(secret) >= SHORTEST]
    quoted = [way(secret) for secret in long for way in (quote, quote_plus)] + [
        quote(secret, safe="") for secret in long
    ]
    in_json = [
        json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        for secret in long
        for ascii_only in (True, False)
    ]
    return {*long, *quoted, *in_json}


def _hidden(value: Json, secrets: Sequence[str]) -> Json:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "[hidden]")
        return value
    if isinstance(value, Mapping):
        return {_hidden(key, secrets): _hidden(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hidden(inner, secrets) for inner in value]
    return value


def hidden_when_cut(text: str, secrets: Sequence[str]) -> str:
    """As `hidden`, for a text that was cut at its end: the beginning of a secret there goes too."""
    text = str(hidden(text, secrets))
    for secret in _spellings(secrets):
        for length in range(len(secret) - 1, SHORTEST - 1, -1):
            if text.endswith(secret[:length]):
                return text[:-length] + "[hidden]"
    return text
