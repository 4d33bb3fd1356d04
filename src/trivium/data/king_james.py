"""The King James Bible as one long row of characters, cut by position."""

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trivium.data.fetch import read
from trivium.data.files import KING_JAMES

_VERSE = re.compile(r"[1-3]?[A-Z][A-Za-z]*\d+:\d+ (\S.*)")
HELD_OUT = 622  # verses for validation, and as many for test: 2 % of all, each


@dataclass(frozen=True, eq=False)
class KingJames:
    """The text as numbers: `characters[i]` is character number i.

    train, validation, test: int32 [N], in the order of the text, each whole verses that end in a
        line feed.
    characters: the alphabet, sorted; line feed first.
    """

    train: NDArray[np.int32]
    validation: NDArray[np.int32]
    test: NDArray[np.int32]
    characters: str

    def encode(self, text: str) -> NDArray[np.int32]:
        """The numbers of a text's characters, int32 [N].

        Raises ValueError that names the first character which is not of the alphabet.
        """
        unknown = next((each for each in text if each not in self.characters), None)
        if unknown is not None:
            raise ValueError(
                f"text: expected characters of {self.characters!r}, received {unknown!r}"
            )
        return _encode(text, self.characters)

    def decode(self, ids) -> str:
        """The text of numbers [N]; raises ValueError for one that is no character's."""
        ids = np.asarray(ids)
        last = len(self.characters) - 1
        whole = ids.ndim == 1 and np.issubdtype(ids.dtype, np.integer)
        if not whole or (ids.size and (ids.min() < 0 or ids.max() > last)):
            raise ValueError(f"ids: expected integers [N] from 0 to {last}, received {ids!r}")
        return "".join(self.characters[each] for each in ids)


def king_james() -> KingJames:
    """The King James Bible by characters, without the verses' references: one verse a line.

    Split by position and by whole verses: the last 622 verses (2 Peter to Revelation) are for test,
    the 622 before them for validation, all others for training. The arrays are fresh at each call.

    Raises CorruptFileError (a ValueError) and DownloadError (an OSError) as `fetch.read` does.
    Source: Authorized Version of 1611, as Debian's `bible-kjv-text` has it; public domain.
    """
    (file,) = KING_JAMES.files
    verses = parse_verses(read(file).decode("ascii"), file.name)
    characters = "".join(sorted({*"".join(verses), "\n"}))
    cuts = (0, len(verses) - 2 * HELD_OUT, len(verses) - HELD_OUT, len(verses))
    train, validation, test = (
        _encode("".join(verse + "\n" for verse in verses[first:past]), characters)
        for first, past in pairwise(cuts)
    )
    return KingJames(train, validation, test, characters)


def parse_verses(text: str, name: str) -> list[str]:
    """The verses of a text with one a line, such as "Ge1:1 In the beginning", references off.

    Raises ValueError that names file, line and what stands there.
    """
    verses = []
    for number, line in enumerate(text.splitlines(), start=1):
        found = _VERSE.fullmatch(line)
        if not found:
            raise ValueError(f"{name}, line {number}: expected a reference and a verse: {line!r}")
        verses.append(found[1])
    if not verses:
        raise ValueError(f"{name}: expected verses, found none")
    return verses


def _encode(text: str, characters: str) -> NDArray[np.int32]:
    """By a table from code point to number; all characters are known and ASCII."""
    table = np.zeros(128, np.int32)
    table[[ord(each) for each in characters]] = np.arange(len(characters))
    return table[np.frombuffer(text.encode("ascii"), np.uint8)]
