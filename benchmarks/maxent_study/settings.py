"""What is studied: parts, their budgets and models, and the flags; light.

The unit of replication is a seed: of the generated data, of the weights and of all draws. Where policies are searched
over, it is a policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from maxent.dts_implementation.models.sequence_model import Prior
from maxent.dts_implementation.search.result import METHODS, SearchSettings
from more.options import parse_numbers
from pipeline.command.cli import check_numbers
from pipeline.command.errors import ConfigError

VERSION = 1
"""Of what is recorded; raised whenever the same settings come to give other records."""

FULL = Prior(temperature=1.0, top_k=None, top_p=1.0)
"""The model's own distribution, with nothing cut away."""


@dataclass(frozen=True)
class Case:
    """One table of the study: a reward on the questions of a part.

    Attributes:
        name: Of table, figure and folder.
        part: m4, har, sums or babyai.
        reward: As the tables call it.
        score: What an answer is judged by that no search has seen.
        budgets: New tokens at which searches are read, rising.
        max_tokens: Of an answer; one fits into the smallest budget.
        lam: Lambda, units of the reward.
        prior: Of the search.
        num_rollouts: At most so many answers to a question; repeated ones cost no tokens.
        unit: What a token is.
        methods: In the order of the tables; the first of `best_of_n` is what others are compared with.
    """

    name: str
    part: str
    reward: str
    score: str
    budgets: tuple[int, ...]
    max_tokens: int
    lam: float = 0.1
    prior: Prior = field(default_factory=Prior)
    num_rollouts: int = 2000
    unit: str = "new tokens"
    methods: tuple[str, ...] = ("greedy", "sample", "beam", "best_of_n", "mcts", "mh", "dts", "dts_star", "dts_paper")


CAPTIONS = (100, 300, 1000, 3000, 10_000)
LABELS = (40, 100, 200, 300, 1000, 3000, 10_000)
SUMS = (10, 20, 30, 50, 100)
STEPS = (300, 1000, 3000, 10_000)
FEW = ("greedy", "sample", "beam", "best_of_n", "mcts", "dts", "dts_star")
"""Methods where an answer is a few tokens: a chain costs a forward pass for each of them, and gains nothing there."""

CASES = (
    Case("m4", "m4", "claims", "ROUGE-L with the caption that the facts gave", CAPTIONS, 100),
    Case("har", "har", "activity", "share of right labels", LABELS, 32),
    Case("sums", "sums", "programmatic", "share of right sums", SUMS, 6, 0.1, FULL, 200, methods=FEW),
    Case("sums_likelihood", "sums", "likelihood", "share of right sums", SUMS, 6, 1 / 3, FULL, 200, methods=FEW),
    Case("babyai", "babyai", "episode", "share of solved levels", STEPS, 128, 0.1, FULL, 300, "steps"),
)
PARTS = tuple(dict.fromkeys(case.part for case in CASES))


