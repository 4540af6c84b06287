"""Filters in models of others: inserted after layers, with their padding, packing and caches."""
