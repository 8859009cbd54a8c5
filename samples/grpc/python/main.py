"""Print every finished round of one game, or those that match. When the stream ends, resume where it stopped."""

import os
import random
import sys
import time
from pathlib import Path

import grpc

sys.path.append(str(Path(__file__).parents[3] / "proto"))  # the folder of datastream.proto
pb, services = grpc.protos_and_services("datastream.proto")

FATAL = ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND")

# grpc.secure_channel(url, grpc.ssl_channel_credentials(), options) if the relay has a certificate.
options = [("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000)]
channel = grpc.insecure_channel(os.environ.get("GRPC_URL", "127.0.0.1:50051"), options)
stub = services.DataStreamStub(channel)
metadata = [("x-api-key", os.environ.get("API_KEY", "sk_live_" + "0" * 64))]
request = pb.StreamByGameRequest(game_slug=os.environ.get("GAME", "crash"), start=pb.Start(allow_gap=True))
if os.environ.get("MIN_POINT"):
    request.filter.min_point = float(os.environ["MIN_POINT"])  # a round without a point does not match


def main() -> None:
    while True:
        pause_s = random.uniform(0, 2)  # random, so that clients do not all reconnect at once
        try:
            call = stub.StreamByGame(request, metadata=metadata)
            received = dict(call.initial_metadata() or ())
            if not request.start.after:  # the starting point, in case the stream ends before a round matches
                request.start.after = received.get("head-cursor", "")
            for round_ in call:
                if round_.HasField("gap"):
                    print(f"rounds after {round_.gap.from_cursor} are gone ({round_.gap.reason})", file=sys.stderr)
                    continue
                print(f"[{round_.game_slug}] Round {round_.round_id}", flush=True)
                request.start.after = round_.cursor  # resume after the last round printed
        except grpc.RpcError as error:
            if error.code().name in FATAL:
                sys.exit(f"refused: {error.details()}")
            print(f"disconnected: {error.details()}", file=sys.stderr)
            received = dict(error.trailing_metadata() or ())
            if "resume-cursor" in received:  # with a filter, it is far ahead of the last round printed
                request.start.after = received["resume-cursor"]
            if "retry-after-ms" in received:
                pause_s = int(received["retry-after-ms"]) / 1000
        time.sleep(pause_s)


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
