"""Install what tests would install from registries themselves: ``python -m tests.clients.install``.

``.ci/run`` does so before it runs them, so that a registry that fails or is slow is not reported as a skipped test.
"""

import sys

import pytest

from tests.clients.tools import ROOT, go_modules, go_program, java_classes, node_packages, python_program, rust_program


def main() -> None:
    """Install all of it; raise `SystemExit` with the reason when something cannot be."""
    try:
        for folder in ("samples", "tests"):
            for lock in sorted((ROOT / folder).rglob("package-lock.json")):
                if "node_modules" not in lock.parts:
                    node_packages(lock.parent)
            for lock in sorted((ROOT / folder).rglob("go.sum")):
                go_modules(lock.parent)
        go_program(ROOT / "tests/rpc/go")
        java_classes(ROOT / "tests/rpc/java")
        rust_program(ROOT / "tests/rpc/rust", "tonic-client")
        python_program("schemathesis")
    except pytest.skip.Exception as reason:
        sys.exit(str(reason))


if __name__ == "__main__":
    main()
