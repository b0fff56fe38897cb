"""What of an answer is its own: words that repeat the prompt are not scored."""

from __future__ import annotations

from functools import lru_cache

RUN = 6
"""So many words in a row that the prompt has too are a copy; a true claim in own words is shorter, or differs."""


def remove_copies(prompt: str, text: str) -> str:
    """Return a text without what it copies of a prompt; where something was cut, a sentence ends.

    Copies are runs of `RUN` words or more, wherever they begin, and whole lines however short.

    Args:
        prompt: All of it, numbers included.
        text: An answer.
    """
    runs, whole = _index_prompt(prompt)
    kept = []
    for line in text.splitlines():
        words = line.split()
        keys = [word.lower() for word in words]
        own = [" ".join(keys) not in whole] * len(words)
        for at in range(len(words) - RUN + 1):
            if tuple(keys[at : at + RUN]) in runs:
                own[at : at + RUN] = [False] * RUN
        kept.append(" ".join(word if is_own else "\n" for word, is_own in zip(words, own, strict=True)))
    return "\n".join(part.strip() for line in kept for part in line.split("\n") if part.strip())


@lru_cache(maxsize=8)
def _index_prompt(prompt: str) -> tuple[set[tuple[str, ...]], set[str]]:
    """Return a prompt's runs of words and its lines, in lower case; hundreds of answers are held against one prompt."""
    words = prompt.lower().split()
    runs = {tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)}
    return runs, {" ".join(line.lower().split()) for line in prompt.splitlines()}
