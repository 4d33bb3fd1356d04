"""The book's data sets: NumPy in, NumPy out, the same bytes everywhere, checked by hash."""

from trivium.data.adult import Adult, AdultRows, adult
from trivium.data.examples import Examples
from trivium.data.fashion_mnist import FashionMNIST, fashion_mnist
from trivium.data.fetch import CorruptFileError, DownloadError, cache_folder
from trivium.data.japanese_vowels import JapaneseVowels, japanese_vowels
from trivium.data.king_james import KingJames, king_james
from trivium.data.landmark_models import LandmarkModels, landmark_models
from trivium.data.movie_snippets import MovieSnippets, movie_snippets
from trivium.data.scenes import Scenes, SceneSet, compose, scenes

__all__ = [
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
    "SceneSet",
    "Scenes",
    "adult",
    "cache_folder",
    "compose",
    "fashion_mnist",
    "japanese_vowels",
    "king_james",
    "landmark_models",
    "movie_snippets",
    "scenes",
]
