"""Download one file: resumed, bounded, verified. The only module that touches the network."""

from __future__ import annotations

import errno
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from matlib.data.verify import sha256_of

Report = Callable[[str], None]
_CHUNK_BYTES = 1 << 20
_REPORT_EVERY_S = 2.0
_RETRIED_STATUS = (408, 416, 425, 429, 500, 502, 503, 504)


class DownloadError(RuntimeError):
    """A download that failed for good; the message says what to do."""


class _TryAgain(Exception):
    """The connection broke; what came so far is kept."""


# Worth another try; what is left of OSError is trouble with the disk.
_PASSING = (
    _TryAgain,
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise DownloadError(f"{req.full_url} redirects to {newurl}; refused as unsafe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    target: Path,
    n_bytes: int | None = None,
    sha256: str | None = None,
    report: Report = print,
    n_attempts: int = 5,
    wait_s: float = 1.0,
) -> None:
    """Save the file at `url` as `target`, which appears only when it is whole and verified.

    What has come so far lies in `<target>.part`; a later call goes on from there if the
    server still has the same file, and starts anew otherwise.

    Args:
        url: https, http or file address.
        target: file to make; its folder exists.
        n_bytes, sha256: what the file must be; None if unknown.
        report: called with lines for a person.
        n_attempts: tries when a connection breaks.
        wait_s: seconds before the second try, doubled for each further one.

    Raises:
        DownloadError: no answer, wrong size or wrong sha256, or no space on disk.
    """
    if urlsplit(url).scheme not in ("https", "http", "file"):
        raise DownloadError(f"{url}: only https, http and file addresses are fetched")
    part = target.with_name(target.name + ".part")
    for attempt in range(1, n_attempts + 1):
        try:
            _transfer(url, part, n_bytes, sha256 is not None, report)
            break
        except (_TryAgain, http.client.HTTPException, OSError) as error:
            _give_up_if_final(error, url, target, is_last=attempt == n_attempts)
            report(f"{target.name}: {error}; trying again ({attempt} of {n_attempts - 1})")
            time.sleep(wait_s * 2 ** (attempt - 1))
    if sha256 is not None:
        report(f"{target.name}: checking sha256")
        found = sha256_of(part)
        if found != sha256:
            _discard(part)
            raise DownloadError(
                f"{url}: sha256 is {found}, expected {sha256}; the file at this address has "
                "changed or was damaged on its way. Nothing was kept; try again, and if it "
                "repeats, do not use the file"
            )
    part.replace(target)
    _stamp(part).unlink(missing_ok=True)


def require_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raises DownloadError if the disk of `folder` has fewer than `n_bytes` free (and 5 %)."""
    existing = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    needed = int(n_bytes * 1.05)
    if free < needed:
        raise DownloadError(
            f"no space on disk: {what} needs {_size(needed)}, {existing} has {_size(free)} free; "
            "make room or choose a folder on another disk"
        )


def _transfer(url: str, part: Path, n_bytes: int | None, has_sha256: bool, report: Report) -> None:
    """One connection's worth of `part`."""
    have, validator = _resumable(url, part, has_sha256)
    if n_bytes is not None and have == n_bytes > 0:
        return
    headers = {"User-Agent": "matlib", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(_SafeRedirects)
    with opener.open(request, timeout=60) as response:
        start, total = _extent(response, have)
        if n_bytes is not None and total is not None and total != n_bytes:
            raise DownloadError(
                f"{url}: the server offers {total:,} bytes, expected {n_bytes:,}; the file has "
                "changed, or the address answers with an error page"
            )
        end = n_bytes if total is None else total
        if end is not None:
            require_space(part.parent, end - start, part.stem)
        _write_stamp(url, part, response.headers)
        if start:
            report(f"{part.stem}: going on at {_size(start)}")
        _append(response, part, start, end, report)


def _resumable(url: str, part: Path, has_sha256: bool) -> tuple[int, str | None]:
    """(bytes to keep of an earlier try, what the server called that version)."""
    if not part.exists():
        return 0, None
    try:
        stamp = json.loads(_stamp(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stamp = {}
    validator = stamp.get("validator") if isinstance(stamp, dict) else None
    # Without a version from the server and without a hash nobody would see two halves
    # of different files.
    if stamp.get("url") != url or not (validator or has_sha256):
        return 0, None
    return part.stat().st_size, validator


def _extent(response: Any, have: int) -> tuple[int, int | None]:
    """(first byte that this answer brings, length of the whole file if told)."""
    length = response.headers.get("Content-Length")
    if getattr(response, "status", None) != 206:
        return 0, int(length) if length is not None else None
    told = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", told.strip())
    if match is None or int(match[1]) != have:
        raise DownloadError(f"{response.url}: asked for bytes from {have:,}, got {told!r}")
    return have, None if match[2] == "*" else int(match[2])


def _append(source: IO[bytes], part: Path, start: int, end: int | None, report: Report) -> None:
    began = told = time.monotonic()
    done = start
    with part.open("ab" if start else "wb") as output:
        while chunk := source.read(_CHUNK_BYTES):
            done += len(chunk)
            if end is not None and done > end:
                raise DownloadError(f"{part.stem}: the server sends more than {end:,} bytes")
            output.write(chunk)
            now = time.monotonic()
            if now - told >= _REPORT_EVERY_S or done == end:
                report(_progress(part.stem, start, done, end, now - began))
                told = now
    if end is not None and done < end:
        raise _TryAgain(f"connection closed after {done:,} of {end:,} bytes")


def _progress(name: str, start: int, done: int, end: int | None, seconds: float) -> str:
    rate = (done - start) / max(seconds, 1e-3)
    line = f"{name}: {_size(done)}"
    if end is not None:
        line += f" of {_size(end)} ({100 * done / max(end, 1):.0f} %)"
    line += f", {_size(rate)}/s"
    if end is not None and done < end:
        line += f", about {(end - done) / max(rate, 1):.0f} s left"
    return line


def _give_up_if_final(error: Exception, url: str, target: Path, is_last: bool) -> None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DownloadError(
            f"no space left on disk for {target}; make room and run again, it goes on from "
            f"{target.name}.part"
        ) from error
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code == 416:  # what we have is no prefix of what is there now
            _discard(target.with_name(target.name + ".part"))
        elif error.code not in _RETRIED_STATUS:
            is_last = True
    is_passing = isinstance(error, _PASSING) and urlsplit(url).scheme != "file"
    if is_last or not is_passing:
        raise DownloadError(
            f"{url}: {error}. Check the connection and run again (it goes on where it "
            f"stopped), or download the file by hand and save it as {target}"
        ) from error


def _stamp(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _write_stamp(url: str, part: Path, headers: Any) -> None:
    etag = headers.get("ETag")
    # A weak ETag ("W/...") does not promise equal bytes, so it cannot serve for If-Range.
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    text = json.dumps({"url": url, "validator": validator})
    _stamp(part).write_text(text, encoding="utf-8")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _stamp(part).unlink(missing_ok=True)


def _size(n_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024 or unit == "GiB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    raise AssertionError("unreachable")
