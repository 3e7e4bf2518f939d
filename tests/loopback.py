"""A web server on this machine that behaves, and misbehaves, as the hub and the data hosts do."""
import http.server
import threading
from contextlib import contextmanager


class Host:
    """What is served, and what was asked for.

    files: {path: bytes}; headers: {path: {name: value}}; moved: {path: address}, with the status
    `redirect`;
    faults: {path: [one for each request]}: a status such as 503; "cut" sends half of what it
    promised; "whole" ignores a range.
    """

    def __init__(self):
        self.files = {}
        self.headers = {}
        self.moved = {}
        self.redirect = 302
        self.private = None  # the Authorization that it asks for
        self.faults = {}
        self.requests = []  # (method, path, range)
        self.agent = set()
        self.tokens = set()  # what came as Authorization, None if a request had none

    def answer(self, request):
        path = request.path
        self.requests.append((request.command, path, request.headers.get("Range")))
        self.agent.add(request.headers.get("User-Agent"))
        self.tokens.add(request.headers.get("Authorization"))
        fault = self.faults[path].pop(0) if self.faults.get(path) else None
        if self.private and request.headers.get("Authorization") != self.private:
            fault = 401
        if isinstance(fault, int):
            return self.send(request, fault, {}, b"")
        if path in self.moved:
            headers = {"Location": self.moved[path], **self.headers.get(path, {})}
            return self.send(request, self.redirect, headers, b"moved")
        if path not in self.files:
            return self.send(request, 404, {}, b"not found")
        body = self.files[path]
        status = 200
        headers = {"ETag": f'"{hash(body)}"', **self.headers.get(path, {})}
        start = request.headers.get("Range")
        unchanged = request.headers.get("If-Range", headers["ETag"]) == headers["ETag"]
        if start and fault != "whole" and unchanged:
            start = int(start.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send(request, 416, {"Content-Range": f"bytes */{len(body)}"}, b"")
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body = body[start:]
            status = 206
        self.send(request, status, headers, body, cut=fault == "cut")

    def send(self, request, status, headers, body, cut=False):
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[:len(body) // 2] if cut else body)
        request.close_connection = True

    def gets(self, path):
        """The ranges of the GET requests for one path."""
        return [span for command, p, span in self.requests if (command, p) == ("GET", path)]


@contextmanager
def serve():
    host = Host()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            host.answer(self)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    host.url = f"http://127.0.0.1:{server.server_port}"
    yield host
    server.shutdown()
    server.server_close()
