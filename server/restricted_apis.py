"""Parts of the protocol that only callers with a secret may use: categories, and the secret of each, as in Triton."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class ApiCategory(StrEnum):
    """Parts of the protocol that are restricted together."""

    HEALTH = "health"
    METADATA = "metadata"
    INFERENCE = "inference"
    SHARED_MEMORY = "shared-memory"
    MODEL_CONFIG = "model-config"
    MODEL_REPOSITORY = "model-repository"
    STATISTICS = "statistics"
    TRACE = "trace"
    LOGGING = "logging"


@dataclass(frozen=True, slots=True)
class Secret:
    """What a caller's headers must have. It is not printed."""

    key: str
    value: str = field(repr=False)


Restrictions = Mapping[ApiCategory, Secret]

GRPC_HEADER_PREFIX = "triton-grpc-protocol-"
"""Of gRPC's metadata key; over HTTP the key is the header."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")  # what arrives as it was sent, in gRPC and in HTTP


def parse(texts: Sequence[str]) -> Restrictions:
    """Of flags `CATEGORY,CATEGORY:KEY=VALUE`. Raises `ValueError`, without the value: it is a secret."""
    restrictions: dict[ApiCategory, Secret] = {}
    for text in texts:
        names, _, rest = text.partition(":")
        key, _, value = rest.partition("=")
        if not (names and _TOKEN.fullmatch(key) and _VALUE.fullmatch(value)):
            raise ValueError(
                f"must be APIS:KEY=VALUE, KEY a header's name and VALUE printable ASCII, not '{_beginning(text)}…'"
            )
        if key.lower().endswith("-bin"):
            raise ValueError(f"the key '{key}' ends in -bin, which is for binary metadata")
        for name in names.split(","):
            if name not in list(ApiCategory):
                raise ValueError(f"unknown restricted API '{_beginning(name)}'; there are {', '.join(ApiCategory)}")
            category = ApiCategory(name)
            if category in restrictions:
                raise ValueError(f"restricted API '{name}' can not be specified in multiple config groups")
            restrictions[category] = Secret(key, value)
    return restrictions


def _beginning(text: str) -> str:
    """As much of a broken flag as cannot be its secret."""
    return re.split("[:=]", text, maxsplit=1)[0]
