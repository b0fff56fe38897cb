"""BabyAI's levels, world and expert.

minigrid imports networkx, for levels that are no part of BabyAI; that is a third of the time in which `babyai.levels`
is imported. So minigrid gets a stand-in, which loads networkx when something is looked up in it. Everything else gets
the real one.
"""

import importlib
import sys
from types import ModuleType


def _import_minigrid() -> None:
    if "minigrid" in sys.modules or "networkx" in sys.modules:
        return
    stand_in = ModuleType("networkx")
    stand_in.__getattr__ = lambda name: getattr(importlib.import_module("networkx"), name)  # PEP 562
    sys.modules["networkx"] = stand_in
    try:
        importlib.import_module("minigrid")
    except ImportError:  # what needs it will say so
        pass
    finally:
        del sys.modules["networkx"]


_import_minigrid()
