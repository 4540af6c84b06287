"""A report names the options of its filter: banks of one name differ by them."""

from __future__ import annotations

from spaudio.report.filter_choice import filter_choice


def test_options_are_named() -> None:
    bank = {"name": "bank", "num_filters": 36, "kernel_size": 4, "gains": "shared"}
    written = filter_choice({"filter": bank})
    assert written == "`bank` (num_filters=36, kernel_size=4, gains=shared)"
    assert bank["name"] == "bank", "the report is left as it was"


def test_what_is_not_set_is_left_out() -> None:
    assert filter_choice({"filter": {"name": "none"}}) == "`none`"
    adaptive = {"name": "adaptive", "num_filters": 8, "scales": None}
    assert filter_choice({"filter": adaptive}) == "`adaptive` (num_filters=8)"
