"""The OpenAPI description of the admin API. A test compares it with the routes and with real answers."""

from importlib.metadata import version
from typing import Any, Final

from auth.key_members import LIMITS
from relay.admin.admin_credentials import PREFIX

Json = dict[str, Any]

_TEXT: Final[Json] = {"type": "string"}
_FLAG: Final[Json] = {"type": "boolean"}
_COUNT: Final[Json] = {"type": "integer", "format": "int64", "minimum": 0}
_SECONDS: Final[Json] = {"type": "number"}
_TIME: Final[Json] = {"type": ["string", "null"], "format": "date-time"}
_TEXTS: Final[Json] = {"type": "array", "items": _TEXT}
_LIMITS: Final[Json] = {
    "type": "object",
    "properties": {name: {"type": ["number", "null"]} for name in LIMITS},
    "additionalProperties": False,
}
_EDITABLE: Final[Json] = {
    "name": _TEXT,
    "games": {"type": ["array", "null"], "items": _TEXT, "description": "null: all games, unless types are given."},
    "types": {"type": ["array", "null"], "items": _TEXT},
    "allowed_origins": {"type": ["array", "null"], "items": _TEXT},
    "limits": {**_LIMITS, "type": ["object", "null"]},
    "addresses": {"type": ["array", "null"], "items": _TEXT, "description": "Networks; null: from anywhere."},
    "expires_at": _TIME,
    "disabled": _FLAG,
}
_FIGURES: Final[Json] = {
    "links": _COUNT,
    "links_max": _COUNT,
    "links_opened": _COUNT,
    "rounds": _COUNT,
    "bytes": _COUNT,
    "requests": _COUNT,
    "log_rounds": _COUNT,
    "refused": _COUNT,
    "last_used": _TIME,
}
_KEY: Final[Json] = {
    "id": _TEXT,
    "kind": {"type": "string", "enum": ["private", "public"]},
    "test": _FLAG,
    "name": _TEXT,
    "games": {"type": ["array", "null"], "items": _TEXT},
    "types": _TEXTS,
    "allowed_origins": _TEXTS,
    "limits": _LIMITS,
    "addresses": _TEXTS,
    "created_at": _TIME,
    "expires_at": _TIME,
    "disabled": _FLAG,
    "status": {"type": "string", "enum": ["active", "disabled", "expired"]},
    "secrets": {
        "type": "array",
        "items": {"type": "object", "required": ["prefix"], "properties": {"prefix": _TEXT, "expires_at": _TIME}},
    },
}


def _object(properties: Json, *, required: bool = True, closed: bool = False) -> Json:
    found: Json = {"type": "object", "properties": properties}
    if required:
        found["required"] = list(properties)
    if closed:
        found["additionalProperties"] = False
    return found


_SCHEMAS: Final[Json] = {
    "Key": _object(_KEY),
    "KeyWithUse": _object({**_KEY, "last_used": _TIME}),
    "KeyWithSecret": _object({**_KEY, "secret": {**_TEXT, "description": "Shown once."}}),
    "Keys": _object(
        {
            "keys": {"type": "array", "items": {"$ref": "#/components/schemas/KeyWithUse"}},
            "faults": {**_TEXTS, "description": "A sentence for each entry of the store that is no key."},
        }
    ),
    "NewKey": {
        **_object({"id": _TEXT, "kind": _KEY["kind"], "test": _FLAG, **_EDITABLE}, required=False, closed=True),
        "required": ["id"],
    },
    "KeyPatch": _object(_EDITABLE, required=False, closed=True),
    "Rotation": _object({"overlap_s": _SECONDS}, required=False, closed=True),
    "NewRevocation": _object(
        {"token": _TEXT, "subject": _TEXT, "for_s": _SECONDS, "issued_before_now": _FLAG}, required=False, closed=True
    ),
    "Revocation": _object({"what": _TEXT, "value": _TEXT, "until": _TIME, "issued_before": _TIME}),
    "Figures": _object(_FIGURES),
    "KeyUsage": _object(
        {
            "key": _TEXT,
            "total": {"$ref": "#/components/schemas/Figures"},
            "hours": {"type": "array", "items": _object({"hour": _TIME, **_FIGURES})},
        }
    ),
    "Usage": _object({"keys": {"type": "array", "items": {"$ref": "#/components/schemas/KeyUsage"}}}),
    "AuditEntry": {
        **_object(
            {
                "id": _TEXT,
                "at": {"type": "string", "format": "date-time"},
                "actor": _TEXT,
                "action": _TEXT,
                "address": _TEXT,
                "target": _TEXT,
                "before": {"type": ["object", "null"]},
                "after": {"type": ["object", "null"]},
                "outcome": {"type": ["string", "null"], "enum": ["failed", "unknown", None]},
                "of": _TEXT,
                "detail": {"type": ["object", "null"]},
            },
            required=False,
        ),
        "required": ["id", "at", "actor", "action"],
    },
    "Audit": _object({"entries": {"type": "array", "items": {"$ref": "#/components/schemas/AuditEntry"}}}),
    "Probe": _object({"status": _TEXT}),
    "Error": _object({"error": _TEXT, "success": {"type": "boolean", "const": False}, "code": _TEXT}),
}


