import hashlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spaudio.errors import DataError
from spaudio.io.download import download

END = b"PK\5\6" + bytes(18)  # of an empty zip archive
CONTENT = random.Random(0).randbytes(1_000_000 - len(END)) + END
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """A web server that serves one file, and can break off or ignore ranges."""

    url: str = ""
    content: bytes = CONTENT
    break_after: int | None = None  # bytes of the answer
    ranges: bool = True
    status: int = 200
    wait: float = 0  # seconds before the answer
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.asked.append(asked)
            time.sleep(state.wait)
            content, status = state.content, state.status
            if status >= 400:
                self.send_error(status)
                return
            start = 0
            if asked and state.ranges:
                start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) - start))
            if status == 206:
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", span)
            self.end_headers()
            end = None if state.break_after is None else start + state.break_after
            self.wfile.write(content[start:end])

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}/file.zip"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def test_downloads_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.zip"
    assert download(server.url, target, SHA256) == target
    assert target.read_bytes() == CONTENT
    download(server.url, target, SHA256)
    assert server.asked == [""]
    lock = target.with_name("file.zip.lock")
    assert sorted(target.parent.iterdir()) == [target, lock]


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    target, server.wait = tmp_path / "file.zip", 0.1
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(download, server.url, target, SHA256) for _ in range(2)]
    assert [one.result() for one in started] == [target, target]
    assert target.read_bytes() == CONTENT
    assert server.asked == [""]


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no-ranges"])
def test_what_broke_off_is_resumed(server: Server, tmp_path: Path, ranges: bool) -> None:
    target = tmp_path / "file.zip"
    server.break_after = 300_000
    with pytest.raises(DataError, match="broke off after 300000 of 1000000 bytes"):
        download(server.url, target, SHA256)
    assert not target.exists()
    server.break_after, server.ranges = None, ranges
    download(server.url, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert server.asked == ["", "bytes=300000-"]


@pytest.mark.parametrize(
    ("checksum", "part", "asked"),
    [
        (SHA256, CONTENT, ["bytes=1000000-"]),  # all is there
        (SHA256, b"old" * 1000, ["bytes=3000-", ""]),  # of another version
        (MD5, CONTENT[:1000], ["bytes=1000-"]),
        (None, b"old" * 1000, [""]),  # nothing would show a splice
    ],
)
def test_remains_are_used_only_as_far_as_the_checksum_agrees(
    server: Server, tmp_path: Path, checksum: str | None, part: bytes, asked: list[str]
) -> None:
    (tmp_path / "file.zip.part").write_bytes(part)
    download(server.url, tmp_path / "file.zip", checksum)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert server.asked == asked


@pytest.mark.parametrize(("kind", "checksum"), [("SHA-256", SHA256), ("MD5", MD5)])
def test_a_wrong_checksum_leaves_nothing(
    server: Server, tmp_path: Path, kind: str, checksum: str
) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match=rf"{kind} is \w+, expected {checksum}.*source="):
        download(server.url, tmp_path / "file.zip", checksum)
    assert [path.name for path in tmp_path.iterdir()] == ["file.zip.lock"]


def test_without_checksum_the_length_and_the_format_still_count(
    server: Server, tmp_path: Path
) -> None:
    server.content = CONTENT.removesuffix(END)
    with pytest.raises(DataError, match=r"no zip archive, perhaps a login page.*source="):
        download(server.url, tmp_path / "file.zip", None)
    assert [path.name for path in tmp_path.iterdir()] == ["file.zip.lock"]
    server.break_after = 10
    with pytest.raises(DataError, match="broke off after 10 of"):
        download(server.url, tmp_path / "file.zip", None)
    assert not (tmp_path / "file.zip").exists()


def test_errors_tell_how_to_go_on_without_the_network(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match=r"answers 404 .*source="):
        download(server.url, tmp_path / "file.zip", SHA256)
    with pytest.raises(DataError, match=r"cannot be downloaded .*network.*source="):
        download("http://127.0.0.1:1/file.zip", tmp_path / "file.zip", SHA256)
    assert not (tmp_path / "file.zip").exists()
