"""Files from the network, whole or not at all: redirects, retries, resumed parts, checked sizes and hashes, a lock."""
import hashlib
import http.client
import os
import shutil
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from filelock import FileLock  # a dependency of torch
from tqdm import tqdm

from .. import UserError

TIMEOUT = 30           # seconds without a byte
PAUSES = (1, 2, 4, 8)  # seconds before each new attempt
CHUNK = 1 << 20


class NotFound(UserError):
    """The server has no such file, or does not show it to everybody."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def open_url(url, method="GET", start=0, etag=None):
    """-> (response, {lower-case header: value} of all hops, the first one that says it counting).

    start: first byte wanted; etag: of the file that this byte is wanted of. A server may send the whole instead.
    HEAD does not follow a redirect to another host: what the first one says is the answer.
    Errors of the network and of the server (5xx) are tried again. Raises NotFound, or UserError for all else.
    """
    for pause in (*PAUSES, None):
        try:
            return _follow(url, method, start, etag)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # there is nothing from `start` on
                return open_url(url, method)
            if error.code in (401, 403, 404, 410):
                raise NotFound(f"{url}: HTTP {error.code} (no such file, or it is private)") from None
            fault = f"HTTP {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            fault = str(getattr(error, "reason", error)) or type(error).__name__
        if pause is not None:
            time.sleep(pause)
    raise UserError(f"{url}: {fault}; try again later, or look at your connection")


def _follow(url, method, start, etag):
    headers = {}
    for _ in range(10):
        if not url.startswith(("https://", "http://")):
            raise UserError(f"{url}: not an address that begins with https://")
        wish = {"User-Agent": "minirosprompt", "Accept-Encoding": "identity"}
        if start:
            wish |= {"Range": f"bytes={start}-"} | ({"If-Range": etag} if etag else {})
        request = urllib.request.Request(urllib.parse.quote(url, safe=string.punctuation), method=method, headers=wish)
        try:
            response = _opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code not in (301, 302, 303, 307, 308) or "Location" not in error.headers:
                raise
            response = error
        headers = {name.lower(): value for name, value in response.headers.items()} | headers
        if response.status < 300:
            return response, headers
        here, there = (urllib.parse.urlsplit(u) for u in (url, urllib.parse.urljoin(url, response.headers["Location"])))
        if method == "HEAD" and there.netloc != here.netloc:
            return response, headers
        response.close()
        if here.scheme == "https" != there.scheme:
            raise UserError(f"{url}: redirected away from https; refused")
        url = there.geturl()
    raise UserError(f"{url}: redirected in a circle")


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download(url, path, size=None, sha256=None):
    """Brings `url` to `path`, unless it is there already (with this sha256, if one is given). -> path

    size (bytes) and sha256 (hex) are checked before the file gets its name. A broken transfer leaves `path`.part, and goes
    on from there, now or next time, if a sha256 will tell whether the two halves fit. Raises UserError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.exists() and (sha256 is None or sha256_of(path) == sha256):
            return path
        if sha256 is None:
            part.unlink(missing_ok=True)
        _transfer(url, part, size)
        found = part.stat().st_size
        if size is not None and found != size or sha256 is not None and sha256_of(part) != sha256:
            part.unlink()
            raise UserError(f"{url}: {found} bytes came, but size or sha256 are not the expected ones ({size}, {sha256}); nothing "
                            "was kept. Try again; if it stays so, the file has changed at its source")
        os.replace(part, path)
    return path


def _transfer(url, part, size):
    """Appends to `part` until the server has no more; a connection that breaks is opened again where it broke."""
    etag, fruitless = None, 0
    while size is None or not part.exists() or part.stat().st_size < size:
        before = part.stat().st_size if part.exists() else 0
        if size is not None and shutil.disk_usage(part.parent).free < size - before:
            raise UserError(f"{part.parent}: {size - before:,} bytes are needed, fewer are free on this disk")
        response, _ = open_url(url, start=before, etag=etag)
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {before}-")
        etag, length = response.headers.get("ETag"), response.headers.get("Content-Length")
        total = before * resumed + int(length) if length else None
        name = part.name.removesuffix(".part")
        try:
            with response, open(part, "ab" if resumed else "wb") as file, \
                    tqdm(total=total, initial=before * resumed, unit="B", unit_scale=True, delay=1, desc=name) as bar:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
            if total is None or part.stat().st_size >= total:
                return
        except (http.client.HTTPException, ConnectionError, TimeoutError):
            pass
        fruitless = 0 if part.stat().st_size > before else fruitless + 1
        if fruitless == len(PAUSES):
            raise UserError(f"{url}: the connection breaks every time; {part} is kept, try again later")
        time.sleep(PAUSES[fruitless])
