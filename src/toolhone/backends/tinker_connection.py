"""A connection to a service that speaks the Tinker protocol: opening, waiting, errors, checkpoints.

    service = connect()                         # TINKER_BASE_URL, TINKER_API_KEY
    output = service.call(lambda: client.forward_backward(data, "cross_entropy"))

Every error of the SDK leaves as one sentence, and a wait ends when the service stays silent. The
SDK retries for minutes by itself, and for ever where it waits for a result.
"""

from __future__ import annotations

import os
import re
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from toolhone.backends.usage import Usage
from toolhone.errors import CapabilityError, ConfigError, ModelError, ServiceError, nearest
from toolhone.runs.run import read_json, write_json, writing

PUBLIC_URL = "https://tinker.thinkingmachines.dev/services/tinker-prod"
PROBE_SECONDS = 10.0
"""Between two looks at whether the service still answers, while a result is waited for."""
LOST_SECONDS = 120.0
"""A service that did not answer for so long is lost."""
FILE = "tinker.json"
"""What a checkpoint folder holds in place of weights."""
LOCAL_KEYS = Path(".tinker") / "credentials.json"


@dataclass(frozen=True)
class ServiceCheckpoint:
    """A checkpoint on the service: URIs of its weights (with optimizer state) and of a sampler."""

    weights: str
    sampler: str
    base_model: str
    rank: int
    optimizer: bool = True

    def write(self, folder: Path) -> None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / FILE, asdict(self))

    @staticmethod
    def read(folder: Path) -> ServiceCheckpoint:
        """The checkpoint that `folder` refers to; `ModelError` where it holds none."""
        path = folder / FILE
        if not path.is_file():
            raise ModelError(
                f"{folder} holds no {FILE}: it is no checkpoint of a run on a Tinker service, and "
                "weights on this machine cannot be uploaded there"
            )
        try:
            return ServiceCheckpoint(**read_json(path))
        except TypeError:
            raise ModelError(f"{path} is damaged: it does not name a checkpoint") from None


def connect() -> TinkerConnection:
    """Connect to the service of TINKER_BASE_URL with TINKER_API_KEY, and create a session."""
    url = (os.environ.get("TINKER_BASE_URL") or PUBLIC_URL).rstrip("/")
    key = os.environ.get("TINKER_API_KEY")
    stored = os.environ.get("TINKER_CREDENTIAL_CMD") or (Path.home() / LOCAL_KEYS).is_file()
    if not key and not stored:
        raise ConfigError(
            f"model.backend tinker needs the key of {url}, and TINKER_API_KEY is not set; put "
            "TINKER_API_KEY=tml-... into the environment or the file .env (any key that begins "
            "with tml- for a server of your own)"
        )
    import tinker

    os.environ.setdefault("TINKER_TELEMETRY", "0")
    return TinkerConnection(tinker, url, key)