@dataclass(frozen=True)
class StudySettings:
    """What is done, and how much.

    Attributes:
        part: One of the parts, or all.
        seeds: E.g. 0-4 or 0,1,2; with policies each policy is one.
        output: Folder of records, models, tables and figures; what is there is not done again.
        methods: All, or some with commas between; best_of_n is what the others are compared with.
        num_samples: Questions per seed.
        num_sums: Sums per seed and model.
        chunk: Questions of a record; so many are lost at most where a run is stopped.
        lam: Lambda of all cases, units of their rewards; null: each case's own.
        wave: Rollouts that are chosen from one state of the tree, the same for all methods.
        num_rollouts: At most so many answers to a question, if not fewer by the part.
        largest_budget: Budgets above it are left out.
        chain_budget: The same for mh, which feeds token by token and takes ten times as long as the others.
        num_train: Generated texts that a stand-in is trained on.
        stand_in: Key of the architecture for m4 and har.
        stand_in_steps: Updates of a stand-in; null: 1000 for m4, 200 for har, whose prompts are longer.
        variant: Recurrent variant that is compared with base.
        recurrences: Of that variant, each trained with it.
        sum_updates: Updates of a model of sums.
        policies: Checkpoints, one or several patterns with commas between, e.g. "checkpoints/*/*/*/checkpoint_500.pt".
        jobs: Processes. Default: one; with --launcher as many as there is room for.
    """

    part: Literal["m4", "har", "sums", "babyai", "all"] = "all"
    seeds: str = "0-4"
    output: str = "maxent_study"
    methods: str = "all"
    num_samples: int = 10
    num_sums: int = 40
    chunk: int = 5
    lam: float | None = None
    wave: int = 8
    num_rollouts: int = 2000
    largest_budget: int = 10_000
    chain_budget: int = 3000
    num_train: int = 2000
    stand_in: str = "llama-7b"
    stand_in_steps: int | None = None
    variant: Literal["more_a", "more_b", "more_c", "more_d"] = "more_a"
    recurrences: str = "1,2,4"
    sum_updates: int = 600
    policies: str | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            ConfigError: If one cannot be used.
        """
        numbers = (
            "num_samples",
            "num_sums",
            "chunk",
            "wave",
            "num_rollouts",
            "largest_budget",
            "chain_budget",
            "stand_in_steps",
        )
        check_numbers(self, 1, *numbers, "num_train", "sum_updates", "jobs", "lam")
        for name in ("seeds", "recurrences"):
            if not parse_numbers(name, getattr(self, name)):
                raise ConfigError(f"{name}: expected at least one number, found none")
        if unknown := [name for name in self.method_names() if name not in METHODS]:
            raise ConfigError(f"methods: expected all or some of {', '.join(METHODS)}, found {unknown[0]!r}")
        if self.part == "babyai" and self.policies is None:
            raise ConfigError("policies: expected checkpoints of BabyAI policies, found none; train_mop.py makes some")
        for case in self.cases():
            for name in ("largest_budget", "chain_budget"):
                if getattr(self, name) < case.budgets[0]:
                    found = getattr(self, name)
                    raise ConfigError(f"{name}: expected at least {case.budgets[0]}, found {found}")

    def method_names(self) -> list[str]:
        """Return the methods asked for."""
        return list(METHODS) if self.methods == "all" else [name.strip() for name in self.methods.split(",")]

    def cases(self) -> list[Case]:
        """Return the cases asked for; without policies none of them."""
        parts = {self.part} if self.part != "all" else {*PARTS} - ({"babyai"} if self.policies is None else set())
        chosen = [case for case in CASES if case.part in parts]
        return chosen if self.lam is None else [replace(case, lam=self.lam) for case in chosen]

    def case_methods(self, case: Case) -> list[str]:
        """Return the methods of a case, in its order."""
        return [name for name in case.methods if name in self.method_names()]

    def case_budgets(self, case: Case, method: str = "") -> tuple[int, ...]:
        """Return the budgets of a case, those of a method if one is named."""
        largest = min(self.largest_budget, self.chain_budget) if method == "mh" else self.largest_budget
        return tuple(budget for budget in case.budgets if budget <= largest)

    def count_rollouts(self, case: Case) -> int:
        """Return how many answers to a question of a case are drawn at most."""
        return min(self.num_rollouts, case.num_rollouts)

    def build_search(self, case: Case, method: str, budget: int, seed: int) -> SearchSettings:
        """Return the settings of a search."""
        return SearchSettings(
            method=method,
            num_rollouts=self.count_rollouts(case),
            max_tokens=case.max_tokens,
            budget_tokens=budget,
            lam=case.lam,
            wave=self.wave,
            prior=case.prior,
            seed=seed,
        )

    def describe(self, case: Case, method: str) -> dict[str, Any]:
        """Return all that the records of a case and method depend on, their names apart, as plain values."""
        prior = case.prior
        made: dict[str, Any] = {"version": VERSION, "max_tokens": case.max_tokens, "lam": case.lam}
        made |= {
            "budgets": list(self.case_budgets(case, method)),
            "wave": self.wave,
            "num_rollouts": self.count_rollouts(case),
        }
        made |= {"prior": [prior.temperature, prior.top_k, prior.top_p]}
        if case.part in ("m4", "har"):
            made |= {"stand_in": self.stand_in, "steps": self.find_steps(case.part), "num_train": self.num_train}
        if case.part == "sums":
            made |= {"updates": self.sum_updates}
        return made

    def find_steps(self, part: str) -> int:
        """Return the updates of a part's stand-ins."""
        return self.stand_in_steps or {"m4": 1000, "har": 200}[part]
