"""What a server says that it is: name, version, models, how much they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fairway.backends.openai.address import Address
from fairway.backends.openai.transport import Link, Refused
from fairway.errors import ModelError

HOSTED = ("openai", "openrouter", "together", "fireworks", "deepseek")
"""Servers that list what they sell, and say nothing of a single model."""
IDENTITY = ("revision", "weights", "adapter", "dtype", "quant", "cache", "tok")
"""Fields of a signature that say which weights a number is of."""
OWNERS = {
    "vllm": "vllm", "llamacpp": "llama-server", "sglang": "sglang", "fairway": "fairway",
    "organization_owner": "lmstudio", "library": "ollama",
}  # fmt: skip
"""What ``owned_by`` of ``/v1/models`` says of a server."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server, and the model that is asked for there.

    Attributes:
        name: of `fairway.backends.openai.address.PRESETS`; ``unknown`` where it was not found out.
        version: as it tells; empty where it does not.
        model: the model's name there; empty = it has none.
        positions: tokens that the model reads, where it is told.
        vocabulary: tokens that the model knows, where it is told.
        told: what the server's list of models holds of this one.
        identity: fields of the signature that the server tells: weights, dtype, tok, and others.
    """

    name: str
    version: str = ""
    model: str = ""
    positions: int | None = None
    vocabulary: int | None = None
    told: Mapping[str, Any] | None = None
    identity: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """Name and version, for the signature."""
        return f"{self.name} {self.version}".strip()


def find(link: Link, address: Address) -> Server:
    """Ask what a server is, by the few paths that tell it.

    Raises:
        ModelError: when it cannot be reached, or has not the model, or several and none is named.
    """
    models = _models(link)
    name = address.server or _name(link, models)
    model, told = _model(address, models, name)
    server = Server(name, "", model, _count(told, "max_model_len"), None, told)
    return _DETAILS[name](link, server) if name in _DETAILS else server


def _models(link: Link) -> list[Mapping[str, Any]]:
    """List the models; none where the server has no such list."""
    found = _get(link, "/v1/models")
    data = found.get("data") if isinstance(found, Mapping) else None
    listed = data if isinstance(data, list) else []
    return [
        one for one in listed if isinstance(one, Mapping) and isinstance(one.get("id"), str)
    ]  # fmt: skip


def _name(link: Link, models: list[Mapping[str, Any]]) -> str:
    for one in models:
        owner = OWNERS.get(str(one.get("owned_by")))
        if isinstance(one.get("fairway"), Mapping):
            return "fairway"
        if owner is not None:
            return owner
    signs: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
        ("/openapi.json", "llama-cpp-python", lambda d: "llama.cpp Python" in _title(d)),
        ("/props", "llama-server", lambda d: "default_generation_settings" in d),
        ("/get_model_info", "sglang", lambda d: "model_path" in d),
        ("/info", "tgi", lambda d: "model_id" in d),
        ("/api/version", "ollama", lambda d: "version" in d),
    )
    for path, name, sign in signs:
        data = _get(link, path)
        if isinstance(data, Mapping) and sign(data):
            return name
    return "unknown"


def _title(data: Mapping[str, Any]) -> str:
    info = data.get("info")
    return str(info.get("title")) if isinstance(info, Mapping) else ""


def _model(
    address: Address, models: list[Mapping[str, Any]], server: str
) -> tuple[str, Mapping[str, Any]]:
    """Find the model that is meant among those that are listed.

    Raises:
        ModelError: when it is not there, or several are and none is named.
    """
    names = [str(one["id"]) for one in models]
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    if not address.model:
        if len(models) == 1:
            return names[0], models[0]
        if models:
            raise ModelError(
                f"{address.host} has {len(models)} models; name one, as openai:MODEL@URL: {listed}."
            )
        return "", {}
    for one in models:
        if one["id"] == address.model:
            return address.model, one
    if models and server not in HOSTED:
        raise ModelError(
            f"{address.host} has no model {address.model!r}; it has: {listed}. With "
            "openai:URL, without a name, its only one is taken."
        )
    return address.model, {}


def _vllm(link: Link, server: Server) -> Server:
    return replace(server, version=_said(_get(link, "/version"), "version"))


def _llama_server(link: Link, server: Server) -> Server:
    props = _get(link, "/props")
    settings = props.get("default_generation_settings") if isinstance(props, Mapping) else None
    meta = (server.told or {}).get("meta")
    return replace(
        server,
        version=_said(props, "build_info"),
        positions=_count(settings, "n_ctx"),
        vocabulary=_count(meta, "n_vocab"),
    )


def _sglang(link: Link, server: Server) -> Server:
    info = _get(link, "/get_server_info")
    model = server.model or _said(_get(link, "/get_model_info"), "model_path")
    positions = server.positions or _count(info, "max_context_length")
    return replace(server, version=_said(info, "version"), model=model, positions=positions)


def _tgi(link: Link, server: Server) -> Server:
    info = _get(link, "/info")
    return replace(
        server,
        version=_said(info, "version"),
        model=server.model or _said(info, "model_id"),
        positions=_count(info, "max_total_tokens"),
    )


def _ollama(link: Link, server: Server) -> Server:
    return replace(server, version=_said(_get(link, "/api/version"), "version"))


def _llama_cpp_python(link: Link, server: Server) -> Server:
    info = _get(link, "/openapi.json")
    held = info.get("info") if isinstance(info, Mapping) else None
    return replace(server, version=_said(held, "version"))


def _fairway(link: Link, server: Server) -> Server:
    from fairway.errors import InputError
    from fairway.signature import parse

    held = (server.told or {}).get("fairway")
    try:
        line = parse(_said(held, "signature"))
    except InputError:
        return server
    length = line.get("length") or ""
    positions = int(length) if length.isdecimal() else server.positions
    identity = {key: value for key, value in line if key in IDENTITY}
    version = line.get("version") or ""
    return replace(server, version=version, positions=positions, identity=identity)


_DETAILS: Mapping[str, Callable[[Link, Server], Server]] = {
    "vllm": _vllm, "llama-server": _llama_server, "sglang": _sglang, "tgi": _tgi,
    "ollama": _ollama, "llama-cpp-python": _llama_cpp_python, "fairway": _fairway,
}  # fmt: skip


def _get(link: Link, path: str) -> Any:
    """Ask for a path that may not be there.

    Raises:
        ModelError: when nobody answers, or asks for a key.
    """
    try:
        return link.get(path).data
    except Refused as problem:
        if problem.status in (401, 403):
            raise
        return {}


def _said(data: Any, key: str) -> str:
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, str) else ""


def _count(data: Any, key: str) -> int | None:
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if type(value) is int and value > 0 else None
