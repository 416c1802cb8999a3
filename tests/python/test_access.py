"""Who may call what, as docs/security.md has it, asked of a real orchestrator by a program in another language: RPC x
caller x outcome, over the RPCs that the orchestrator itself says it has."""

import concurrent.futures
import pathlib
import re

import grpc

from cluster import ROOT
from rpcs import Rpc, all_rpcs, call_once
from test_security import SecureCluster

TOKENS = {role: f"{role}-token-0123456789" for role in ("read", "submit", "admin")}
# By certificate; the role of `client` is submit, `orchestrator` is for nobody who calls.
CERTIFICATES = {"read": "read", "client": "submit", "admin": "admin", "worker": "worker", "orchestrator": None}
FOR_ALL = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def documented() -> dict[str, set]:
    """{path: roles}; those of everybody: None among them."""
    rows = re.findall(r"^\| `(\w+)\.(\w+)`.*\| (.*) \|$", (ROOT / "docs" / "security.md").read_text(), re.M)
    words = {"everybody": {"read", "submit", "admin", "worker", None}}
    return {f"/gpipe.v1.{service}/{method}": words.get(roles) or set(re.split(r", | or ", roles))
            for service, method, roles in rows}


def channel(cluster, certificate=None) -> grpc.Channel:
    folder: pathlib.Path = cluster.certificates
    read = lambda name: (folder / name).read_bytes()
    own = (read(f"{certificate}.key"), read(f"{certificate}.crt")) if certificate else ()
    return grpc.secure_channel(cluster.address, grpc.ssl_channel_credentials(read("ca.crt"), *own),
                               [("grpc.use_local_subchannel_pool", 1)])


def outcome(rpc: Rpc, called_by: grpc.Channel, token=None) -> str:
    """Of a call with an empty message: how it was refused, or `let through`."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    code, words = call_once(rpc, called_by, [b""], metadata, patience=2)
    if code == "PERMISSION_DENIED" and "may not do this" not in words:
        return "let through"  # To what says that a file is none of this worker's.
    assert code not in ("UNAVAILABLE", "UNIMPLEMENTED"), (rpc.path, words)
    return code if code in ("PERMISSION_DENIED", "UNAUTHENTICATED") else "let through"


def test_each_rpc_is_for_those_of_the_document(tmp_path, monkeypatch):
    cluster = SecureCluster(tmp_path / "cluster", monkeypatch)
    try:
        (cluster.folder / "tokens").write_text("".join(f"{role} {role}er {token}\n" for role, token in TOKENS.items()))
        callers = [(name, channel(cluster, name), None, role, "PERMISSION_DENIED") for name, role in CERTIFICATES.items()]
        callers += [(f"{role} token", channel(cluster), token, role, "PERMISSION_DENIED") for role, token in TOKENS.items()]
        callers += [("read token before admin", channel(cluster, "admin"), TOKENS["read"], "read", "PERMISSION_DENIED"),
                    ("unknown token", channel(cluster, "admin"), "some-token-0123456789", None, "UNAUTHENTICATED"),
                    ("nobody", channel(cluster), None, None, "UNAUTHENTICATED")]
        rpcs, allowed = all_rpcs(callers[0][1]), documented()
        own = {path for path in rpcs if path.split("/")[1] not in FOR_ALL}
        assert own == set(allowed), own ^ set(allowed)

        def check(caller):
            name, called_by, token, role, refusal = caller
            for path, rpc in rpcs.items():
                expected = "let through" if path not in own or role in allowed[path] else refusal
                assert outcome(rpc, called_by, token) == expected, (name, path)

        with concurrent.futures.ThreadPoolExecutor(len(callers)) as pool:
            list(pool.map(check, callers))
    finally:
        cluster.stop()
