"""Learned filters over tokens, for any transformer. Needs torch alone."""

from spaudio.filters.bank import FilterBank
from spaudio.filters.base import TokenFilter
from spaudio.filters.functional import filterbank
from spaudio.filters.make import FILTERS, make_filter
from spaudio.filters.none import NoFilter

__all__ = ["FILTERS", "FilterBank", "NoFilter", "TokenFilter", "filterbank", "make_filter"]
