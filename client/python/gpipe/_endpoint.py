"""Whom to call, and who calls."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re

import grpc

Path = str | os.PathLike[str]

DEFAULT_ADDRESS = "127.0.0.1:7070"

# As common/net/channel.cc and common/artifacts/connections.h have them.
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.http2.lookahead_bytes", 8 << 20),
)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An address, and the credentials that are shown there; None: plain text."""

    address: str
    credentials: grpc.ChannelCredentials | None = None

    def channel(self) -> grpc.Channel:
        """For calls that block."""
        if self.credentials is None:
            return grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        return grpc.secure_channel(self.address, self.credentials, options=CHANNEL_OPTIONS)

    def aio_channel(self) -> grpc.aio.Channel:
        """For calls of the running event loop."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(self.address, self.credentials, options=CHANNEL_OPTIONS)


def find(address: str | None, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, token: str | None,
         token_file: Path | None) -> Endpoint:
    """What is not given is taken from the variables that the program `gpipe` knows: GPIPE_ORCHESTRATOR, GPIPE_TLS_CA,
    GPIPE_TLS_CERT, GPIPE_TLS_KEY, GPIPE_TOKEN_FILE. ValueError says what does not fit together."""
    if token is None and token_file is None:
        token_file = os.environ.get("GPIPE_TOKEN_FILE") or None
    if token_file is not None:
        if token is not None:
            raise ValueError("token and token_file exclude each other: give one")
        token = pathlib.Path(token_file).read_text().strip()
    if token is not None and not re.fullmatch(r"[!-~]+", token):  # Never shown.
        raise ValueError("the token must be one word of printable characters")
    ca, cert, key = (given or os.environ.get(name) or None for given, name in (
        (tls_ca, "GPIPE_TLS_CA"), (tls_cert, "GPIPE_TLS_CERT"), (tls_key, "GPIPE_TLS_KEY")))
    return Endpoint(_address(address or os.environ.get("GPIPE_ORCHESTRATOR") or DEFAULT_ADDRESS),
                    _credentials(ca, cert, key, token))


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"the address must be HOST:PORT, and is '{text}'")
    return text


def _credentials(ca: Path | None, cert: Path | None, key: Path | None,
                 token: str | None) -> grpc.ChannelCredentials | None:
    if ca is None:
        if cert is not None or key is not None:
            raise ValueError("tls_cert and tls_key need tls_ca")
        if token is not None:
            raise ValueError("a token needs tls_ca: it does not travel in plain text")
        return None
    if (cert is None) != (key is None):
        raise ValueError("tls_cert and tls_key need each other")
    roots, own, private = (None if file is None else pathlib.Path(file).read_bytes() for file in (ca, cert, key))
    credentials = grpc.ssl_channel_credentials(roots, private, own)
    if token is None:
        return credentials
    return grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
