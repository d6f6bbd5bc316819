"""What `--cache-config` may say: where the answers of models with a response cache are kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PASSWORD_VARIABLE = "TRITONCACHE_REDIS_PASSWORD"  # noqa: S105 -- its name
USERNAME_VARIABLE = "TRITONCACHE_REDIS_USERNAME"
"""Environment variables, as Triton has them: command lines are no place for passwords."""


@dataclass(frozen=True, slots=True)
class LocalCache:
    """In this process."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class RedisCache:
    """On a Redis server, which other servers may share."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    db: int = 0
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    timeout_ms: int = 100
    """How long a request waits for Redis before it is taken for a miss."""
    ttl_seconds: int = 0
    """After how long Redis forgets an answer; 0: when it wants to (maxmemory-policy)."""

    def __repr__(self) -> str:
        return f"RedisCache({self.host}:{self.port})"  # logs and tracebacks must not show the password


CacheConfig = LocalCache | RedisCache

REDIS_SETTINGS = (
    "host", "port", "user", "password", "db", "tls_enabled", "cacert", "cert", "key", "wait_timeout", "ttl"
)  # fmt: skip


class CacheConfigInvalid(ValueError):
    """A `--cache-config` that cannot be meant. The message quotes it, but for its value."""


def parse_cache_config(
    texts: Sequence[str], byte_size: int | None, environment: Mapping[str, str]
) -> CacheConfig | None:
    """The flags together: `texts` of --cache-config, each CACHE,SETTING=VALUE[,SETTING=VALUE...], and --response-cache-
    byte-size. None: there is no cache. Raises `CacheConfigInvalid`."""
    if byte_size is not None:
        if texts:
            raise CacheConfigInvalid(
                "incompatible flags --cache-config and --response-cache-byte-size; use --cache-config local,size=BYTES"
            )
        return LocalCache(byte_size) if byte_size else None
    settings: dict[str, str] = {}
    caches: dict[str, None] = {}
    for text in texts:
        cache, comma, rest = text.partition(",")
        if not comma:
            raise CacheConfigInvalid(f"--cache-config {cache}: its form is CACHE,SETTING=VALUE")
        caches[cache] = None
        settings |= _settings(cache, rest)
    if len(caches) > 1:
        raise CacheConfigInvalid(f"multiple cache configurations: {', '.join(caches)}; a server has one cache")
    match list(caches):
        case []:
            return None
        case ["local"]:
            return _local(settings)
        case ["redis"]:
            return _redis(settings, environment)
        case [other]:
            raise CacheConfigInvalid(f"--cache-config {other}: the caches are local and redis")
    raise AssertionError


def _settings(cache: str, text: str) -> dict[str, str]:
    """Pairs of a setting and its value. A password may have commas: it goes on to the end."""
    found: dict[str, str] = {}
    while text:
        name, equals, rest = text.partition("=")
        if not equals or not name or not rest:
            raise CacheConfigInvalid(f"--cache-config {cache},{name}: its form is CACHE,SETTING=VALUE")
        if name == "password":
            value, text = rest, ""
        else:
            value, _, text = rest.partition(",")
        found[name] = value
    return found


def _local(settings: Mapping[str, str]) -> LocalCache:
    _only(settings, "local", ("size",))
    if "size" not in settings:
        raise CacheConfigInvalid("--cache-config local: must specify size=BYTES")
    return LocalCache(_integer("local", "size", settings["size"], 1, 1 << 60))


def _redis(settings: Mapping[str, str], environment: Mapping[str, str]) -> RedisCache:
    _only(settings, "redis", REDIS_SETTINGS)
    if "host" not in settings or "port" not in settings:
        raise CacheConfigInvalid("--cache-config redis: must at a minimum specify host and port")
    tls = settings.get("tls_enabled", "false").lower()
    if tls not in ("true", "false"):
        raise CacheConfigInvalid("--cache-config redis,tls_enabled: must be true or false")
    if ("cert" in settings) != ("key" in settings):
        raise CacheConfigInvalid("--cache-config redis: cert and key go together")
    if tls == "false" and {"cacert", "cert", "key"} & settings.keys():
        raise CacheConfigInvalid("--cache-config redis: cacert, cert and key need tls_enabled=true")
    return RedisCache(
        host=settings["host"],
        port=_integer("redis", "port", settings["port"], 1, 65535),
        username=settings.get("user") or environment.get(USERNAME_VARIABLE) or None,
        password=settings.get("password") or environment.get(PASSWORD_VARIABLE) or None,
        db=_integer("redis", "db", settings.get("db", "0"), 0, 1 << 16),
        tls=tls == "true",
        ca_file=settings.get("cacert"),
        cert_file=settings.get("cert"),
        key_file=settings.get("key"),
        timeout_ms=_integer("redis", "wait_timeout", settings.get("wait_timeout", "100"), 1, 60_000),
        ttl_seconds=_integer("redis", "ttl", settings.get("ttl", "0"), 0, 1 << 31),
    )


def _only(settings: Mapping[str, str], cache: str, known: Sequence[str]) -> None:
    for name in settings:
        if name not in known:
            raise CacheConfigInvalid(f"--cache-config {cache},{name}: its settings are {', '.join(known)}")


def _integer(cache: str, name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise CacheConfigInvalid(f"--cache-config {cache},{name}: must be an integer from {least} to {most}")
    return int(text)
