"""Read who sends a gRPC call, from its metadata and its connection."""

from relay.admission.caller import Caller
from relay.config.trusted_proxies import TrustedProxies
from relay.rpc.calls.grpc_call import GrpcCall


def caller_of_call(call: GrpcCall, proxies: TrustedProxies) -> Caller:
    """Return who sends a call."""
    peer, metadata = call.stream.get_extra_info("peername"), call.head.metadata
    caller = Caller.of(str(peer[0]) if isinstance(peer, tuple) else "", metadata.get("user-agent"))
    if not proxies.trusts(caller.address):
        return caller
    listed = [",".join(metadata.getall(name, ())) for name in ("x-forwarded-for", "forwarded")]
    return caller._replace(address=proxies.client(caller.address, *listed))
