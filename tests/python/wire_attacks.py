"""What comes to a port that is no call at all: noise, other protocols, HTTP/2 that is legal by the letter, silence. Each
attack takes a Random and an address, and returns how it ended, in a word."""

from __future__ import annotations

import contextlib
import socket
import ssl

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GO_AWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def connect(address: str, timeout: float = 5) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=timeout)


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def headers(path: str) -> bytes:
    """A gRPC call's, each as a literal that no table keeps."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers",
              "content-type": "application/grpc"}
    return b"".join(b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
                    for name, value in fields.items())


def open_http2(address: str) -> socket.socket:
    """A connection that has said what an HTTP/2 client says first, and says nothing more."""
    plain = connect(address)
    plain.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return plain


def ending(plain: socket.socket, data: bytes, patience: float = 0.2) -> str:
    """What becomes of a connection on which those bytes are sent."""
    plain.settimeout(patience)
    try:
        plain.sendall(data)
        while True:
            if not plain.recv(65536):
                return "closed"
    except TimeoutError:
        return "open"
    except (ConnectionError, ssl.SSLError):
        return "reset"
    finally:
        plain.close()


def noise(random, address: str) -> str:
    return ending(connect(address), random.randbytes(random.choice([1, 9, 24, 1000, 65536])))


def noise_as_frames(random, address: str) -> str:
    data = b""
    for _ in range(random.choice([1, 5, 50])):
        length = random.choice([0, 1, 4, 8, 100, 16384, 16385, 1 << 23])
        body = random.randbytes(min(length, 20_000))
        head = length.to_bytes(3, "big") + random.randbytes(2) + random.choice([0, 1, 2, 3, 2**31 - 1]).to_bytes(4, "big")
        data += head + body
    return ending(open_http2(address), data)


def other_protocols(random, address: str) -> str:
    hello = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return ending(connect(address), random.choice([
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /gpipe.v1.JobService/ListJobs HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAAA\r\n\r\n",
        b"GET " + b"A" * 100_000 + b" HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01" + b"\xff" * 500, outgoing.read(),
        PREFACE[:10], PREFACE + PREFACE]))


def floods(random, address: str) -> str:
    """More of one kind of frame than anybody needs, each of them legal."""
    call = headers("/gpipe.v1.JobService/ListJobs")
    kind = random.choice(["settings", "pings", "resets", "headers-without-end", "priorities", "windows", "empty-data"])
    data = {
        "settings": frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff") * 2000,
        "pings": frame(PING, 0, 0, b"12345678") * 2000,
        "resets": b"".join(frame(HEADERS, END_HEADERS, 2 * i + 1, call) + frame(RESET, 0, 2 * i + 1, b"\0\0\0\x08")
                           for i in range(1500)),
        "headers-without-end": frame(HEADERS, 0, 1, call) + frame(CONTINUATION, 0, 1, b"\x10\x01a\x7f\0" + b"b" * 127) * 4000,
        "priorities": b"".join(frame(PRIORITY, 0, i, b"\0\0\0\0\1") for i in range(1, 4001, 2)),
        "windows": frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 1000,
        "empty-data": frame(HEADERS, END_HEADERS, 1, call) + frame(DATA, 0, 1) * 4000,
    }[kind]
    return f"{kind} {ending(open_http2(address), data)}"


def http_requests(random, address: str) -> str:
    """To the port of the web page. Returns the status."""
    up = random.choice(["../", "..%2f", "%2e%2e/", "..\\", "%2e%2e%5c", ".%00./", "%c0%ae%c0%ae/"]) * random.choice([1, 12])
    names = ["etc/passwd", "state/gpipe.db", "proc/self/environ"]
    path = random.choice([f"/{up}{random.choice(names)}", f"/api/v1/jobs/{up}x", f"//{up}etc/passwd", "/" + "a" * 20_000,
                          "/api/v1/jobs/" + "%00" * 300, "/api/v1/jobs?page_size=-1&states=" + "STATE_RUNNING," * 3000,
                          "/api/v1/workers/%1b%5b2J:drain", "/api/v1/jobs?fields=" + "a.a." * 10_000, "/metrics?" + "x=y&" * 9000,
                          "http://169.254.169.254/", "/api/v1/jobs/x:cancel", "*", "/readyz/" + up])
    body = random.choice(["", "{}", "{" * 60_000, "[" * 60_000, '{"id":' * 10_000, '{"id":"' + "A" * 60_000 + '"}', "\0" * 100,
                          '{"page_size":1e999}', '{"unknown":1}'])
    method = random.choice(["GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PATCH", "\0", "G" * 9000])
    extra = random.choice(["", "Content-Length: 99999999999999999999\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: chunked\r\n",
                           "X: " + "y" * 70_000 + "\r\n", "X: y\r\n" * 5000, "Range: bytes=0-1,5-3,-9\r\n", "Authorization: Bearer " + "z" * 9000
                           + "\r\n", "Expect: 100-continue\r\n", "Connection: close\r\n"])
    length = "" if "Length" in extra or "chunked" in extra else f"Content-Length: {len(body)}\r\n"
    with connect(address) as plain:
        plain.settimeout(0.5)
        try:
            plain.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}{extra}\r\n{body}".encode())
            answer = plain.recv(65536)
        except TimeoutError:
            return "waits"
        except ConnectionError:
            return "reset"
    assert b"root:" not in answer and b"SQLite format" not in answer, (path, answer[:300])
    return answer.split(b" ", 2)[1].decode(errors="replace") if answer.startswith(b"HTTP/") else "closed"
