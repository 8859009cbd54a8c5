"""Load the settings: their sources, their precedence, and one sentence for each wrong one.

Read once at start from the environment (``RELAY_<SECTION>_<NAME>``) and optionally one TOML file with the same
sections. Only this module reads the environment. The sections of the relay are in `relay.config.sections`.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from auth.redact import MASK, redact
from backends.backend_settings import BackendSettings
from backends.ingest.ingest_settings import IngestSettings
from backends.publish.publisher_settings import PublisherSettings
from relay.config.admin_sections import AdminSettings, AuditSettings, UsageSettings
from relay.config.identity_settings import IdentitySettings
from relay.config.sections import (
    AuthSettings,
    DrainSettings,
    GrpcSettings,
    HttpSettings,
    LimitSettings,
    LinkSettings,
    LoggingSettings,
    ReplaySettings,
)
from roundlog.log_settings import LogSettings

ENV_PREFIX = "RELAY_"

_OF_KUBERNETES = re.compile(r"\ARELAY_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)\Z")
"""Variables that Kubernetes sets in every container when a Service is named ``relay``; not settings."""

_IN_URL: Final = re.compile(r"(://)[^\s,'\"]*(@)")
"""Everything before the last ``@``: without a password, the user name may be a token."""
_IN_DSN: Final = re.compile(r"(password\s*=\s*)(?:'[^']*'|[^\s&]+)()", re.IGNORECASE)
_BOUNDS: Final = {"ge": "of at least", "gt": "above", "le": "up to", "lt": "below"}
_WORDS: Final = {"grpc.port": ", or off"}
"""Settings that are numbers, or a word."""
_ALIKE: Final = 0.75
"""Minimum similarity to suggest a name: one or two wrong letters in a variable of usual length."""
_SECRET_NAME: Final = re.compile(r"password|secret|token|api_?key", re.IGNORECASE)

_NO_SECRETS: Final = ("_file", "_files", "_id")
"""Ends of names that hold where a secret is, or which."""


class InvalidSettings(Exception):
    """A setting is wrong or unknown. ``str()`` has one line per error: the setting, its value, what is allowed."""


class Settings(BaseModel):
    """All settings in force. Built by `load`; immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    http: HttpSettings = HttpSettings()
    grpc: GrpcSettings = GrpcSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    identity: IdentitySettings = IdentitySettings()
    links: LinkSettings = LinkSettings()
    replay: ReplaySettings = ReplaySettings()
    drain: DrainSettings = DrainSettings()
    nats: LogSettings = LogSettings()
    backend: BackendSettings = BackendSettings()
    publish: PublisherSettings = PublisherSettings()
    ingest: IngestSettings = IngestSettings()
    log: LoggingSettings = LoggingSettings()
    admin: AdminSettings = AdminSettings()
    audit: AuditSettings = AuditSettings()
    usage: UsageSettings = UsageSettings()
    games_file: Path | None = None
    """TOML that extends or overrides the bundled catalogue of games; rounds/games.toml has the format."""


def load(overrides: Mapping[str, Any] | None = None, *, quickly: bool = False) -> Settings:
    """Read all settings; `overrides` (from the command line) take precedence.

    Args:
        overrides: Fields by section.
        quickly: Import no library for the sources when the environment is so plain that it needs none.

    Raises:
        InvalidSettings: A setting is unknown or wrong, or the TOML file cannot be read.
    """
    path = os.environ.get(f"{ENV_PREFIX}CONFIG")
    if path and not Path(path).is_file():
        raise InvalidSettings(f"{ENV_PREFIX}CONFIG={path!r} is not a readable file")
    unknown = sorted(_unknown_variables(os.environ))
    if unknown:
        raise InvalidSettings("\n".join(f"{name} is not a setting; {_allowed_near(name)}" for name in unknown))
    try:
        if quickly and (values := _plain_values(overrides or {})) is not None:
            return Settings(**values)
        read = _reader()(**(overrides or {}))
    except ValidationError as error:
        given_by = origins(overrides)
        raise InvalidSettings("\n".join(_sentence(fault, given_by) for fault in error.errors())) from error
    except ValueError as error:  # broken TOML
        raise InvalidSettings(f"{path}: {error}") from error
    fields = {name: getattr(read, name) for name in Settings.model_fields}
    return Settings.model_construct(_fields_set=read.model_fields_set, **fields)


