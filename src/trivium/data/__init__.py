"""The book's data sets: NumPy in, NumPy out, the same bytes everywhere, checked by hash."""

from trivium.data.addresses import Addresses, Tagged, addresses, begin_inside, split_address
from trivium.data.adult import Adult, AdultRows, adult
from trivium.data.examples import Examples
from trivium.data.fashion_mnist import FashionMNIST, fashion_mnist
from trivium.data.fetch import CorruptFileError, DownloadError, cache_folder
from trivium.data.japanese_vowels import JapaneseVowels, japanese_vowels
from trivium.data.king_james import KingJames, king_james
from trivium.data.landmark_models import LandmarkModels, landmark_models
from trivium.data.movie_snippets import MovieSnippets, movie_snippets
from trivium.data.scenes import Scenes, SceneSet, compose, scenes
from trivium.data.tree_crowns import Photograph, TreeCrowns, tree_crowns
from trivium.data.ui_strings import Pairs, UIStrings, ui_strings

__all__ = [
    "Addresses",
    "Adult",
    "AdultRows",
    "CorruptFileError",
    "DownloadError",
    "Examples",
    "FashionMNIST",
    "JapaneseVowels",
    "KingJames",
    "LandmarkModels",
    "MovieSnippets",
    "Pairs",
    "Photograph",
    "SceneSet",
    "Scenes",
    "Tagged",
    "TreeCrowns",
    "UIStrings",
    "addresses",
    "adult",
    "begin_inside",
    "cache_folder",
    "compose",
    "fashion_mnist",
    "japanese_vowels",
    "king_james",
    "landmark_models",
    "movie_snippets",
    "scenes",
    "split_address",
    "tree_crowns",
    "ui_strings",
]
