"""Training films that cannot be read: counted over all processes, refused when they are too many, listed at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cxr.files import InputError, place
from cxr.manifests.films import Films
from training.distributed import ProcessGroup
from training.loader import Batch

MOST_UNREADABLE = 0.001
"""Share of the films that may be skipped as unreadable."""


class UnreadableFilms:
    """Index -> reason, of the films that any process of the group left out of a batch."""

    def __init__(self, films: Films, group: ProcessGroup) -> None:
        self.films, self.group = films, group
        self._known: dict[int, str] = {}
        self._new: dict[int, str] = {}

    def note(self, batches: Iterable[Batch]) -> None:
        """Keeps what batches of this process left out until the next `count`."""
        for batch in batches:
            self._new |= batch.unreadable

    def count(self) -> None:
        """Shares the films over the processes, all of which call this. Raises InputError when they are too many."""
        for found in self.group.all_gather(self._new):
            self._known |= found
        self._new = {}
        if len(self._known) > MOST_UNREADABLE * len(self.films):
            count = f"{len(self._known)} of {len(self.films)} films cannot be read, more than {MOST_UNREADABLE:.1%}"
            raise InputError(f"{place(self.films.table)}: {count}; the first: {next(iter(self._known.values()))}")

    def listed(self) -> list[dict[str, Any]]:
        """Table, line, path and reason of each, as `training.json` lists them."""
        return [
            {
                "table": str(self.films.table),
                "line": self.films.lines[film],
                "path": self.films.paths[film],
                "reason": reason,
            }
            for film, reason in sorted(self._known.items())
        ]

    def state_dict(self) -> dict[int, str]:
        return self._known

    def load_state_dict(self, state: Mapping[int, str]) -> None:
        self._known = dict(state)
