"""Splitting texts into training and test, near-duplicates on one side."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction


def hold_out(
    texts: Sequence[str],
    rows: Iterable[int],
    count: int,
    *,
    seed: int,
    overlap: Fraction = Fraction(3, 4),
) -> tuple[list[int], list[int]]:
    """Split the chosen rows of texts into training and test; both come out shuffled.

    rows: the indices into texts that take part; count: how many of them are held out for test.
    The order is that of the SHA-256 of seed and text: it depends on no random generator, on no
    library's version, and not on what other texts take part. Texts that `near_duplicates` joins
    (anywhere in texts) stay on one side.

    Returns (training rows, test rows). Raises ValueError unless 0 < count < the number of rows,
    and where groups of near-duplicates are too large to hold out exactly count.
    """
    chosen = list(rows)
    if not 0 < count < len(chosen):
        raise ValueError(
            f"count must hold out some of the {len(chosen)} texts and leave some, got {count}."
        )
    group = near_duplicates(texts, overlap)
    order = [hashlib.sha256(f"{seed}\n{text}".encode()).digest() for text in texts]
    members: dict[int, list[int]] = {}
    # Python's sort is stable, so identical texts keep the order of their rows.
    for row in sorted(chosen, key=order.__getitem__):
        members.setdefault(group[row], []).append(row)
    test: list[int] = []
    train: list[int] = []
    for rows_of_group in members.values():
        fits = len(test) + len(rows_of_group) <= count
        (test if fits else train).extend(rows_of_group)
    if len(test) != count:
        raise ValueError(
            f"count must be reached by whole groups of near-duplicates, got {count}: "
            f"{len(test)} can be held out."
        )
    return sorted(train, key=order.__getitem__), sorted(test, key=order.__getitem__)


def near_duplicates(texts: Sequence[str], overlap: Fraction = Fraction(3, 4)) -> list[int]:
    """The group of each text: texts that share most of their words are in one group.

    Two texts are joined where the words they share make up at least `overlap` of the distinct
    words of both together (Jaccard similarity; case and punctuation are ignored), and groups are
    closed: whoever is joined to one member is in. A group is named by its first row.

    Only pairs that share one of their rarest words are compared, which misses none: of two sets
    with that similarity, each has all but a few of its words in the other.
    Raises ValueError unless 0 < overlap <= 1.
    Source: Chaudhuri, Ganti and Kaushik 2006, A Primitive Operator for Similarity Joins
    (prefix filter).
    """
    if not 0 < overlap <= 1:
        raise ValueError(f"overlap must be above 0 and at most 1, got {overlap}.")
    words = [frozenset(re.findall(r"\w+", text.lower())) or frozenset([text]) for text in texts]
    frequency = Counter(word for distinct in words for word in distinct)
    first = list(range(len(texts)))

    def find(row: int) -> int:
        while first[row] != row:
            first[row] = first[first[row]]
            row = first[row]
        return row

    rows_with: dict[str, list[int]] = {}
    for row, distinct in enumerate(words):
        rarest = sorted(distinct, key=lambda word: (frequency[word], word))
        shared_at_least = -(-len(distinct) * overlap.numerator // overlap.denominator)
        for word in rarest[: len(distinct) - shared_at_least + 1]:
            others = rows_with.setdefault(word, [])
            for other in others:
                shared = len(distinct & words[other])
                either = len(distinct) + len(words[other]) - shared
                if shared * overlap.denominator >= either * overlap.numerator:
                    low, high = sorted((find(row), find(other)))
                    first[high] = low
            others.append(row)
    return [find(row) for row in range(len(texts))]