def _content(schema: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _operation(
    summary: str, answer: str | None, *parameters: Json, status: int = 200, body: str | None = None, etag: bool = False
) -> Json:
    success: Json = {"description": "Done."}
    if answer is not None:
        success["content"] = _content(answer)
    if etag:
        success["headers"] = {"ETag": {"schema": _TEXT, "description": "The revision of the key."}}
    found: Json = {
        "summary": summary,
        "responses": {
            str(status): success,
            "default": {"description": "An error.", "content": _content("Error")},
        },
    }
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = {"required": body in ("NewKey", "KeyPatch", "NewRevocation"), "content": _content(body)}
    return found


_ID: Final[Json] = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
_IF_MATCH: Final[Json] = {
    "name": "If-Match",
    "in": "header",
    "schema": _TEXT,
    "description": "Change the key only in this revision; otherwise 412.",
}


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _paths() -> Json:
    hours = _query("hours", {"type": "integer", "minimum": 1, "maximum": 9600, "default": 24}, "How far back.")
    limit = _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}, "How many entries.")
    refused = _query("refused", {"type": "boolean", "default": True}, "Whether refused credentials are included.")
    change = (_ID, _IF_MATCH)
    probe = _operation("Is the process alive?", "Probe") | {"security": []}
    paths: Json = {
        "/admin/keys": {
            "get": _operation("All keys", "Keys"),
            "post": _operation("Create a key", "KeyWithSecret", status=201, body="NewKey", etag=True),
        },
        "/admin/keys/{id}": {
            "get": _operation("One key", "KeyWithUse", _ID, etag=True),
            "patch": _operation("Change members of a key (RFC 7396)", "Key", *change, body="KeyPatch", etag=True),
            "delete": _operation("Remove a key for ever", None, *change, status=204),
        },
        "/admin/keys/{id}/rotate": {
            "post": _operation("Give it a new secret", "KeyWithSecret", *change, body="Rotation", etag=True)
        },
        "/admin/keys/{id}/disable": {"post": _operation("Refuse a key", "Key", *change, etag=True)},
        "/admin/keys/{id}/enable": {"post": _operation("Accept it again", "Key", *change, etag=True)},
        "/admin/keys/{id}/usage": {"get": _operation("What a key has used", "KeyUsage", _ID, hours)},
        "/admin/usage": {"get": _operation("What all keys have used", "Usage", hours)},
        "/admin/revocations": {
            "post": _operation("Refuse a token or a subject", "Revocation", status=201, body="NewRevocation")
        },
        "/admin/audit": {"get": _operation("Who changed what", "Audit", limit, refused)},
        "/healthz": {"get": probe},
        "/readyz": {"get": probe},
    }
    for methods in paths.values():  # aiohttp answers HEAD for each GET
        if "get" in methods:
            methods["head"] = {
                **methods["get"],
                "responses": {
                    status: {name: value for name, value in answer.items() if name != "content"}
                    for status, answer in methods["get"]["responses"].items()
                },
            }
    return paths


def document() -> Json:
    """Return the description as OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stream-relay administration",
            "version": version("stream-relay"),
            "description": "Keys, revocations, usage and the audit log of an installation of stream-relay.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"admin": []}],
        "paths": _paths(),
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "admin": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": f"An admin credential, {PREFIX} and 64 hexadecimal digits.",
                }
            },
        },
    }
