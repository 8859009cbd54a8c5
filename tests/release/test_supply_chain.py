"""What the build uses is pinned, may do little, and is audited; a key in a commit is found."""

import importlib.util
import json
import math
import re
import sys
import tomllib
from collections import Counter
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, Final

import pytest

from auth.key_secret import DEMO_KEY, DEMO_PUBLIC_KEY, generate

_ROOT: Final = Path(__file__).parents[2]
_WORKFLOWS: Final = sorted((_ROOT / ".github/workflows").glob("*.yml"))


def _script(name: str) -> Any:
    loader = SourceFileLoader(f"ci_{name}", str(_ROOT / ".ci" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


audit: Final = _script("audit")


def test_locks_have_hashes() -> None:
    """Every package of every lock, so that an index cannot give out another file."""
    for lock in [*_ROOT.glob("*.lock"), *(_ROOT / ".ci").glob("*.lock")]:
        packages = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
        assert packages, lock
        for package in packages:
            assert re.match(r"[\w.\-\[\],]+==\S+", package), f"{lock.name}: {package[:80]}"
            assert "--hash=sha256:" in package, f"{lock.name}: {package[:80]}"
    npm_locks = [path for path in _ROOT.glob("*/*/**/package-lock.json") if "node_modules" not in path.parts]
    assert npm_locks
    for lock in npm_locks:
        for name, package in json.loads(lock.read_text())["packages"].items():
            assert not name or package.get("link") or package["integrity"].startswith("sha512-"), f"{lock}: {name}"


@pytest.mark.parametrize("workflow", _WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_least_permissions(workflow: Path) -> None:
    """Read of the content at most, unless a job says what more it needs, and why or for which step."""
    text = workflow.read_text()
    top = re.search(r"^permissions:(?: (\{\})|\n((?:  .*\n)+))", text, re.MULTILINE)

    assert top is not None, "no permissions for the whole workflow"
    assert top[1] == "{}" or top[2] == "  contents: read\n"
    for line in re.findall(r"^ +\S+: write.*$", text, re.MULTILINE):
        assert workflow.name == "release.yml", line
        assert re.search(r"(?:contents|packages|id-token): write # |attestations: write", line), line
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")
    assert "pull_request_target" not in text
    assert not re.search(r"run:.*\$\{\{ *github\.(?:event|head_ref)", text)


def _rule() -> tuple[re.Pattern[str], float]:
    config = tomllib.loads((_ROOT / ".gitleaks.toml").read_text())
    [rule] = [rule for rule in config["rules"] if rule["id"] == "stream-relay-key"]
    return re.compile(rule["regex"]), rule["entropy"]


def _entropy(text: str) -> float:
    """Bits of a character, as gitleaks counts them."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def test_a_secret_in_the_tree_is_found() -> None:
    """The rule matches all kinds of keys that we make. `.ci/audit` checks that gitleaks applies it."""
    pattern, least = _rule()
    for kind in ("private", "public"):
        for test in (False, True):
            for _ in range(200):
                secret, _hash = generate(kind, test=test)
                match = pattern.search(f'key = "{secret}"')
                assert match is not None
                assert _entropy(match[1]) > least
    for secret in (DEMO_KEY, DEMO_PUBLIC_KEY, f"sk_live_{'d' * 64}"):
        assert _entropy(secret) < least


def test_an_audit_without_data_is_no_audit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An index that knows of no vulnerability, not even of an old one, would make everything green."""
    monkeypatch.setattr(audit, "make_tools", lambda: None)
    monkeypatch.setattr(audit, "audit_workflows", lambda: "nothing")
    monkeypatch.setattr(audit, "audit_commits", lambda: "nothing")
    monkeypatch.setattr(audit, "audit_go", lambda: "nothing")
    report = '{"dependencies": [{"name": "jinja2", "version": "2.4.1", "vulns": []}]}'
    monkeypatch.setattr(audit, "run", lambda *_, **__: audit.Done(0, report))

    assert audit.main([]) == 0
    assert "Python packages: NOT AUDITED: the package index has no data" in capsys.readouterr().out
    assert audit.main(["--complete"]) == 1
    printed = capsys.readouterr().out
    assert "NOT AUDITED: Python packages, npm packages. See above. A green run says nothing about them." in printed


def test_a_vulnerable_package_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With its lock, name and advisories."""
    report = '{"dependencies": [{"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "PYSEC-1"}, {"id": "G-2"}]}]}'
    monkeypatch.setattr(audit, "make_tools", lambda: None)
    for name in ("audit_workflows", "audit_commits", "audit_npm", "audit_go"):
        monkeypatch.setattr(audit, name, lambda: "nothing")
    monkeypatch.setattr(audit, "tracked", lambda _: ["requirements.lock"])
    monkeypatch.setattr(audit, "run", lambda *_, **__: audit.Done(1, report))

    assert audit.main([]) == 1
    assert "requirements.lock: jinja2: PYSEC-1, G-2" in capsys.readouterr().out


def test_base_images_are_named_once() -> None:
    """A release replaces the tag by its digest, in both stages."""
    text = (_ROOT / "infra/Containerfile").read_text()

    assert re.findall(r"^(?:ARG|FROM) .*$", text, re.MULTILINE) == [
        "ARG PYTHON_IMAGE=python:3.13-slim",
        "FROM ${PYTHON_IMAGE} AS build",
        "FROM ${PYTHON_IMAGE}",
    ]
