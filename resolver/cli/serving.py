"""`serve`: settings from flags, environment and file, and the refusal of those that make no sense."""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError
from yaml import MarkedYAMLError, YAMLError

from resolver.cli.command import Command
from resolver.client.errors import BadUsage
from resolver.domain.redaction import redact
from resolver.settings import PREFIX, Settings, UnknownSetting, load

_CONFIG = f"{PREFIX}CONFIG"
# `listen` is --host and --port; a list of indexes, each with a URL and more, is too much for a flag.
_NO_FLAG = frozenset({"listen", "indexes"})
_REPEATED = {"interpreters": ("--interpreter", "VERSION=PATH"), "platforms": ("--platform", "TAG")}
_OUR_OWN_FAULT = "Value error, "  # how pydantic begins what a validator of ours raised


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run the service. Settings come from flags, else from LOCKSTEP_ variables, else from the config file; without "
        "any: 127.0.0.1:8080, an embedded database, and blobs in a folder. A TIME is in seconds, or as 30s, 10m, 24h."
    )
    listen = Settings.model_fields["listen"].default
    host, port = address(listen)
    add = parser.add_argument
    add("--host", metavar="H", help=f"the address to listen on (default: {host}; {PREFIX}LISTEN=host:port)")
    add("--port", metavar="P", type=int, help=f"the port to listen on (default: {port}; {PREFIX}LISTEN=host:port)")
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting that can have one, and the one that names the file."""
    add = parser.add_argument
    add("--config", metavar="FILE", type=Path, help=f"a YAML file with settings by name ({_CONFIG})")
    for name, field in Settings.model_fields.items():
        if name in _NO_FLAG:
            continue
        text = _help(name, field)
        if name in _REPEATED:
            flag, metavar = _REPEATED[name]
            kind = _interpreter if name == "interpreters" else str
            text += "; can be repeated"
            add(flag, dest=name, metavar=metavar, action="append", type=kind, help=text)
        elif field.annotation is bool:
            add(_flag(name), dest=name, action="store_true", default=None, help=text)
        else:
            add(_flag(name), dest=name, metavar=_metavar(name, field), help=text)


def _serve(options: argparse.Namespace) -> int:
    run: Callable[[Settings], int] = options.serve
    return run(_listening(read_settings(options), options.host, options.port))


def address(listen: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 host stands in brackets (RFC 3986, 3.2.2).

    Raises:
        ValueError: it is not of that form.
    """
    host, _, port = listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not host or (":" in host) != bracketed or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError("not host:port, such as 127.0.0.1:8080 or [::1]:8080")
    return host, int(port)


def read_settings(options: argparse.Namespace) -> Settings:
    """The settings from flags, environment and file.

    Raises:
        BadUsage: a line for each fault; none shows a value that may be a credential.
    """
    flags = {name: value for name in Settings.model_fields if (value := getattr(options, name, None)) is not None}
    if "interpreters" in flags:
        flags["interpreters"] = dict(flags["interpreters"])
    config = options.config or (Path(os.environ[_CONFIG]) if os.environ.get(_CONFIG) else None)
    try:
        return load(flags, config)
    except ValidationError as error:
        raise _bad(*_faults(error, flags, config)) from None
    except (UnknownSetting, SettingsError) as error:
        raise _bad(redact(str(error))) from None
    except OSError as error:
        raise _bad(f"cannot read {config}: {error.strerror}") from None
    except MarkedYAMLError as error:
        # Its text quotes what it stumbled over, which may be a password that begins with `*` or `!`.
        mark = error.problem_mark
        raise _bad(f"{config} is not YAML" + (f", line {mark.line + 1}" if mark else "")) from None
    except (YAMLError, UnicodeDecodeError):
        raise _bad(f"{config} is not YAML") from None
    except (TypeError, ValueError):  # what pydantic-settings makes of a document that is a list or a word
        raise _bad(f"{config} holds no settings by name") from None


def _listening(settings: Settings, host: str | None, port: int | None) -> Settings:
    """The settings with the flags' host and port in `listen`, once that may be listened on."""
    try:
        set_host, set_port = address(settings.listen)
        host = set_host if host is None else host.removeprefix("[").removesuffix("]")
        port = set_port if port is None else port
        listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        address(listen)
    except ValueError as error:
        raise _bad(f"the address to listen on is {error}") from None
    try:
        webhook_host, _ = address(settings.webhook_listen or listen)
    except ValueError as error:
        raise _bad(f"the webhook's address to listen on is {error}") from None
    for each in (host, webhook_host):
        if not _is_loopback(each) and not settings.auth and not settings.insecure_no_auth:
            raise BadUsage(
                f"{each} is not loopback, and nobody who calls is asked who they are",
                (
                    "--auth says who is: kubernetes, static, or both",
                    "--insecure-no-auth allows it, where the network alone decides who may call",
                ),
            )
    return settings.model_copy(update={"listen": listen})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _faults(error: ValidationError, flags: Mapping[str, Any], config: Path | None) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        name, *inner = (str(part) for part in fault["loc"])
        if name in flags:
            source = _REPEATED[name][0] if name in _REPEATED else _flag(name)
        elif os.environ.get(variable := PREFIX + name.upper()):
            source = variable
        else:
            source = f"{config}: {name}"
        told = "no such setting" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix(_OUR_OWN_FAULT)
        yield f"{'.'.join([source, *inner])}: {redact(told)}"


def _bad(*faults: str) -> BadUsage:
    return BadUsage("these settings will not do", faults)


def _interpreter(text: str) -> tuple[str, str]:
    version, equals, path = text.partition("=")
    if not (version and equals and path):
        raise argparse.ArgumentTypeError("not of the form 3.12=/usr/bin/python3.12")
    return version, path


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _help(name: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    known = [f"default: {default:g} s" if isinstance(default, float) else f"default: {default}"] if default else []
    text = f"{field.description} ({'; '.join([*known, PREFIX + name.upper()])})"
    return text.replace("%", "%%")


def _metavar(name: str, field: FieldInfo) -> str:
    words = _choices(field.annotation)
    if words:
        return "|".join(words)
    if field.annotation is float:
        return "TIME"
    return "N" if field.annotation is int else name.rpartition("_")[2].upper()


def _choices(annotation: object) -> list[str]:
    if get_origin(annotation) is Literal:
        return [*get_args(annotation)]
    return [word for part in get_args(annotation) for word in _choices(part)]


SERVE = Command(_arguments, _serve)
