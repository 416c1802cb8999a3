"""Half a minute of an attacker's hour (attacker.py): every RPC with messages that were changed, and what is no call."""

import grpc
import pytest

import attacker
import rpcs
import wire_attacks
from api import Api
from attack_target import MIB, Target, Usage
from cluster import Cluster, wait_until
from mutator import Mutator
from rpcs import call_once, seeds


@pytest.fixture(scope="module")
def siege(tmp_path_factory):
    target = Target(tmp_path_factory.mktemp("siege") / "private", seed=1, steps=400)
    try:
        yield attacker.Siege(target, say=lambda _: None)
    finally:
        target.stop()


def test_nothing_crashes_grows_or_leaves_its_folder_and_jobs_train_on(siege):
    siege.run(range(2), seconds=0.15)
    assert not siege.problems, siege.problems
    assert siege.jobs > 0
    for name, rows in siege.rows.items():
        assert all(row.calls for row in rows), f"{name} has not happened"


def test_every_rpc_has_messages_that_are_valid_before_they_are_changed(siege):
    """Changes of what is refused anyway would never get deep."""
    target = siege.target
    for path, groups in target.seeds().items():
        assert groups and all(groups), path
        assert f"mutated {path.rpartition('.')[2]}" in siege.attacks
    calls = {path: call_once(target.rpcs[path], target.channels[0], [m.SerializeToString() for m in groups[0]])
             for path, groups in target.seeds().items()}
    refused = {path: call for path, call in calls.items() if call[0] in ("INVALID_ARGUMENT", "INTERNAL", "UNIMPLEMENTED", "UNKNOWN")}
    assert not refused, refused


def test_an_rpc_without_messages_is_noticed(siege):
    assert set(siege.target.rpcs) == set(seeds("any")), "a new RPC needs messages in rpcs.py"
    assert len(siege.target.rpcs) >= 25
    session = siege.target.rpcs["/gpipe.v1.WorkerSessionService/Session"].request
    assert {kind for message in rpcs.session("any") for kind in message} == set(session.DESCRIPTOR.fields_by_name)


def test_the_same_seed_makes_the_same_messages(siege):
    rpc = siege.target.rpcs["/gpipe.v1.JobService/SubmitJob"]
    message = rpc.message(seeds("any")[rpc.path][0][0])

    def messages(seed):
        mutator = Mutator(seed, "mark")
        return [mutator.mutate(message) for _ in range(20)]
    assert messages(1) == messages(1) != messages(2)


def test_a_port_without_descriptors_goes_on_when_there_are_some_again(tmp_path):
    """gRPC's own listener never accepts again once it could not."""
    cluster = Cluster(tmp_path / "cluster", enter=["prlimit", "--nofile=256:256"])
    fresh = lambda: Api(cluster.address, [("grpc.use_local_subchannel_pool", 1)]).GetVersion(timeout=5).version
    try:
        idle = [wire_attacks.open_http2(cluster.address) for _ in range(400)]
        with pytest.raises(grpc.RpcError) as refused:
            fresh()
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        log = cluster.folder / "orchestrator.log"
        wait_until(lambda: "a connection is refused" in log.read_text(), 10, "a word in the log")
        for connection in idle:
            connection.close()
        assert wait_until(lambda: works(fresh), 30, "somebody new is served")
    finally:
        cluster.stop()


def test_memory_of_calls_that_were_refused_goes_back_to_the_system(tmp_path):
    """The C library alone would keep it for the next ones."""
    cluster = Cluster(tmp_path / "cluster")
    try:
        before = Usage.of(cluster.orchestrator.pid).resident
        with grpc.insecure_channel(cluster.address) as channel:
            rpc = rpcs.all_rpcs(channel)["/gpipe.v1.ArtifactService/FindMissingArtifacts"]
            many = rpc.message({"refs": [rpcs.REF]}).SerializeToString() * 100_000
            calls = [rpc.call(channel).future(many, timeout=120) for _ in range(16)]
            assert {call.exception().code() for call in calls} == {grpc.StatusCode.INVALID_ARGUMENT}
        taken = lambda: Usage.of(cluster.orchestrator.pid).resident - before
        wait_until(lambda: taken() < 80 * MIB, 60, "what they took is free again")
    finally:
        cluster.stop()


def works(call) -> bool:
    try:
        return bool(call())
    except grpc.RpcError:
        return False
