from spaudio.report.report_files import filter_choice


def test_a_report_names_the_options_of_its_filter() -> None:
    bank = {"name": "bank", "num_filters": 36, "scales": None, "gains": "shared"}
    assert filter_choice({"filter": bank}) == "`bank` (num_filters=36, gains=shared)"
    assert bank["name"] == "bank", "the report must not change"
    assert filter_choice({"filter": {"name": "none"}}) == "`none`"
