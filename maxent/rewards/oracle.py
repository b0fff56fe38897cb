"""A reward that knows the answer: an upper bound for experiments, never a result. Records and charts say so."""

from __future__ import annotations

from maxent.data.overlap import compute_rouge_l
from maxent.data.prompts import is_right, read_line
from maxent.data.sample import Sample
from maxent.rewards.copies import remove_copies
from maxent.rewards.result import Answer, RewardResult


def reward_oracle(sample: Sample, answer: Answer) -> RewardResult:
    """Return 1 for the true answer and -1 for another; for captions, 2 ROUGE-L - 1 against the true one."""
    if sample.task == "caption":
        return RewardResult(2 * compute_rouge_l(remove_copies(sample.prompt, answer.text), sample.label) - 1)
    if sample.task in ("sum", "story"):
        return RewardResult(1.0 if read_line(answer.text) == sample.label else -1.0)
    return RewardResult(1.0 if is_right(answer.text, sample.label) else -1.0)
