"""Downloads from a server on this machine that redirects, breaks off, lies and stumbles."""
import hashlib
import http.client
import multiprocessing
import shutil
import socket
import ssl
from collections import namedtuple

import pytest
from loopback import serve

from minirosprompt import UserError
from minirosprompt.io import download as module
from minirosprompt.io.download import NotFound, download, open_url

BODY = bytes(range(256)) * 20000  # 5 MB
SHA256 = hashlib.sha256(BODY).hexdigest()
HALF = f"bytes={len(BODY) // 2}-"


@pytest.fixture()
def host(monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0.01,) * 4)
    with serve() as host:
        host.files["/file"] = BODY
        yield host


def nothing_but(folder, *names):
    found = [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]
    return sorted(found) == sorted(names)


def test_plain_and_again(host, tmp_path):
    path = tmp_path / "deep" / "file"
    for _ in range(2):  # the second time it is there
        assert download(f"{host.url}/file", path, len(BODY), SHA256).read_bytes() == BODY
    assert host.gets("/file") == [None]
    assert nothing_but(path.parent, "file")
    path.write_bytes(b"damaged since")
    assert download(f"{host.url}/file", path, sha256=SHA256).read_bytes() == BODY
    download(f"{host.url}/file", path)  # nothing is known about it: what is there is believed
    assert len(host.gets("/file")) == 2


def test_redirects(host, tmp_path):
    host.moved = {"/old": "/older", "/older": f"{host.url}/file", "/circle": "/circle"}
    host.headers["/old"] = {"X-Linked-Etag": '"of the first hop"'}
    assert download(f"{host.url}/old", tmp_path / "x").read_bytes() == BODY
    response, headers = open_url(f"{host.url}/old")
    response.close()
    assert headers["x-linked-etag"] == '"of the first hop"'
    with pytest.raises(UserError, match="in a circle"):
        open_url(f"{host.url}/circle")
    with serve() as other:
        other.files["/file"] = BODY
        other.headers["/file"] = {"X-Linked-Etag": '"of the other host"'}
        host.moved["/away"] = f"{other.url}/file"
        _, headers = open_url(f"{host.url}/away", "HEAD", until="x-linked-etag")
        assert headers["x-linked-etag"] == '"of the other host"'
        # HEAD does not ask a host that has been handed a signed address
        host.headers["/away"] = host.headers["/old"]
        asked = len(other.requests)
        _, headers = open_url(f"{host.url}/away", "HEAD", until="x-linked-etag")
        assert headers["x-linked-etag"] == '"of the first hop"'
        assert len(other.requests) == asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_never_leaves_the_host_that_it_is_for(host, tmp_path, status):
    with serve() as other:
        host.redirect = other.redirect = status
        host.moved = {"/here": "/there", "/there": f"{other.url}/x", "/home": "/file"}
        other.moved = {"/x": "/y", "/y": f"{host.url}/home"}  # and back: it is gone by then
        download(f"{host.url}/home", tmp_path / "a", token="hf_secret")
        assert host.tokens == {"Bearer hf_secret"}
        host.tokens.clear()
        download(f"{host.url}/there", tmp_path / "b", token="hf_secret")
        open_url(f"{host.url}/here", "HEAD", token="hf_secret")
        assert other.tokens == {None}
        assert host.tokens == {"Bearer hf_secret", None}
        with pytest.raises(NotFound) as error:
            open_url(f"{host.url}/nothing", token="hf_secret")
        assert "hf_secret" not in str(error.value)


def test_never_from_https_to_http(monkeypatch):
    Response = namedtuple("Response", "headers status close")
    response = Response({"Location": "http://example.org/x"}, 302, lambda: None)
    monkeypatch.setattr(module._opener, "open", lambda request, timeout: response)
    with pytest.raises(UserError, match="away from https"):
        open_url("https://example.org/x")


@pytest.mark.parametrize(
    "faults, ranges",
    [
        # goes on where it broke
        (["cut"], [None, HALF]),
        (["cut", "cut"], [None, HALF, f"bytes={len(BODY) * 3 // 4}-"]),
        # a server that begins anew
        (["cut", "whole"], [None, HALF]),
        ([503, 503], [None, None, None]),
        ([429], [None, None]),
    ],
)
def test_stumbles(host, tmp_path, faults, ranges):
    host.faults["/file"] = list(faults)
    assert download(f"{host.url}/file", tmp_path / "x", sha256=SHA256).read_bytes() == BODY
    assert host.gets("/file") == ranges
    assert nothing_but(tmp_path, "x")


