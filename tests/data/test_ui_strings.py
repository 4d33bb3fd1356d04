"""Interface strings: counts, cleaning, the split, and what is refused."""

import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from trivium.data import ui_strings
from trivium.data.ui_strings import parse_pairs


@pytest.fixture(scope="module")
def data():
    return ui_strings()


def parts(data):
    return (data.train, data.validation, data.test)


def test_counts(data):
    assert [len(part.sources) for part in parts(data)] == [14_707, 1000, 1000]
    assert [len(part.targets) for part in parts(data)] == [14_707, 1000, 1000]
    pairs = [pair for part in parts(data) for pair in zip(*part, strict=True)]
    assert len(set(pairs)) == len(pairs) == 16_707
    sources = {source for source, _ in pairs}
    assert len(sources) == 15_861
    words = np.array([len(source.split()) for source, _ in pairs])
    assert words.max() == 89
    assert np.median(words) <= 3


def test_texts_are_clean(data):
    for part in parts(data):
        for source, target in zip(*part, strict=True):
            for text in (source, target):
                assert text.isprintable()
                assert text == " ".join(text.split())
                assert not re.search(r"[%$<>{}\\|#@&_~^]|://", text)
            assert re.search("[A-Za-z]", source)
            assert re.search("[\u4e00-\u9fff]", target)


def test_parts_share_no_near_duplicates(data):
    """No two English texts of different parts share three quarters of their words."""
    texts = [[re.sub(r"\d+", "0", source) for source in part.sources] for part in parts(data)]
    count = CountVectorizer(binary=True, token_pattern=r"\w+", dtype=np.int32)
    count.fit([text for part in texts for text in part])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        one, other = count.transform(texts[b]), count.transform(texts[a])
        shared = (one @ other.T).tocoo()
        sizes = [np.asarray(words.sum(axis=1)).ravel() for words in (one, other)]
        either = sizes[0][shared.row] + sizes[1][shared.col] - shared.data
        assert (4 * shared.data < 3 * either).all()


def test_the_split_never_changes_and_follows_the_seed(data):
    assert ui_strings().test.sources == data.test.sources
    assert ui_strings(1).test.sources != data.test.sources
    with pytest.raises(ValueError, match="seed must be an integer, got '0'"):
        ui_strings("0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.tsv, line 1: expected two texts with a tab between them, found ''"),
        ("a\tb\nc", "x.tsv, line 2: expected two texts"),
        ("a\tb\tc", "x.tsv, line 1: expected two texts"),
        ("a\t ", "x.tsv, line 1: expected two texts"),
        ("a\tb\nc\td\na\tb", "x.tsv, line 3: expected a pair of its own, found that of line 1"),
    ],
)
def test_lines_of_another_form_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_pairs(text, "x.tsv")
