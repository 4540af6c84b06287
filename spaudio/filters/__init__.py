"""Learned filters over tokens, for any transformer. Requires only torch.

Importing a filter's module registers it in :data:`FILTERS`.
"""

from spaudio.filters.adaptive import AdaptiveFilterBank
from spaudio.filters.analysis import (
    centre_frequency,
    describe,
    modulation_response,
    receptive_field_ms,
    record_masks,
)
from spaudio.filters.bank import FilterBank, MultiScaleFilterBank
from spaudio.filters.base import TokenFilter
from spaudio.filters.depthwise import DepthwiseFilter
from spaudio.filters.fir import FIRFilter
from spaudio.filters.functional import filterbank
from spaudio.filters.haar import HaarFilter
from spaudio.filters.insertion.insert import (
    FilterHandle,
    find_filters,
    insert_filters,
    load_filters,
)
from spaudio.filters.none import NoFilter
from spaudio.filters.registry import FILTERS, make_filter
from spaudio.filters.streaming import FilterStream

__all__ = [
    "FILTERS",
    "AdaptiveFilterBank",
    "DepthwiseFilter",
    "FIRFilter",
    "FilterBank",
    "FilterHandle",
    "FilterStream",
    "HaarFilter",
    "MultiScaleFilterBank",
    "NoFilter",
    "TokenFilter",
    "centre_frequency",
    "describe",
    "filterbank",
    "find_filters",
    "insert_filters",
    "load_filters",
    "make_filter",
    "modulation_response",
    "receptive_field_ms",
    "record_masks",
]
