from spaudio.report.report_files import filter_choice, pretraining


def test_a_report_names_the_options_of_its_filter() -> None:
    bank = {"name": "bank", "num_filters": 36, "scales": None, "gains": "shared"}
    assert filter_choice({"filter": bank}) == "`bank` (num_filters=36, gains=shared)"
    assert bank["name"] == "bank", "the report must not change"
    assert filter_choice({"filter": {"name": "none"}}) == "`none`"


def test_what_was_not_pretrained_on_is_counted() -> None:
    facts = {
        "source": "sounds", "clips": 6, "hours": 0.5, "left_out": 0, "skipped": 30,
        "mask_ratio": 0.6, "mask_tokens": 5, "steps": 10, "seconds": 2.0, "loss": 0.7,
        "held_out": 1,
    }  # fmt: skip
    [line] = pretraining({"pretrain": facts})
    assert "on 6 clips (0.50 hours) of sounds, without 30 that are unusable, without" in line
    [both] = pretraining({"pretrain": facts | {"left_out": 2}})
    assert "without 2 that are in the validation" in both
    assert "without 30 that are unusable" in both
    del facts["skipped"]  # of an older report
    assert "unusable" not in pretraining({"pretrain": facts})[0]
    assert pretraining({}) == []
