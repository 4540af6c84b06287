from pathlib import Path
from typing import Any

import pytest

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main, run
from spaudio.errors import ConfigError, DataError
from tests.fixtures.tiny_audio import make_class_folders

CALLS: list[tuple[float, str | None]] = []


def listing(
    work: Path,
    *,
    source: str,
    share: float = 0.5,
    names: str | None = None,
    seed: int | None = None,
    kept: list[str] | None = None,
) -> SourceClips:
    if names == "interrupted":
        raise KeyboardInterrupt
    if names == "unplugged":
        raise PermissionError("no permission")
    CALLS.append((share, names))
    paths = (path.relative_to(source) for path in Path(source).glob("*/*.flac"))
    clips = [SourceClip(p.as_posix(), p.parts[0], "train", "g") for p in paths]
    return SourceClips(Path(source), clips)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    CALLS.clear()
    return [f"source={make_class_folders(tmp_path / 'source')}", f"folder={tmp_path / 'data'}"]


def test_values_are_numbers_words_or_null_and_bad_ones_are_named(arguments: list[str]) -> None:
    first = run("tiny", listing, [*arguments, "share=0.25", "names=null"])
    workers = run("tiny", listing, [*arguments, "share=0.25", "workers=3"])
    assert workers.manifest == first.manifest  # workers are no option of the data
    assert run("tiny", listing, [*arguments, "names=a=b"]).manifest != first.manifest
    assert CALLS == [(0.25, None), (0.25, None), (0.5, "a=b")]
    with pytest.raises(ConfigError, match=r"unknown key 'shard'; known: source, share"):
        run("tiny", listing, [*arguments, "shard=1"])
    with pytest.raises(ConfigError, match="'share'; expected key=value"):
        run("tiny", listing, [*arguments, "share"])
    with pytest.raises(ConfigError, match="source= is required"):
        run("tiny", listing, arguments[1:])


def test_a_value_is_of_the_type_of_its_option(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for option in (
        "skip_bad='no'; expected true or false",
        "skip_bad='1'; expected true or false",
        "workers='two'; expected a whole number",
        "workers='2.5'; expected a whole number",
        "share='nan'; expected a number",
        "seed='x'; expected a whole number or null",
        """kept='a'; expected a list such as ["a", "b"] or null""",
        """kept='[1]'; expected a list such as ["a", "b"] or null""",
    ):
        with pytest.raises(ConfigError) as caught:
            run("tiny", listing, [*arguments, option.partition(";")[0].replace("'", "")])
        assert str(caught.value) == option
    (tmp_path / "source" / "hum" / "bad.flac").touch()
    with pytest.raises(DataError, match="1 of 7 clips cannot be used"):
        run("tiny", listing, [*arguments, "skip_bad=False"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").rename("2024")
    named = ["source=2024", "folder=2025", "names=7", "share=1", 'kept=["a"]', "seed=null"]
    prepared = run("tiny", listing, [*named, "skip_bad=True"])
    assert (len(prepared.clips), prepared.root.name) == (6, "2024")
    assert prepared.manifest.is_relative_to("2025")
    assert CALLS[-1] == (1.0, "7")


def test_it_ends_with_a_summary_or_one_message(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main("tiny", listing, arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 clips (train 6), 3 labels, 0 skipped"
    assert Path(lines[1].removeprefix("manifest ")).is_file()

    def ended(option: str) -> Any:
        with pytest.raises(SystemExit) as caught:
            main("tiny", listing, [*arguments, option])
        return caught.value.code

    # A text makes the exit code 1.
    assert ended("seconds=60").startswith("error: unknown key 'seconds'; known: ")
    assert ended("names=unplugged") == "error: no permission"
    assert ended("names=interrupted") == 130
    assert "again to continue" in capsys.readouterr().err
