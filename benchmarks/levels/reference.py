"""What others have reached on the levels, each figure with where it stands; and the kinds of levels."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = (
    *("GoToObj", "GoToRedBallGrey", "GoToRedBall", "GoToLocal", "PutNextLocal", "PickupLoc", "GoToObjMaze", "GoTo"),
    *("Pickup", "UnblockPickup", "Open", "Unlock", "Synth", "SynthLoc", "GoToSeq", "SynthSeq", "GoToImpUnlock"),
    "BossLevel",
)
"""The levels of the BabyAI paper, in its order (docs/iclr19_levels.md of mila-iqia/babyai), but for PutNext, which
minigrid has not registered: its PutNextS7N4 has two rooms, not a maze."""

KINDS = ("GoTo", "Open", "Pickup", "PutNext", "Unlock", "compound")

_PREFIXES = {
    **{"GoTo": "GoTo", "GoToSeq": "compound", "GoToImpUnlock": "Unlock"},
    **{"Open": "Open"},
    **{"Pickup": "Pickup", "UnblockPickup": "Pickup", "FindObj": "Pickup", "OneRoom": "Pickup"},
    **{"PutNext": "PutNext", "MoveTwoAcross": "PutNext"},
    **{"Unlock": "Unlock", "BlockedUnlock": "Unlock", "KeyInBox": "Unlock", "KeyCorridor": "Unlock"},
    **{"ActionObjDoor": "compound", "Synth": "compound", "BossLevel": "compound", "MiniBossLevel": "compound"},
}


def find_kind(name: str) -> str:
    """Return the kind of a level by its short name: what its missions ask for, Unlock where a key is needed for it.

    Raises:
        ValueError: If it is none that is known.
    """
    found = [prefix for prefix in _PREFIXES if name.startswith(prefix)]
    if not found:
        raise ValueError(f"expected a level called as one of {', '.join(_PREFIXES)}..., found {name!r}; say its kind")
    return _PREFIXES[max(found, key=len)]


@dataclass(frozen=True)
class Reference:
    """What others report for a level; None where no figure was found.

    Attributes:
        babyai: Success in percent of the BabyAI paper's policy after imitating a million demonstrations.
        babyai_1_1: The same of BabyAI 1.1.
        jat: Return of the generalist JAT, as a share of what the bot's demonstrations have above random actions.
    """

    babyai: float | None = None
    babyai_1_1: float | None = None
    jat: float | None = None


FIRST_HAND = ("BossLevel",)
"""Levels whose `babyai` and `babyai_1_1` stand in a text of the authors that was read; those of the others were read in
notes that quote the report's Table 4."""

_BABYAI = {
    **{"GoToObj": (100, 100), "GoToLocal": (99.8, 100), "PutNextLocal": (99.2, 100), "GoTo": (99.4, 100)},
    **{"Unlock": (98.4, 100), "Synth": (97.3, 100), "GoToSeq": (95.4, 96.7)},
    **{"SynthSeq": (87.7, 93.9), "GoToImpUnlock": (87.2, 84.0), "BossLevel": (77, 90.4)},
}

_JAT = {
    **{"ActionObjDoor": 0.88, "BlockedUnlockPickup": 1.00, "BossLevelNoUnlock": 0.49, "BossLevel": 0.54},
    **{"FindObjS5": 1.00, "GoToDoor": 1.00, "GoToImpUnlock": 0.60, "GoToLocal": 0.93, "GoToObjDoor": 0.98},
    **{"GoToObj": 1.01, "GoToRedBallGrey": 1.00, "GoToRedBallNoDists": 1.00, "GoToRedBall": 0.98},
    **{"GoToRedBlueBall": 0.99, "GoToSeq": 0.76, "GoTo": 0.82, "KeyCorridor": 0.96, "MiniBossLevel": 0.56},
    **{"MoveTwoAcrossS8N9": 0.05, "OneRoomS8": 1.00, "OpenDoor": 1.00, "OpenDoorsOrderN4": 0.96},
    **{"OpenRedDoor": 1.00, "OpenTwoDoors": 1.00, "Open": 0.99, "PickupAbove": 1.01, "PickupDist": 1.02},
    **{"PickupLoc": 0.92, "Pickup": 0.85, "PutNextLocal": 0.73, "PutNextS7N4": 0.89, "SynthLoc": 0.78},
    **{"SynthSeq": 0.58, "Synth": 0.78, "UnblockPickup": 0.86, "UnlockLocal": 1.00, "UnlockPickup": 1.00},
    **{"UnlockToUnlock": 0.88, "Unlock": 0.48},
}


def find_reference(name: str) -> Reference:
    """Return what others report for a level, by its short name."""
    return Reference(*_BABYAI.get(name, (None, None)), _JAT.get(name))


SOURCES = """\
- **BabyAI 1.0** and **1.1**: success after imitating a million of the bot's demonstrations of the level
  ([Chevalier-Boisvert et al., ICLR 2019](https://arxiv.org/abs/1810.08272);
  [Hui et al., 2020](https://arxiv.org/abs/2007.12770)). The abstract of the 1.1 report gives BossLevel, 77 % and 90.4 %
  ([read here](https://www.arxiv-vanity.com/papers/2007.12770/)). Figures with a star are second-hand: notes in a public
  repository quote them from the report's Table 4; they were not checked against it, but the mean lengths of
  demonstrations quoted beside them are near those of the bot here (GoToLocal 5.0 steps, Synth 50, GoToImpUnlock 110).
  For the paper's other levels, and for how many demonstrations 99 % takes (the paper's Table 3), no figure was found
  in a source that could be read. The paper's PutNext, a maze, is not registered; PutNextS7N4 is two rooms.
- While it imitates, BabyAI's code validates with the most probable actions
  ([babyai/imitation.py](https://github.com/mila-iqia/babyai/blob/master/babyai/imitation.py)); its script for the
  evaluation of a model draws actions unless told otherwise
  ([scripts/evaluate.py](https://github.com/mila-iqia/babyai/blob/master/scripts/evaluate.py)).
- **JAT**: mean return above that of random actions, as a share of what the bot's demonstrations reach
  ([model card of jat-project/jat](https://huggingface.co/jat-project/jat), "expert normalized total reward"). One
  network for Atari, BabyAI, MetaWorld and MuJoCo; a return is 1 - 0.9 x steps / limit where the level is solved, 0
  elsewhere, so that it is no success rate; 1.00 is as good as the demonstrations.
- With reinforcement, the BabyAI platform says that GoToLocal reaches 97 to 99 % after five hours
  ([scripts/README.md](https://github.com/mila-iqia/babyai/blob/master/scripts/README.md)).
- A million demonstrations are a million times the bot's mean steps in the tables above. The policies here see each
  state once, labelled by the bot, wherever their own actions take them."""
"""Markdown: where the figures stand and what they are."""
