"""Japanese Vowels: utterances by nine speakers, of varying length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivium.data.examples import Examples
from trivium.data.fetch import read
from trivium.data.files import JAPANESE_VOWELS


@dataclass(frozen=True, eq=False)
class JapaneseVowels:
    """Japanese Vowels as its authors split it.

    train: inputs a list of 270 float32 arrays [T, 12], T from 7 to 26; labels int32 [270], the
        speaker 0..8, 30 utterances each.
    test: inputs a list of 370 float32 arrays [T, 12], T from 7 to 29; labels int32 [370].
    """

    train: Examples
    test: Examples


def japanese_vowels() -> JapaneseVowels:
    """Japanese Vowels: who of nine men says the vowels /ae/.

    Each step of an utterance is a frame of 25.6 ms, 6.4 ms after the one before; its 12 features
    are LPC cepstrum coefficients in increasing order. The arrays are fresh at each call.

    Raises CorruptFileError (a ValueError) and DownloadError (an OSError) as `fetch.read` does.
    Source: Kudo, Toyama and Shimbo 1999; UCI Machine Learning Repository; CC BY 4.0.
    """
    train, test = (parse_ts(read(file).decode(), file.name) for file in JAPANESE_VOWELS.files)
    return JapaneseVowels(train=train, test=test)


def parse_ts(text: str, name: str) -> Examples:
    """Time series with class labels from the `.ts` text format of the aeon toolkit.

    Comment lines begin with `#`, header lines with `@` up to `@data`; then each line is a series:
    its dimensions one after the other with `:` between them, each dimension its values over time
    with `,` between them, the class label last. A label is counted by its place in the header's
    `@classLabel`, from 0.

    name: the file, for the message. Returns inputs, a list of N float32 arrays [T, D], and labels
    int32 [N]. Raises ValueError naming file and line where the text departs from the format or
    uses a part of it that these series do not need (time stamps, missing values).
    Source: https://www.aeon-toolkit.org, "Loading data from ts files".
    """
    header: dict[str, list[str]] = {}
    classes: dict[str, int] = {}
    dimensions = 0
    inputs: list[NDArray[np.float32]] = []
    labels: list[int] = []
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        place = f"{name}, line {number}"
        if not line or line.startswith("#"):
            continue
        if "data" not in header:
            if not line.startswith("@") or line == "@":
                raise ValueError(f"{place}: expected a header line @..., found {line[:40]!r}.")
            key, *values = line[1:].split()
            header[key.lower()] = values
            if key.lower() == "data":
                dimensions, classes = _check_header(header, place)
            continue
        *series, label = line.split(":")
        if label not in classes:
            raise ValueError(f"{place}: expected a label of {list(classes)}, found {label[:40]!r}.")
        if len(series) != dimensions:
            raise ValueError(f"{place}: expected {dimensions} dimensions, found {len(series)}.")
        inputs.append(_series(series, place))
        labels.append(classes[label])
    if not labels:
        raise ValueError(f"{name}: expected series after a line @data, found none.")
    return Examples(inputs, np.array(labels, np.int32))


def _check_header(header: dict[str, list[str]], place: str) -> tuple[int, dict[str, int]]:
    """The number of dimensions and the classes that the header promises."""
    for key, allowed in (("timestamps", "false"), ("missing", "false")):
        found = " ".join(header.get(key, [allowed])).lower()
        if found != allowed:
            raise ValueError(f"{place}: expected @{key} {allowed} in the header, found {found!r}.")
    flag, *names = header.get("classlabel", ["nothing"])
    if flag.lower() != "true" or not names or len(set(names)) != len(names):
        raise ValueError(
            f"{place}: expected @classLabel true and the names of the classes in the header, "
            f"found {' '.join([flag, *names])!r}."
        )
    univariate = " ".join(header.get("univariate", [])).lower() == "true"
    dimensions = " ".join(header.get("dimensions", ["1"] if univariate else []))
    if not dimensions.isdecimal() or int(dimensions) < 1:
        raise ValueError(
            f"{place}: expected @dimensions and their number in the header, found {dimensions!r}."
        )
    return int(dimensions), {label: index for index, label in enumerate(names)}


def _series(dimensions: list[str], place: str) -> NDArray[np.float32]:
    """One series [T, D] from the text of its dimensions."""
    try:
        rows = [[float(value) for value in row.split(",")] for row in dimensions]
    except ValueError as error:
        raise ValueError(f"{place}: expected numbers with commas between them: {error}.") from error
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise ValueError(f"{place}: expected dimensions of one length, found {lengths}.")
    series = np.array(rows, np.float32).T.copy()
    if not np.isfinite(series).all():
        raise ValueError(f"{place}: expected finite numbers.")
    return series