def test_part_of_an_earlier_try(host, tmp_path):
    part = tmp_path / "x.part"
    part.write_bytes(BODY[:1000])
    assert download(f"{host.url}/file", tmp_path / "x", sha256=SHA256).read_bytes() == BODY
    assert host.gets("/file") == ["bytes=1000-"]
    (tmp_path / "x").unlink()
    part.write_bytes(b"of another version")
    # no hash would tell, so it is not used
    assert download(f"{host.url}/file", tmp_path / "x").read_bytes() == BODY
    (tmp_path / "x").unlink()
    part.write_bytes(BODY + b"longer")
    with pytest.raises(UserError, match="size or sha256"):
        download(f"{host.url}/file", tmp_path / "x", len(BODY), SHA256)
    part.write_bytes(BODY)  # whole, but killed before it got its name
    assert download(f"{host.url}/file", tmp_path / "x", sha256=SHA256).read_bytes() == BODY


@pytest.mark.parametrize(
    "size, sha256", [(len(BODY), "0" * 64), (len(BODY) - 1, SHA256), (len(BODY) + 1, None)]
)
def test_wrong_hash_or_size_leaves_nothing(host, tmp_path, size, sha256):
    with pytest.raises(UserError, match="size or sha256|breaks every time"):
        download(f"{host.url}/file", tmp_path / "x", size, sha256)
    assert not (tmp_path / "x").exists()


def test_given_up(host, tmp_path):
    host.faults["/file"] = [503] * 99
    with pytest.raises(UserError, match="HTTP 503.*try again later"):
        download(f"{host.url}/file", tmp_path / "x")
    with pytest.raises(NotFound, match="HTTP 404"):
        download(f"{host.url}/nothing", tmp_path / "x")
    host.faults["/file"] = [400]
    with pytest.raises(UserError, match="HTTP 400"):
        download(f"{host.url}/file", tmp_path / "x")
    host.faults["/file"] = ["cut"] * 99
    host.files["/file"] = b"x"  # half of one byte is none
    with pytest.raises(UserError, match="breaks every time"):
        download(f"{host.url}/file", tmp_path / "x")
    for address in ("ftp://example.org/x", "example.org/x", "file:///etc/passwd"):
        with pytest.raises(UserError, match="begins with https"):
            open_url(address)
    with pytest.raises(UserError, match="try again later"):
        open_url("http://127.0.0.1:9/x")


def test_what_will_stay_as_it_is_is_not_tried_again(host, monkeypatch):
    """No TLS (here: a server that speaks none), no such host."""
    monkeypatch.setattr(module, "PAUSES", (60,) * 4)
    with pytest.raises(UserError, match="no trusted TLS connection.*SSL_CERT_FILE") as error:
        open_url(host.url.replace("http:", "https:") + "/file")
    assert len(str(error.value)) < 300

    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UserError, match="Name or service not known"):
        open_url("https://mirror.invalid/file")


def test_tls_that_breaks_midway_is_tried_again(host, tmp_path, monkeypatch):
    read = http.client.HTTPResponse.read
    faults = [ssl.SSLEOFError(8, "EOF occurred in violation of protocol")]

    def stumbling(self, *args):
        if faults:
            raise faults.pop()
        return read(self, *args)

    monkeypatch.setattr(http.client.HTTPResponse, "read", stumbling)
    assert download(f"{host.url}/file", tmp_path / "x", sha256=SHA256).read_bytes() == BODY


def test_full_disk_is_noticed_before(host, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    with pytest.raises(UserError, match="fewer are free"):
        download(f"{host.url}/file", tmp_path / "x", len(BODY), SHA256)
    assert host.requests == []


def test_two_processes_download_once(host, tmp_path):
    fork = multiprocessing.get_context("fork")
    file = (f"{host.url}/file", tmp_path / "x", len(BODY), SHA256)
    both = [fork.Process(target=download, args=file) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [p.exitcode for p in both] == [0, 0]
    assert host.gets("/file") == [None]
    assert (tmp_path / "x").read_bytes() == BODY
