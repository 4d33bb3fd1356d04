"""US addresses: counts, the split, the tokens' form, and what is refused."""

from collections import Counter

import numpy as np
import pytest
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.feature_extraction.text import CountVectorizer

from trivium.data import addresses, begin_inside, split_address
from trivium.data.addresses import parse_addresses


@pytest.fixture(scope="module")
def data():
    return addresses()


def parts(data):
    return (data.train, data.validation, data.test)


def test_counts_and_types(data):
    assert [len(part.tokens) for part in parts(data)] == [1013, 200, 300]
    assert sum(len(each) for part in parts(data) for each in part.tokens) == 10_722
    assert len(data.labels) == 29
    assert list(data.labels) == sorted(data.labels)
    seen = Counter()
    for part in parts(data):
        for tokens, labels in zip(part.tokens, part.labels, strict=True):
            assert labels.dtype == np.int32
            assert len(tokens) == len(labels)
            seen.update(data.labels[label] for label in labels)
    assert seen["StreetName"] == 1860
    assert seen["ZipPlus4"] == 2
    assert len(seen) == 29


def test_the_text_of_an_address_gives_its_tokens_again(data):
    for part in parts(data):
        for tokens in part.tokens:
            assert split_address(" ".join(tokens)) == tokens
    assert split_address("") == split_address(" \n") == []
    assert split_address("12 Oak St.,\tApt #3&4") == [
        "12", "Oak", "St.,", "Apt", "#", "3", "&", "4",
    ]  # fmt: skip


def test_parts_share_no_near_duplicates(data):
    """No two addresses of different parts share three quarters of their words."""
    texts = [[" ".join(tokens) for tokens in part.tokens] for part in parts(data)]
    count = CountVectorizer(binary=True, token_pattern=r"\w+", dtype=np.int32)
    count.fit([text for part in texts for text in part])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        one, other = count.transform(texts[b]), count.transform(texts[a])
        shared = (one @ other.T).tocoo()
        sizes = [np.asarray(words.sum(axis=1)).ravel() for words in (one, other)]
        either = sizes[0][shared.row] + sizes[1][shared.col] - shared.data
        assert (4 * shared.data < 3 * either).all()


def test_the_split_never_changes_and_follows_the_seed(data):
    assert data.test.tokens[0] == addresses().test.tokens[0]
    assert data.test.tokens != addresses(1).test.tokens
    with pytest.raises(ValueError, match=r"seed must be an integer, got 0\.5"):
        addresses(0.5)


def test_entities_are_runs_of_equal_labels():
    names = ["A", "A", "B", "A"]
    assert begin_inside(names) == ["B-A", "I-A", "B-B", "B-A"]
    assert get_entities(begin_inside(names)) == [("A", 0, 1), ("B", 2, 2), ("A", 3, 3)]
    assert begin_inside([]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.xml, line 1: expected XML, found"),
        ("<AddressCollection>\n<AddressString>", "x.xml, line 2: expected XML, found"),
        ("<Other/>", "x.xml, line 1: expected AddressCollection, found Other"),
        ("<AddressCollection/>", "x.xml: expected addresses, found none"),
        (
            "<AddressCollection><A><B>1</B></A></AddressCollection>",
            "x.xml, address 1: expected AddressString, found A",
        ),
        (
            "<AddressCollection><AddressString/></AddressCollection>",
            "address 1: expected AddressString with tokens, found AddressString with none",
        ),
        (
            "<AddressCollection><AddressString><B>1 2</B></AddressString></AddressCollection>",
            "address 1: expected one token in B, found '1 2'",
        ),
        (
            "<AddressCollection><AddressString><B/></AddressString></AddressCollection>",
            "address 1: expected one token in B, found ''",
        ),
    ],
)
def test_text_of_another_form_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_addresses(text, "x.xml")
