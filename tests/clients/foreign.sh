#!/usr/bin/env bash
# Install event stream clients that CI does not have (Java: okhttp-sse; needs Maven and a JDK), and run the tests of all
# event stream clients with them. They stay in .cache, so that later runs of the tests include them.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$PWD/.cache/java-clients
mvn -q -B -f tests/clients/java/pom.xml dependency:copy-dependencies -DoutputDirectory="$target/lib"
javac -cp "$target/lib/*" -d "$target" tests/clients/java/OkHttp.java

.venv/bin/python -m pytest -q tests/clients/test_event_stream_clients.py "$@"
