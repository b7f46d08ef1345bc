"""Every setting of the service, by name. Flags win over the environment, the environment over `--config FILE`."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import YamlConfigSettingsSource

from resolver.client.arguments import VARIABLES
from resolver.domain.builds import BuildPolicy

PREFIX = "LOCKSTEP_"
# A Kubernetes Service named `lockstep` injects these into every Pod of its namespace; they are none of ours.
_SERVICE_LINK = re.compile(r"LOCKSTEP_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class UnknownSetting(ValueError):
    """A `LOCKSTEP_…` variable that names no setting."""


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"not a duration such as 30s, 10m, 24h: {value!r}")
    return float(match[1]) * _SECONDS[match[2]]


def _words(value: Any) -> Any:
    return [word for word in re.split(r"[\s,]+", value) if word] if isinstance(value, str) else value


def _ways(value: Any) -> Any:
    ways = _words(value)
    return [] if ways == ["none"] else ways


def _index_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("an index name is lower-case letters, digits and hyphens")
    return value


def _pairs(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    pairs = (pair.partition("=") for pair in re.split(r"[\s,]+", value.strip()) if pair)
    return {name: told for name, _, told in pairs}


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
Interpreters = Annotated[dict[str, Path], NoDecode, BeforeValidator(_pairs)]
NamespaceBuilds = Annotated[dict[str, BuildPolicy], NoDecode, BeforeValidator(_pairs)]
Images = Annotated[dict[str, str], NoDecode, BeforeValidator(_pairs)]
Words = Annotated[list[str], NoDecode, BeforeValidator(_words)]
Ways = Annotated[list[Literal["kubernetes", "static"]], NoDecode, BeforeValidator(_ways)]


class IndexSettings(BaseModel):
    """One package index. `namespaces`: who may use it (absent: all)."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(_index_name)]
    url: SecretStr
    namespaces: list[str] | None = None


