"""Files from the network, whole or not at all.

Redirects, retries, transfers that go on where they broke, checked sizes and hashes, a lock.
"""
import hashlib
import http.client
import os
import shutil
import socket
import ssl
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

# A dependency of torch, so it is there.
from filelock import FileLock
from tqdm import tqdm

from .. import UserError

TIMEOUT = 30           # seconds without a byte
PAUSES = (1, 2, 4, 8)  # seconds before each new attempt
CHUNK = 2**20          # bytes read at a time
MOST_REDIRECTS = 10
NETWORK_FAULTS = (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


class NotFound(UserError):
    """The server has no such file, or does not show it to everybody."""


def download(url, path, size=None, sha256=None, token=None):
    """Brings `url` to `path`, unless it is there already (with this sha256, if given). -> path

    size (bytes) and sha256 (hex) are checked before the file gets its name. A broken transfer
    leaves `path`.part and goes on from there, now or next time, if there is a sha256 to tell
    whether the two halves fit. token: see open_url. Raises UserError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.exists() and (sha256 is None or sha256_of(path) == sha256):
            return path
        if sha256 is None:
            part.unlink(missing_ok=True)
        _transfer(url, part, size, token)
        found = part.stat().st_size
        right_size = size is None or found == size
        if not right_size or (sha256 is not None and sha256_of(part) != sha256):
            part.unlink()
            raise UserError(f"{url}: {found} bytes came, but size or sha256 are not the expected "
                            f"ones ({size}, {sha256}); nothing was kept. Try again; if it stays "
                            "so, the file has changed at its source")
        os.replace(part, path)
    return path


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _transfer(url, part, size, token):
    """Appends to `part` until the server has no more; goes on where a connection breaks."""
    etag = None
    fruitless = 0  # connections in a row that brought no byte
    while size is None or not part.exists() or size_of(part) < size:
        before = size_of(part)
        if size is not None and shutil.disk_usage(part.parent).free < size - before:
            raise UserError(f"{part.parent}: {size - before:,} bytes are needed, "
                            "fewer are free on this disk")
        response, _ = open_url(url, start=before, etag=etag, token=token)
        # A server may send the whole file, although only the rest of it was asked for.
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {before}-")
        start = before if resumed else 0
        etag = response.headers.get("ETag")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        try:
            _append(response, part, start, total)
            if total is None or size_of(part) >= total:
                return
        except NETWORK_FAULTS:
            pass
        fruitless = 0 if size_of(part) > before else fruitless + 1
        if fruitless == len(PAUSES):
            raise UserError(f"{url}: the connection breaks every time; "
                            f"{part} is kept, try again later")
        time.sleep(PAUSES[fruitless])


def _append(response, part, start, total):
    """Writes what comes to the end of `part` (or, if start is 0, anew), under a progress bar."""
    name = part.name.removesuffix(".part")
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, delay=1, desc=name)
    with response, bar, open(part, "ab" if start else "wb") as file:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def size_of(path):
    """Bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


# ---- one request ---------------------------------------------------------------------------------

class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib's own would follow from https to http, and hide the headers of the first hop."""

    def redirect_request(self, *args):
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def open_url(url, method="GET", start=0, etag=None, token=None, until=None):
    """-> (response, {lower-case header: value} of all hops, the first one that says it counting).

    start: the first byte wanted; etag: the version of the file that it is wanted of. A server may
    send the whole instead. token: for this host alone, never for one that it redirects to.
    until: HEAD asks no further host once a hop has this header (a signed address is for GET only).
    Faults of the network and the server (5xx, 429) are tried again; no TLS, no such host are not.
    Raises NotFound, or UserError for all else.
    """
    for pause in (*PAUSES, None):
        try:
            return _follow(url, method, start, etag, token, until)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # there is nothing from `start` on
                return open_url(url, method, token=token)
            if error.code in (401, 403, 404, 410):
                raise NotFound(f"{url}: HTTP {error.code} "
                               "(no such file, or it is private)") from None
            fault = f"HTTP {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break
        except (urllib.error.URLError, *NETWORK_FAULTS) as error:
            reason = getattr(error, "reason", error)
            fault = str(reason) or type(error).__name__
            if isinstance(reason, ssl.SSLError):
                raise UserError(f"{url}: no trusted TLS connection ({fault:.100}); look at the "
                                "clock and the address; SSL_CERT_FILE names the certificates of "
                                "a proxy in between") from None
            if getattr(reason, "errno", None) == socket.EAI_NONAME:  # no host has this name
                break
        if pause is not None:
            time.sleep(pause)
    raise UserError(f"{url}: {fault:.100}; try again later, or look at your connection")


def _follow(url, method, start, etag, token, until):
    """open_url, tried once. Raises urllib's errors, too."""
    wish = {"User-Agent": "minirosprompt", "Accept-Encoding": "identity"}
    if token:
        wish["Authorization"] = f"Bearer {token}"
    if start:
        wish["Range"] = f"bytes={start}-"
        if etag:
            wish["If-Range"] = etag
    headers = {}
    for _ in range(MOST_REDIRECTS):
        if not url.startswith(("https://", "http://")):
            raise UserError(f"{url}: not an address that begins with https://")
        address = urllib.parse.quote(url, safe=string.punctuation)
        request = urllib.request.Request(address, method=method, headers=wish)
        try:
            response = _opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            redirect = error.code in (301, 302, 303, 307, 308) and "Location" in error.headers
            if not redirect:
                raise
            response = error
        for name, value in response.headers.items():
            headers.setdefault(name.lower(), value)
        if response.status < 300:
            return response, headers

        here = urllib.parse.urlsplit(url)
        there = urllib.parse.urlsplit(urllib.parse.urljoin(url, response.headers["Location"]))
        if until in headers and there.netloc != here.netloc:
            return response, headers
        response.close()
        if (there.scheme, there.netloc) != (here.scheme, here.netloc):
            wish.pop("Authorization", None)
        if here.scheme == "https" and there.scheme != "https":
            raise UserError(f"{url:.150}: redirected away from https; refused")
        url = there.geturl()
    raise UserError(f"{url}: redirected in a circle")
