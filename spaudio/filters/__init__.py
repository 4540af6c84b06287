"""Learned filters over tokens, for any transformer. Needs torch alone."""

from spaudio.filters.functional import filterbank

__all__ = ["filterbank"]
