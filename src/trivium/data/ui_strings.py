"""Interface strings: short texts in English with their translations into Chinese."""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trivium.data.fetch import read
from trivium.data.files import UI_STRINGS
from trivium.data.split import hold_out

TEST, VALIDATION = 1000, 1000  # pairs


class Pairs(NamedTuple):
    """Texts with their translations: two lists of N strings."""

    sources: list[str]
    targets: list[str]


@dataclass(frozen=True, eq=False)
class UIStrings:
    """16,707 pairs, English and Chinese: 1,000 for validation, 1,000 for test, the others to learn.

    A text may stand in several pairs of one part, with different translations.
    """

    train: Pairs
    validation: Pairs
    test: Pairs


def ui_strings(seed: int = 0) -> UIStrings:
    """LibreOffice's interface in English and in simplified Chinese, without accelerators.

    seed: any integer; it decides which pairs are held out and in which order all come.

    The split is that of `split.hold_out` on the English texts with all numbers alike: the same for
    ever, and no two texts that share three quarters of their words, such as "Level 1" and
    "Level 2", are in different parts. The lists are fresh at each call.

    Raises ValueError for a seed that is no integer; CorruptFileError (a ValueError) and
    DownloadError (an OSError) as `fetch.read` does.
    Source: LibreOffice 7.4.7; MPL 2.0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ValueError(f"seed must be an integer, got {seed!r}.")
    (file,) = UI_STRINGS.files
    pairs = parse_pairs(read(file).decode(), file.name)
    alike = [re.sub(r"\d+", "0", source) for source, _ in pairs]
    rest, test = hold_out(alike, range(len(pairs)), TEST, seed=int(seed))
    train, validation = hold_out(alike, rest, VALIDATION, seed=int(seed))

    def part(rows: list[int]) -> Pairs:
        return Pairs([pairs[row][0] for row in rows], [pairs[row][1] for row in rows])

    return UIStrings(part(train), part(validation), part(test))


def parse_pairs(text: str, name: str) -> list[tuple[str, str]]:
    """Pairs from lines of English and Chinese with a tab between them.

    name: the file, for the message. Raises ValueError naming file and line where a line is not of
    that form or says what an earlier one says.
    """
    seen: dict[tuple[str, str], int] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        fields = line.split("\t")
        if len(fields) != 2 or not all(each.strip() for each in fields):
            raise ValueError(
                f"{name}, line {number}: expected two texts with a tab between them, found {line!r}"
            )
        pair = (fields[0], fields[1])
        if pair in seen:
            raise ValueError(
                f"{name}, line {number}: expected a pair of its own, found that of line "
                f"{seen[pair]}"
            )
        seen[pair] = number
    return list(seen)
