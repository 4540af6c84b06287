"""Figures of reports, each drawn into one file."""
