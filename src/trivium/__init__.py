"""Convolution, recurrence, attention: the package under the book."""

__version__ = "0.1.0"
