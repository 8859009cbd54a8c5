"""Load balancers in front of two relays, as operators configure them: real nginx and HAProxy."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.clients.program import Program

_NGINX: Final = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_upgrade $upgrade_connection {{ default upgrade; "" ""; }}
  upstream relays {{
    least_conn;
{servers}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://relays;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $upgrade_connection;
      proxy_buffering off;
    }}
  }}
}}
"""

_HAPROXY: Final = """\
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  retries 3
  option redispatch 1
frontend clients
  bind 127.0.0.1:{port}
  default_backend relays
backend relays
  balance leastconn
{servers}
"""


@contextmanager
def nginx(folder: Path, port: int, relays: Sequence[str]) -> Iterator[None]:
    """Run nginx on `port`, with ``least_conn`` and its default ``proxy_next_upstream``, for relays as ``host:port``."""
    servers = "\n".join(f"    server {relay};" for relay in relays)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, servers=servers))
    with Program([_program("nginx"), "-e", f"{folder}/error.log", "-c", str(config)]):
        yield


@contextmanager
def haproxy(folder: Path, port: int, relays: Sequence[str]) -> Iterator[None]:
    """Run HAProxy on `port`, with ``leastconn`` and ``redispatch``, without active checks."""
    servers = "\n".join(f"  server relay{number} {relay}" for number, relay in enumerate(relays))
    config = folder / "haproxy.cfg"
    config.write_text(_HAPROXY.format(port=port, servers=servers))
    with Program([_program("haproxy"), "-db", "-f", str(config)]):
        yield


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"needs {name}")
    subprocess.run([found, "-v"], check=True, capture_output=True)
    return found
