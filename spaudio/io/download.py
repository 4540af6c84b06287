"""Downloads a file: resumed, checked against its checksum, renamed into place last.

This is implemented here because no common library resumes, checks before it renames, and says what
to do without the network.
"""

import hashlib
import os
import urllib.error
import zipfile
from http.client import HTTPException  # noqa: TID251
from pathlib import Path
from urllib.request import Request, urlopen  # noqa: TID251

from spaudio.errors import DataError
from spaudio.io.full_disk import is_full
from spaudio.io.lock import locked
from spaudio.io.progress import progress_bar

_CHUNK = 1 << 18
_NAMES = {"sha256": "SHA-256", "md5": "MD5"}
_REMEDY = "give source=PATH (the archive, or the folder it unpacks to)"


def download(
    url: str,
    target: str | os.PathLike[str],
    checksum: str | None,
    *,
    timeout: float = 30.0,
) -> Path:
    """Downloads ``url`` to ``target``, unless that exists already.

    An interrupted download leaves ``<target>.part``, which is resumed by an HTTP range request, but
    only with a checksum: nothing else would show that the file has changed in between.

    One process at a time downloads ``target``; the others wait for it, and then find the file. The
    empty ``<target>.lock`` stays: removing it could let two processes hold the lock.

    Args:
        url: HTTP(S) address.
        target: File to write; it appears only once it is complete and checked.
        checksum: SHA-256 in hex, or MD5 (32 digits) if the host publishes no other. None, for a
            zip archive that the host makes on demand, checks that it is one.
        timeout: Seconds to wait for the server, when connecting and at each read.

    Returns:
        ``target``.

    Raises:
        DataError: If the file cannot be reached, the download breaks off, the checksum does not
            match, or there is none and the file is no zip archive; the message says what to do
            without the network.
    """
    target = Path(target)
    if target.is_file():
        return target
    waiting = f"waiting for another process that downloads {target}"
    with locked(target.with_name(target.name + ".lock"), waiting):
        if not target.is_file():  # another process may have downloaded it in the meantime
            _download(url, target, checksum, timeout)
    return target


def _download(url: str, target: Path, checksum: str | None, timeout: float) -> None:
    """Downloads ``target``; arguments and errors are those of :func:`download`."""
    part = target.with_name(target.name + ".part")
    if checksum is None:
        part.unlink(missing_ok=True)
    resumed = part.exists()
    _fetch(url, part, timeout)
    if checksum is None:
        if not zipfile.is_zipfile(part):
            part.unlink()
            raise DataError(
                f"{url}: the answer is no zip archive, perhaps a login page; try again, or "
                f"fetch the file another way and {_REMEDY}"
            )
    else:
        kind = "md5" if len(checksum) == 32 else "sha256"
        found = _digest(part, kind)
        if found != checksum.lower() and resumed:
            # The part may be from another version of the file: start again, once.
            part.unlink()
            _fetch(url, part, timeout)
            found = _digest(part, kind)
        if found != checksum.lower():
            part.unlink()
            raise DataError(
                f"{url}: {_NAMES[kind]} is {found}, expected {checksum}; the file has changed or "
                f"was damaged in transit. Try again, or fetch it another way and {_REMEDY}"
            )
    os.replace(part, target)


def _fetch(url: str, part: Path, timeout: float) -> None:
    """Appends to ``part`` until it is complete."""
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"User-Agent": "spaudio"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urlopen(request, timeout=timeout) as response:
            span = response.headers.get("Content-Range", "")
            if have and not (response.status == 206 and span.startswith(f"bytes {have}-")):
                have = 0  # the answer is the file from its start
            length = response.headers.get("Content-Length")
            total = have + int(length) if length is not None else None
            title = f"Downloading {part.stem}"
            bar = progress_bar(title, total, done=have, in_bytes=True)
            with part.open("ab" if have else "wb") as file, bar as advance:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    advance(len(chunk))
                file.flush()
                os.fsync(file.fileno())
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            return  # the part is complete, or too long; the checksum decides
        raise DataError(
            f"{url}: the server answers {error.code} {error.reason}; fetch the file another way "
            f"and {_REMEDY}"
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        if is_full(error):
            raise
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{url}: cannot be downloaded ({reason}); check the network and try again, or fetch "
            f"the file on another machine and {_REMEDY}"
        ) from error
    if total is not None and have < total:
        raise DataError(
            f"{url}: the download broke off after {have} of {total} bytes; try again, or fetch the "
            f"file another way and {_REMEDY}"
        )


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
