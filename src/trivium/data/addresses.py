"""US addresses: every token labelled with the part of the address that it belongs to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from trivium.data.fetch import read
from trivium.data.files import ADDRESSES
from trivium.data.split import hold_out

TEST, VALIDATION = 300, 200  # addresses


class Tagged(NamedTuple):
    """Sequences of tokens with one label a token.

    tokens: a list of N lists of strings. labels: a list of N arrays, int32 [T_i].
    """

    tokens: list[list[str]]
    labels: list[NDArray[np.int32]]


@dataclass(frozen=True, eq=False)
class Addresses:
    """1,513 addresses: 1,013 for training, 200 for validation, 300 for test.

    labels: the names of the 29 labels, sorted; a token's label is its place there.
    """

    train: Tagged
    validation: Tagged
    test: Tagged
    labels: tuple[str, ...]


def addresses(seed: int = 0) -> Addresses:
    """US addresses by tokens, each labelled as street name, place name, zip code and so on.

    seed: any integer; it decides which addresses are held out and in which order all come.

    The split is that of `split.hold_out`: the same for ever, and no two addresses that share three
    quarters of their words are in different parts. Lists and arrays are fresh at each call.

    Raises ValueError for a seed that is no integer; CorruptFileError (a ValueError) and
    DownloadError (an OSError) as `fetch.read` does.
    Source: the training data of usaddress 0.5.16; MIT license.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ValueError(f"seed must be an integer, got {seed!r}.")
    (file,) = ADDRESSES.files
    tokens, names = parse_addresses(read(file).decode(), file.name)
    labels = tuple(sorted({name for each in names for name in each}))
    number = {name: i for i, name in enumerate(labels)}
    texts = [" ".join(each) for each in tokens]
    rest, test = hold_out(texts, range(len(texts)), TEST, seed=int(seed))
    train, validation = hold_out(texts, rest, VALIDATION, seed=int(seed))

    def part(rows: list[int]) -> Tagged:
        found = [np.array([number[name] for name in names[row]], np.int32) for row in rows]
        return Tagged([tokens[row] for row in rows], found)

    return Addresses(part(train), part(validation), part(test), labels)


def parse_addresses(text: str, name: str) -> tuple[list[list[str]], list[list[str]]]:
    """Tokens and names of labels from XML: an element an address, in it an element a token.

    name: the file, for the message. Raises ValueError naming file and line or address where the
    text is not of that form.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise ValueError(f"{name}, line {line}: expected XML, found at {column}: {error}") from None
    if root.tag != "AddressCollection":
        raise ValueError(f"{name}, line 1: expected AddressCollection, found {root.tag}")
    tokens: list[list[str]] = []
    names: list[list[str]] = []
    for number, address in enumerate(root, start=1):
        # ElementTree keeps no lines: the number of the address says where to look.
        place = f"{name}, address {number}"
        if address.tag != "AddressString" or not len(address):
            raise ValueError(
                f"{place}: expected AddressString with tokens, found {address.tag} with none"
                if address.tag == "AddressString"
                else f"{place}: expected AddressString, found {address.tag}"
            )
        # A few tokens carry the line feed or the space that stood behind them.
        words = [(token.text or "").strip() for token in address]
        for word, token in zip(words, address, strict=True):
            if split_address(word) != [word] or len(token):
                raise ValueError(f"{place}: expected one token in {token.tag}, found {word!r}")
        tokens.append(words)
        names.append([token.tag for token in address])
    if not tokens:
        raise ValueError(f"{name}: expected addresses, found none")
    return tokens, names


def split_address(text: str) -> list[str]:
    """The tokens of a text as in the data: at spaces, with # and & for themselves; none for ""."""
    return re.findall(r"[#&]|[^\s#&]+", text)


def begin_inside(labels: Sequence[str]) -> list[str]:
    """Labels as seqeval counts entities: a run of equal labels begins with B- and goes on with I-.

    ["A", "A", "B"] -> ["B-A", "I-A", "B-B"]. Two entities of one kind that touch are one.
    """
    return [
        f"{'I' if label == last else 'B'}-{label}"
        for last, label in zip([None, *labels], labels, strict=False)
    ]
