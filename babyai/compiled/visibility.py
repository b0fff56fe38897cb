"""How light spreads over the agent's view: one row at a time, nearest row first, as minigrid's `Grid.process_vis`.

Bit i of a row is column i. A row is lit by the row before it; within the row light goes on over transparent cells,
first to the right, then to the left, and each such cell lights the cells ahead of it.
"""

import numpy as np

from babyai.facts import VIEW_SIZE


def _spread_light() -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(1 << VIEW_SIZE, dtype=np.uint8)
    lit = np.repeat(rows[:, None], len(rows), axis=1)  # [lit by the row before, opaque]
    clear = np.broadcast_to(~rows, lit.shape)
    ahead = np.zeros_like(lit)
    for here, there in [(i, i + 1) for i in range(VIEW_SIZE - 1)] + [(i, i - 1) for i in range(VIEW_SIZE - 1, 0, -1)]:
        goes_on = (lit >> here & clear >> here & 1).astype(bool)
        lit |= np.where(goes_on, 1 << there, 0).astype(np.uint8)
        ahead |= np.where(goes_on, 1 << here | 1 << there, 0).astype(np.uint8)
    return lit, ahead


LIT, AHEAD = _spread_light()
"""uint8 (128, 128) each, indexed [lit by the row before, opaque]: the lit cells of a row, and those it lights ahead."""