class TinkerConnection:
    """A session on a service. `sdk`: the module `tinker`; `usage`: tokens counted so far."""

    def __init__(self, sdk: Any, url: str, key: str | None) -> None:
        self.sdk, self.url, self._key, self.usage = sdk, url, key, Usage()
        self._silent_since: float | None = None
        self._probe(patience=0.0)  # the SDK would retry for minutes in its constructor
        self.client = self.call(lambda: sdk.ServiceClient(base_url=url, api_key=key))
        weakref.finalize(self, _close, self.client)
        self.models = {
            str(model.model_name): int(model.max_context_length or 0)
            for model in self.call(self._capabilities).supported_models
        }
        """Most tokens of a sequence (0: unknown) by the names of the models on offer."""

    def _capabilities(self) -> Any:
        with warnings.catch_warnings():  # SDKs below 0.38 have no other call
            warnings.simplefilter("ignore", FutureWarning)
            return self.client.get_server_capabilities()

    def model_name(self, names: Sequence[str]) -> str:
        """The first of `names` that the service offers; `ModelError` for none."""
        for name in names:
            if name in self.models:
                return name
        known = ", ".join(sorted(self.models)) or "none"
        raise ModelError(
            f"model.name: {self.url} has no model {names[0]!r}{nearest(names[0], self.models)}; "
            f"its models: {known}"
        )

    def call(self, work: Callable[[], Any]) -> Any:
        """The result of a call of the SDK: of its future, if it returns one."""
        with self.errors():
            value = work()
        return self.result(value)

    def result(self, value: Any) -> Any:
        """What the SDK's future `value` ends with; other values are returned as they are."""
        plain = plain_future(value)
        return value if plain is None else self.wait(plain)

    def wait(self, future: Any) -> Any:
        """The result of a future; `ServiceError` when the service stays silent."""
        while True:
            try:
                with self.errors():
                    value = future.result(timeout=PROBE_SECONDS)
            except TimeoutError as error:
                if isinstance(future, Future) and future.done():
                    raise self.sentence(error) from error
                self.check_alive()
            else:
                self._silent_since = None
                return value

    def check_alive(self) -> None:
        """Look whether the service answers; `ServiceError` when it did not for `LOST_SECONDS`."""
        self._probe(patience=LOST_SECONDS)

    def _probe(self, patience: float) -> None:
        try:
            httpx.get(f"{self.url}/api/v1/healthz", timeout=PROBE_SECONDS)
        except httpx.InvalidURL as error:
            raise ConfigError(
                f"TINKER_BASE_URL is {self.url!r}, which is no URL ({error})"
            ) from None
        except (httpx.HTTPError, OSError) as error:
            now = time.monotonic()
            self._silent_since = self._silent_since or now
            if now - self._silent_since >= patience:
                raise self.lost(error) from None
        else:
            self._silent_since = None

    def lost(self, error: BaseException) -> ServiceError:
        reason = str(error) or type(error).__name__
        return ServiceError(
            f"no connection to the Tinker service at {self.url} ({reason:.120}); check the network "
            "and TINKER_BASE_URL"
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """A context in which errors of the SDK become sentences."""
        try:
            yield
        except (self.sdk.TinkerError, httpx.HTTPError, ValueError, RuntimeError) as error:
            raise self.sentence(error) from error

    def sentence(self, error: BaseException) -> Exception:
        """The error to raise for one of the SDK."""
        sdk, cause = self.sdk, error.__cause__
        if "poisoned" in str(error) and cause is not None:  # what went wrong is its cause
            return self.sentence(cause)
        if isinstance(error, sdk.APIConnectionError | httpx.TransportError):
            return self.lost(error)
        status, reason = getattr(error, "status_code", None), _reason(error)
        if status in (401, 403) or "api_key" in str(error):
            return ConfigError(
                f"{self.url} does not accept the key in TINKER_API_KEY ({reason}); set the key of "
                "this service in the environment or in .env"
            )
        if status == 402:
            return ServiceError(f"{self.url} has stopped this account's work for billing: {reason}")
        if status == 429:
            return ServiceError(f"a limit of {self.url} is reached: {reason}; try again later")
        if str(getattr(error, "category", "")).lower().endswith("user"):
            return ModelError(f"{self.url} refuses a request: {reason}")
        return ServiceError(f"{self.url} failed: {reason}")

    def download(self, checkpoint: ServiceCheckpoint, folder: Path) -> None:
        """Download the adapter of a checkpoint as a PEFT folder, where the service offers that."""
        source = self.open_training(checkpoint.weights, optimizer=False)
        try:
            stored = self.call(lambda: source.save_weights_external("download"))
            urls = self.call(lambda: self._rest().get_external_weights_urls(stored.path)).urls
        except (ServiceError, ModelError) as error:
            raise CapabilityError(
                f"{checkpoint.weights} cannot be downloaded from {self.url} ({error})"
            ) from None
        for name, url in urls.items():
            parts = PurePosixPath(name)
            if parts.is_absolute() or ".." in parts.parts:
                raise ServiceError(f"{self.url} offers a file with the unsafe name {name!r}")
            target = folder / parts
            with self.errors(), writing(folder):
                target.parent.mkdir(parents=True, exist_ok=True)
                with httpx.stream("GET", url, timeout=60, follow_redirects=True) as answer:
                    answer.raise_for_status()
                    with target.open("wb") as file:
                        for piece in answer.iter_bytes():
                            file.write(piece)
        if not (folder / "adapter_config.json").is_file():
            raise CapabilityError(f"{self.url} offers no PEFT folder of {checkpoint.weights}")

    def open_training(self, uri: str, optimizer: bool) -> Any:
        """A training client with the weights of a URI."""
        client = self.client
        if optimizer:
            return self.call(lambda: client.create_training_client_from_state_with_optimizer(uri))
        return self.call(lambda: client.create_training_client_from_state(uri))

    def _rest(self) -> Any:
        try:
            return self.sdk.RestClient(base_url=self.url, api_key=self._key)
        except TypeError:  # below 0.38 only a ServiceClient makes one
            return self.client.create_rest_client()


def plain_future(value: Any) -> Any:
    """What can be waited for in a value of the SDK: a future of the standard library, or, in SDKs
    below 0.38, another one with `result(timeout)`; None for anything else."""
    found = value.future() if callable(getattr(value, "future", None)) else value
    return found if callable(getattr(found, "result", None)) else None


def _close(client: Any) -> None:
    """End a session, so that the service may free what belongs to it; waits for nothing."""
    with suppress(Exception):
        client.close("success")


def _reason(error: BaseException) -> str:
    """What the service said, in at most 300 characters of one line."""
    body = getattr(error, "body", None)
    text = str(error)
    if isinstance(body, dict):
        text = str(body.get("error") or body.get("detail") or body.get("message") or text)
    if found := re.search(r"Request failed: (.*?) for self\.request_id", text, re.DOTALL):
        text = found[1]
    return " ".join(text.split())[:300] or type(error).__name__
