"""schemathesis as a client: requests made from an OpenAPI document, of which each answer must be described there."""

import asyncio
from pathlib import Path
from typing import Final

from tests.clients.tools import python_program

_CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


async def ask_all(
    folder: Path, url: str, *, header: str, seed: int, examples: int = 15, config: str = "", exclude: str = "^$"
) -> None:
    """Send valid and invalid values of every parameter, header and body; fail when an answer is not described.

    Args:
        folder: Where files may be written.
        url: Of the server; its document is at ``/openapi.json``.
        header: One that all requests have, with the credential.
        seed: Of the values.
        examples: How many requests are made of each operation at random, besides those of the document.
        config: More lines for the configuration of schemathesis.
        exclude: A pattern of the paths that are left out.
    """
    program = await asyncio.to_thread(python_program, "schemathesis")
    (folder / "schemathesis.toml").write_text(config)
    process = await asyncio.create_subprocess_exec(
        program,
        *("--config-file", str(folder / "schemathesis.toml"), "run", f"{url}/openapi.json"),
        *("--header", header, "--checks", ",".join(_CHECKS)),
        *("--exclude-path-regex", exclude, "--phases", "examples,coverage,fuzzing"),
        *("--max-examples", str(examples), "--seed", str(seed), "--request-timeout", "10", "--warnings", "off"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-12000:]
    assert b"passed" in out