@cache
def _reader() -> type[Settings]:
    """Return a class that reads the settings from all sources, in every form that they may have.

    Its library takes a twelfth of the CPU until a relay is ready.
    """
    from pydantic_settings import (
        BaseSettings,
        InitSettingsSource,
        PydanticBaseSettingsSource,
        SettingsConfigDict,
        TomlConfigSettingsSource,
    )

    class Reader(Settings, BaseSettings):
        model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="_", env_nested_max_split=1)

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """Return the sources by precedence: command line, environment, TOML file, the platform's PORT, defaults."""
            sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
            if path := os.environ.get(f"{ENV_PREFIX}CONFIG"):
                sources.append(TomlConfigSettingsSource(settings_cls, Path(path)))
            if port := os.environ.get("PORT"):
                sources.append(InitSettingsSource(settings_cls, {"http": {"port": port}}))
            return tuple(sources)

    return Reader


def _plain_values(overrides: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields by section, of `overrides`, the environment and ``PORT``; None where there is more to read."""
    known, options = variables(), f"{ENV_PREFIX}BACKEND_"
    values: dict[str, Any] = {}
    if port := os.environ.get("PORT"):
        values["http"] = {"port": port}
    for name, value in os.environ.items():
        if not name.upper().startswith(ENV_PREFIX) or _OF_KUBERNETES.match(name):
            continue
        path = f"backend.{name.removeprefix(options).lower()}" if name.startswith(options) else known.get(name)
        if path is None or path == "config":
            return None  # a file; or a name in lower case, which the library accepts too
        section, dot, field = path.partition(".")
        if dot:
            values.setdefault(section, {})[field] = value
        else:
            values[section] = value
    for section, fields in overrides.items():
        values[section] = values.get(section, {}) | fields
    return values


def variables() -> dict[str, str]:
    """Map every environment variable except backend options to its field, as ``section.field``."""
    names = {f"{ENV_PREFIX}CONFIG": "config"}
    for section, field in Settings.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            names |= {f"{ENV_PREFIX}{section}_{name}".upper(): f"{section}.{name}" for name in model.model_fields}
        else:
            names[f"{ENV_PREFIX}{section}".upper()] = section
    return names


Origin = Literal["command line", "environment", "file", "PORT"]


def origins(overrides: Mapping[str, Any] | None = None) -> dict[str, Origin]:
    """Map each setting that is not a default, as ``section.field``, to the source of its value."""
    path, port = os.environ.get(f"{ENV_PREFIX}CONFIG"), os.environ.get("PORT")
    known, options = variables(), f"{ENV_PREFIX}BACKEND_"
    found: dict[str, Origin] = {"http.port": "PORT"} if port else {}
    if path:
        found |= dict.fromkeys(_paths(tomllib.loads(Path(path).read_text("utf-8"))), "file")
    for name in os.environ:
        if name in known:
            found[known[name]] = "environment"
        elif name.startswith(options):
            found[f"backend.{name.removeprefix(options).lower()}"] = "environment"
    return found | dict.fromkeys(_paths(overrides or {}), "command line")


def _paths(tree: Mapping[str, Any]) -> list[str]:
    return [
        path
        for section, inner in tree.items()
        for path in ([f"{section}.{field}" for field in inner] if isinstance(inner, Mapping) else [section])
    ]


def _unknown_variables(environ: Mapping[str, str]) -> set[str]:
    known = variables()
    return {
        name
        for name in environ
        if name.startswith(ENV_PREFIX)
        and name not in known
        and not name.startswith(f"{ENV_PREFIX}BACKEND_")
        and _OF_KUBERNETES.match(name) is None
    }


def _allowed_near(name: str) -> str:
    """List the settings of the section that `name` seems to mean, the most similar first; else list the sections."""
    section = "_".join(name.split("_")[:2]) + "_"
    known = list(variables())
    if near := [variable for variable in known if variable.startswith(section)]:
        return f"there are: {', '.join(sorted(near, key=lambda variable: -_likeness(variable, name)))}"
    alike = [variable for variable in known if _likeness(variable, name) > _ALIKE]
    meant = f"did you mean {max(alike, key=lambda variable: _likeness(variable, name))}? " if alike else ""
    sections = [f"{ENV_PREFIX}{section}_…".upper() for section in Settings.model_fields if _section_model(section)]
    return f"{meant}there are: {', '.join(sections)}; to list all settings, run: stream-relay config"


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def _sentence(fault: Any, given_by: Mapping[str, Origin]) -> str:
    """Write one line with the setting, its value and what is allowed. The value of a secret is never shown."""
    where = ".".join(str(part) for part in fault["loc"])
    variable = f"{ENV_PREFIX}{where.replace('.', '_')}".upper()
    file = os.environ.get(f"{ENV_PREFIX}CONFIG")
    section, dot, _ = where.partition(".")
    if fault["type"] == "extra_forbidden":
        there_are = _allowed_near(variable) if dot else _sections()
        return f"{where} in {file} is not a setting; {there_are}"
    # An error of a whole section has the section as its input, with its secrets.
    is_shown = where not in _secret_fields() and not isinstance(fault["input"], Mapping)
    shown = f"={masked(where, str(fault['input']))[:80]!r}" if is_shown else ""
    of_section = {origin for path, origin in given_by.items() if path.startswith(f"{where}.")}
    if not is_shown and of_section == {"file"}:
        variable = f"[{where}] in {file}"
    origin = given_by.get(where)
    name = {"file": f"{where}{shown} in {file}", "PORT": f"PORT{shown}"}.get(origin or "", f"{variable}{shown}")
    if is_shown and not dot and _section_model(section):
        return f"{name} is not allowed: {where} is a section, [{where}]"
    reason = _number_allowed(where) or _reason(fault)
    return f"{name} is not allowed: {reason[0].lower()}{reason[1:]}"


def _reason(fault: Any) -> str:
    """Return what a value must be, in words of ours where those of pydantic do not say what is allowed."""
    if fault["type"].startswith("bool"):
        return "it must be a boolean, true or false"
    text: str = fault["msg"].removeprefix("Value error, ")
    return text.replace("Input should be", "it must be", 1)


def _sections() -> str:
    """List what a file may have at its top level."""
    top = {name: _section_model(name) for name in Settings.model_fields}
    sections = ", ".join(f"[{name}]" for name, model in top.items() if model)
    return f"there are the sections {sections}, and {', '.join(name for name, model in top.items() if not model)}"


def _section_model(name: str) -> type[BaseModel] | None:
    field = Settings.model_fields.get(name)
    model = field.annotation if field else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _number_allowed(where: str) -> str | None:
    """Describe the numbers that a setting allows; None when it is not a number."""
    section, _, name = where.partition(".")
    model = _section_model(section)
    field = model.model_fields.get(name) if model else None
    if field is None:
        return None
    types = {field.annotation, *get_args(field.annotation)}
    if not types & {int, float}:
        return None
    bounds = {name: getattr(part, name) for part in field.metadata for name in _BOUNDS if hasattr(part, name)}
    words = " and ".join(f"{_BOUNDS[name]} {bound}" for name, bound in bounds.items())
    if bounds.keys() == {"ge", "le"}:
        words = f"from {bounds['ge']} to {bounds['le']}"
    word = _WORDS.get(where, "")
    return f"it must be {'a whole number' if int in types else 'a number'} {words}".rstrip() + word


def masked(name: str, value: str) -> str:
    """Return a setting's value with passwords in URLs and DSNs masked, or a mask when the whole value is secret."""
    if value and _SECRET_NAME.search(name) and not name.endswith(_NO_SECRETS):
        return MASK
    for inside in (_IN_URL, _IN_DSN):
        value = inside.sub(rf"\1{MASK}\2", value)
    return redact(value)


def _secret_fields() -> set[str]:
    return {
        f"{section}.{name}"
        for section, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for name, inner in field.annotation.model_fields.items()
        if inner.annotation is SecretStr or SecretStr in get_args(inner.annotation)
    }
