"""Print every finished round of one game, or those that match. When the stream ends, go on where it stopped."""

import os
import random
import sys
import time
from pathlib import Path

import grpc

sys.path.append(str(Path(__file__).parents[3] / "proto"))  # where datastream.proto is
pb, services = grpc.protos_and_services("datastream.proto")

FATAL = ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND")

# grpc.secure_channel(url, grpc.ssl_channel_credentials(), options) where the relay has a certificate.
options = [("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000)]
channel = grpc.insecure_channel(os.environ.get("GRPC_URL", "127.0.0.1:50051"), options)
stub = services.DataStreamStub(channel)
metadata = [("x-api-key", os.environ.get("API_KEY", "sk_live_" + "0" * 64))]
request = pb.StreamByGameRequest(game_slug=os.environ.get("GAME", "crash"), start=pb.Start(allow_gap=True))
if os.environ.get("MIN_POINT"):
    request.filter.min_point = float(os.environ["MIN_POINT"])  # a round without a point does not match


def main() -> None:
    while True:
        pause_s = random.uniform(0, 2)  # at random, so that clients do not all come at once
        try:
            call = stub.StreamByGame(request, metadata=metadata)
            told = dict(call.initial_metadata() or ())
            if not request.start.after:  # where it begins, should it end before a round matches
                request.start.after = told.get("head-cursor", "")
            for round_ in call:
                if round_.HasField("gap"):
                    print(f"rounds after {round_.gap.from_cursor} are gone ({round_.gap.reason})", file=sys.stderr)
                    continue
                print(f"[{round_.game_slug}] Round {round_.round_id}", flush=True)
                request.start.after = round_.cursor  # go on after what has been printed
        except grpc.RpcError as error:
            if error.code().name in FATAL:
                sys.exit(f"refused: {error.details()}")
            print(f"disconnected: {error.details()}", file=sys.stderr)
            told = dict(error.trailing_metadata() or ())
            if "resume-cursor" in told:  # with a filter, it is far beyond the last round printed
                request.start.after = told["resume-cursor"]
            if "retry-after-ms" in told:
                pause_s = int(told["retry-after-ms"]) / 1000
        time.sleep(pause_s)


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
