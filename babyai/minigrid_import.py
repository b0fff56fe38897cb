"""Importing this imports minigrid, quickly. Whoever uses minigrid imports this first.

    import babyai.minigrid_import  # noqa: F401

    # isort: split
    from minigrid.core.grid import Grid

minigrid imports networkx, for levels that are no part of BabyAI; that is a third of the time that its import takes. So
minigrid gets a stand-in, which loads networkx when something is looked up in it. Everything else gets the real one.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import Any


def _import_minigrid() -> None:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # minigrid imports pygame; we never draw
    if "minigrid" in sys.modules or "networkx" in sys.modules:
        return
    stand_in = ModuleType("networkx")

    def step_aside() -> None:
        if sys.modules.get("networkx") is stand_in:
            del sys.modules["networkx"]

    def look_up(name: str) -> Any:  # PEP 562
        step_aside()
        return getattr(importlib.import_module("networkx"), name)

    stand_in.__getattr__ = look_up
    sys.modules["networkx"] = stand_in
    try:
        importlib.import_module("minigrid")
    except ImportError:  # what needs it will say so
        pass
    finally:
        step_aside()


_import_minigrid()
