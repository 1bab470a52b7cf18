"""trackio, on this machine.

    tracking.trackio: {"project": "calls"}            # then: trackio show --project calls

Runs of all folders lie together in trackio's own store (TRACKIO_DIR, else its place in the cache of the hub's client), because its
dashboard compares the runs of a project. Lines go straight into that store: the public `trackio.init` asks the hub for a user name
as soon as a token is set, prints on standard output, and keeps failures to itself. Nothing is sent, and no Space is made; to
publish, use `trackio sync`. Points that are NaN or infinite are kept in the store's own words for them.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from toolhone.config.sections import TrackioSection
from toolhone.errors import ConfigError
from toolhone.runs.tracker_base import Opened, Opening, first_line, named, package

SERVICE = "trackio"


class TrackioTracker:
    def __init__(
        self,
        store: Any,
        section: TrackioSection,
        identity: Mapping[str, str],
        config: Mapping[str, Any],
    ) -> None:
        self._store, self._project, self._identity, self._config = (
            store,
            section.project,
            identity,
            config,
        )

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        self._store.bulk_log(
            self._project,
            self._identity["name"],
            [named(kind, values)],
            steps=[step],
            config=dict(self._config),
            run_id=self._identity["id"],
        )

    def forget_after(self, step: int) -> None:
        """Drop what was logged after a step that the run goes on from."""
        path = self._store.get_project_db_path(self._project)
        if path.exists():
            with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
                connection.execute(
                    "DELETE FROM metrics WHERE run_id = ? AND step > ?",
                    (self._identity["id"], step),
                )

    def close(self, failed: bool) -> None: ...


def check(section: TrackioSection) -> None:  # noqa: ARG001 (the package is all that is needed)
    """Stop where the package is missing, or too old to have its store."""
    package("trackio.sqlite_storage", SERVICE)


def open_trackio(section: TrackioSection, opening: Opening) -> Opened:
    """A run in trackio's store, or the one that goes on."""
    store = package("trackio.sqlite_storage", SERVICE).SQLiteStorage
    name = opening.identity.get("name") or section.run_name or opening.folder.resolve().name
    identity = {"id": opening.identity.get("id") or uuid.uuid4().hex, "name": name}
    config = {
        **opening.experiment,
        "_Created": datetime.now(UTC).isoformat(),
        "_Username": None,
        "_Group": None,
    }
    tracker = TrackioTracker(store, section, identity, config)
    try:
        store.init_db(section.project)
        if opening.resumed_at is not None:
            tracker.forget_after(opening.resumed_at)
    except Exception as error:
        raise ConfigError(
            f"tracking.trackio could not open its store ({first_line(error)}); TRACKIO_DIR names its place"
        ) from None
    return Opened(tracker, f"trackio show --project {section.project}", identity)
