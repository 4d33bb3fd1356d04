"""Movie snippets: sentences from film reviews with the mean of many people's ratings."""

import html
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivium.data.examples import Examples
from trivium.data.fetch import read
from trivium.data.files import MOVIE_SNIPPETS
from trivium.data.split import hold_out

CLASSES = ("negative", "positive")


@dataclass(frozen=True, eq=False)
class MovieSnippets:
    """Snippets of film reviews, rated, and split for classification.

    train, test: inputs a list of strings; labels int32, 1 where the mean rating is positive.
    train_rows, test_rows: int64, where each of them stands in texts and ratings.
    texts: all 10,605 snippets in the order of the file; ratings: float32 [10605], the mean of
        15 to 29 people's ratings from -4 (extremely negative) to 4 (extremely positive).
    classes: the names of the two classes.
    """

    train: Examples
    test: Examples
    train_rows: NDArray[np.int64]
    test_rows: NDArray[np.int64]
    texts: list[str]
    ratings: NDArray[np.float32]
    classes: tuple[str, ...]


def movie_snippets(seed: int = 0, held_out: int = 2000, minimum: float = 0.5) -> MovieSnippets:
    """10,605 snippets of film reviews with mean human ratings; those with a clear one, split.

    seed: any integer; it decides which snippets are held out and in which order both parts come.
    held_out: the number of snippets in test.
    minimum: how far from zero a mean rating must be for its snippet to be in train or test: 0.5
        keeps 10,072. The 37 snippets rated exactly zero have no class and are in neither.

    The split is that of `split.hold_out`: the same for ever, and no snippet in test shares three
    quarters of its words with one in train. HTML entities are resolved, the file's '' is written
    as a quotation mark, and runs of spaces (left by dashes that the file has lost) become one.

    Raises ValueError on arguments out of range; CorruptFileError (a ValueError) and DownloadError
    (an OSError) as `fetch.read` does.
    Source: Hutto and Gilbert 2014; snippets from Pang and Lee; MIT license.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ValueError(f"seed must be an integer, got {seed!r}.")
    if isinstance(held_out, bool) or not isinstance(held_out, int | np.integer):
        raise ValueError(f"held_out must be an integer, got {held_out!r}.")
    number = isinstance(minimum, int | float | np.integer | np.floating)
    if isinstance(minimum, bool) or not number or not 0 <= minimum <= 4:
        raise ValueError(f"minimum must be a distance from zero in 0..4, got {minimum!r}.")
    (file,) = MOVIE_SNIPPETS.files
    texts, means = parse_ratings(read(file).decode(), file.name)
    rows = [row for row, mean in enumerate(means) if mean != 0 and abs(mean) >= minimum]
    if not 0 < held_out < len(rows):
        raise ValueError(
            f"held_out must be at least 1 and below {len(rows)}, the number of snippets whose mean "
            f"rating is at least {minimum} away from zero; got {held_out}."
        )
    train, test = hold_out(texts, rows, int(held_out), seed=int(seed))

    def examples(rows: list[int]) -> Examples:
        labels = np.array([means[row] > 0 for row in rows], np.int32)
        return Examples([texts[row] for row in rows], labels)

    return MovieSnippets(
        train=examples(train),
        test=examples(test),
        train_rows=np.array(train, np.int64),
        test_rows=np.array(test, np.int64),
        texts=texts,
        ratings=np.array(means, np.float32),
        classes=CLASSES,
    )


def parse_ratings(text: str, name: str) -> tuple[list[str], list[float]]:
    """Snippets, cleaned, and their mean ratings from lines of number, rating and text with tabs.

    name: the file, for the message. Raises ValueError naming file and line where a line is not
    of that form or a rating is not in -4..4.
    """
    texts = []
    means = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        fields = line.split("\t")
        if len(fields) != 3:
            raise ValueError(
                f"{name}, line {number}: expected number, rating and text with tabs between them, "
                f"found {len(fields)} fields."
            )
        try:
            mean = float(fields[1])
        except ValueError:
            mean = math.nan
        if not -4 <= mean <= 4:
            raise ValueError(
                f"{name}, line {number}: expected a mean rating in -4..4, found {fields[1]!r}."
            )
        cleaned = " ".join(html.unescape(fields[2]).replace("''", '"').split())
        if not cleaned:
            raise ValueError(f"{name}, line {number}: expected a text, found none.")
        texts.append(cleaned)
        means.append(mean)
    return texts, means
