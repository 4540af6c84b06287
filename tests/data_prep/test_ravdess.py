from __future__ import annotations

from pathlib import Path

from data_prep import ravdess


def test_every_sentence_of_every_actor_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "Actor_01").mkdir()
    clips = list(ravdess.prepare(tmp_path / "work", source=str(tmp_path)).clips)
    assert len({clip.path for clip in clips}) == 1440
    assert [clip.label for clip in clips].count("neutral") == 96  # 24 actors, 2 sentences, twice
    assert "Actor_12/03-01-06-01-02-01-12.wav" in {c.path for c in clips if c.label == "fearful"}
    assert len({(clip.group, clip.fold) for clip in clips}) == 24
