"""The bar of long work, whose rate and time left are those of the work alone."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """tqdm's bar, without what comes before the end of the first update in its rate.

    The first update compiles, reads and allocates: of small settings it takes ten or a hundred times as long as those
    that follow, and the time left that is told after it would be as wrong. So it counts as done and teaches nothing.
    The time spent is since its end, the time left is told from the second update on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take tqdm's arguments; columns are those of the terminal, at any time."""
        self._begun = False
        super().__init__(*args, **{"dynamic_ncols": True, **kwargs})

    def update(self, n: float | None = 1) -> bool | None:
        """Count what has been done since the last call."""
        if self._begun or self.disable or not n:
            return super().update(n)
        self._begun = True
        self.n += n
        self.initial = self.last_print_n = self.n
        self.start_t = self.last_print_t = self._time()
        self.refresh()
        return True