class Settings(BaseSettings):
    """What `serve` reads."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    listen: str = Field("127.0.0.1:8080", description="host:port to listen on")
    auth: Ways = Field(
        [], description="who may call: none (nobody is asked), kubernetes (service account tokens), static, or both"
    )
    auth_tokens: Path | None = Field(
        None, description="static: a YAML file of tokens, read again when it changes; never a token itself"
    )
    auth_audience: str = Field("lockstep", description="kubernetes: the audience that tokens are for", min_length=1)
    auth_operators: Words = Field(
        [], description="kubernetes: subjects that are operators, as system:serviceaccount:NAMESPACE:NAME"
    )
    auth_issuer: str | None = Field(
        None, description="kubernetes: who issues tokens; absent: the cluster that this is in, as its API server says"
    )
    auth_jwks_url: str | None = Field(
        None, description="kubernetes: where the issuer's keys are; absent: where it says itself"
    )
    insecure_no_auth: bool = Field(False, description="listen beyond loopback although nobody is asked who they are")
    data_dir: Path = Field(Path(".lockstep"), description="the folder of the embedded database and blobs")
    database_url: SecretStr | None = Field(
        None, description="postgresql://user@host/db, which replicas share; absent: SQLite in the data folder"
    )
    blob_url: str | None = Field(
        None, description="s3://bucket/prefix, gs://… or az://…, which replicas share; absent: files in the data folder"
    )
    blob_links: bool = Field(
        False, description="answer with links to the object storage, so that bytes need not pass through the service"
    )
    index_url: SecretStr | None = Field(None, description="the one package index; absent: the engines' own default")
    indexes: list[IndexSettings] = Field([], description="several package indexes, in order of priority")
    role: Literal["all", "api", "worker"] = Field(
        "all", description="api: only answer; worker: only do cold work; both need a shared database and blob store"
    )
    engine: Literal["uv", "pip"] = Field("uv", description="what resolves")
    interpreters: Interpreters = Field(
        {}, description="3.12=/usr/bin/python3.12 … for byte-code; absent: those on PATH"
    )
    platforms: Words = Field([], description="platform tags that every lock covers beside the one that asked")
    network: Literal["online", "fallback", "offline"] = Field(
        "online", description="fallback: a lock of any age before an index; offline: never ask an index"
    )
    fresh_for: Seconds = Field(86400.0, description="how long a lock answers new requests for its key")
    refusals_for: Seconds = Field(30.0, description="how long a `no solution` is remembered")
    passed_over: Literal["refuse", "warn"] = Field(
        "refuse", description="a required package's newest version has no wheel: build-required, or a warning"
    )
    builds: BuildPolicy = Field(
        "pure",
        description="which source distributions are built: never, native (all), or pure (those for any platform)",
    )
    namespace_builds: NamespaceBuilds = Field({}, description="shop=never other=native … where it is another one")
    sdist_timeout: Annotated[Seconds, Field(ge=1)] = Field(
        300.0, description="the longest that one step of a build from source may take"
    )
    sdist_memory: int = Field(2 << 30, description="bytes of address space of each process of a build", ge=1 << 26)
    sdist_disk: int = Field(1 << 30, description="bytes that a build may write; they are in memory", ge=1 << 20)
    sdist_processes: int = Field(128, description="processes of one build", ge=4)
    parallel_sdists: int = Field(2, description="source distributions built at once", ge=1)
    builder_namespace: str | None = Field(
        None, description="a namespace in which a Job is made for each build; absent: builds run here, in bubblewrap"
    )
    builders: Images = Field(
        {}, description="any=IMAGE cp312-musllinux_1_2_x86_64=IMAGE …: where builds run, by what their wheels are for"
    )
    builder_url: str | None = Field(None, description="the URL at which builders reach this very process")
    builder_client_image: str | None = Field(None, description="the client's image, which builders get the client from")
    builder_cpu: str = Field("1", description="CPUs of a builder, such as 1 or 500m")
    target_conflict: Literal["refuse", "warn"] = Field(
        "refuse", description="a workload's platforms cannot have equal versions: refused, or a warning"
    )
    shared_paths: Literal["refuse", "warn"] = Field(
        "warn", description="two packages write one path: refused, or a warning"
    )
    keep_revisions: int = Field(10, description="newest revisions of a workload whose bundles are kept", ge=0)
    keep_for: Seconds = Field(7 * 86400.0, description="how long a bundle is kept after its last use")
    forget_after: Seconds = Field(180 * 86400.0, description="how long a workload's pins are kept unseen")
    gc_grace: Seconds = Field(
        3600.0, description="how long what nothing holds is left; more than the longest work under way takes"
    )
    gc_every: Seconds = Field(6 * 3600.0, description="how often the service collects garbage; 0: `lockstep gc` does")
    max_store: int = Field(0, description="bytes of blobs, past which use alone holds no bundle; 0: no cap", ge=0)
    log_format: Literal["json", "text"] | None = Field(None, description="absent: text on a terminal, else json")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is logged")
    max_body: int = Field(1 << 20, description="bytes of a request's body", ge=1024)
    max_wait: Seconds = Field(300.0, description="the longest that a caller may wait for an answer")
    index_timeout: Annotated[Seconds, Field(ge=1)] = Field(
        15.0, description="how long one request to an index may stay without an answer"
    )
    engine_timeout: Seconds = Field(300.0, description="the longest that one run of the engine may take")
    engine_memory: int = Field(4 << 30, description="bytes of address space that one run of the engine may have")
    engine_cache: int = Field(2 << 30, description="bytes that an engine may keep of what indexes serve it", ge=0)
    build_timeout: Seconds = Field(600.0, description="the longest that building one layer may take")
    parallel_resolves: int = Field(4, description="runs of the engine at once", ge=1)
    parallel_warm: int = Field(
        2, description="requests warmed at once; below parallel_resolves, so that Pods find room", ge=1
    )
    parallel_downloads: int = Field(16, description="wheels fetched at once", ge=1)
    parallel_builds: int = Field(default_factory=lambda: os.cpu_count() or 1, description="layers built at once", ge=1)
    queue: int = Field(512, description="requests that may wait for a resolve; past it: busy", ge=1)
    streams: int = Field(64, description="large blobs sent at once", ge=1)
    stream_memory: int = Field(
        64 << 20, description="bytes of blobs in memory on their way out, all streams together", ge=1 << 20
    )
    stream_queue: int = Field(1024, description="requests for large blobs that may wait; past it: busy", ge=1)
    stream_wait: Seconds = Field(
        10.0, description="the longest that one of them waits; past it: busy; less than clients wait for an answer"
    )
    webhook_listen: str | None = Field(None, description="host:port for the admission webhook, over TLS; absent: none")
    webhook_cert: Path | None = Field(None, description="the webhook's certificate (PEM), read again when it changes")
    webhook_key: Path | None = Field(None, description="the key of webhook_cert")
    webhook_server: str | None = Field(None, description="the URL at which Pods reach this service over HTTP")
    webhook_client_image: str | None = Field(
        None, description="the client's image, for Pods whose own has no Python; absent: those are left as they are"
    )
    webhook_cpu: str = Field(
        "1", description="CPU limit of the init container where the function's is lower; 0: as the function's"
    )
    webhook_audience: str | None = Field(
        None, description="audience of the token that Pods show; absent: auth_audience, where auth has kubernetes"
    )
    webhook_platforms: Words = Field(
        ["musllinux_1_2_x86_64"], description="platform tags of Kyma's Python images, for which Functions are warmed"
    )
    webhook_image_registry: str | None = Field(
        None, description="registry/folder that nodes pull from: Pods mount the images that are there; absent: none"
    )
    shutdown_grace: Seconds = Field(25.0, description="after SIGTERM, how long work under way may still take")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment; `load` adds the file behind them."""
        return init_settings, env_settings


def load(flags: Mapping[str, Any], config: Path | None) -> Settings:
    """The settings from flags, environment and file, in that order of priority.

    Raises:
        UnknownSetting: a LOCKSTEP_ variable that names no setting.
        pydantic.ValidationError: a value that is none, or a name in the file that is no setting.
        OSError: the file cannot be read.
    """
    _refuse_unknown(os.environ)

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            *sources: PydanticBaseSettingsSource,
            **named: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            sources = super().settings_customise_sources(settings_cls, *sources, **named)
            return (*sources, YamlConfigSettingsSource(settings_cls, config)) if config else sources

    if config is not None:
        config.open("rb").close()
    return FromFile(**{name: value for name, value in flags.items() if value is not None})


def variables() -> set[str]:
    """The names of all variables that `load` reads."""
    return {PREFIX + name.upper() for name in Settings.model_fields} | {PREFIX + "CONFIG"}


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    # Those of the other commands may stand in the same shell.
    known = variables() | VARIABLES
    unknown = sorted(
        name
        for name in environment
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.fullmatch(name)
    )
    if unknown:
        raise UnknownSetting(f"no such setting: {', '.join(unknown)}")
