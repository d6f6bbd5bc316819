"""What --cache-config may say, and what is wrong with anything else."""

from __future__ import annotations

import pytest

from server.cache_config import CacheConfig, CacheConfigInvalid, LocalCache, RedisCache, parse_cache_config

REDIS = "redis,host=h,port=7"


def parsed(*texts: str, byte_size: int | None = None, **environment: str) -> CacheConfig | None:
    return parse_cache_config(texts, byte_size, environment)


def test_without_a_flag_there_is_no_cache() -> None:
    assert parsed() is None
    assert parsed(byte_size=0) is None


def test_a_cache_in_this_process() -> None:
    assert parsed("local,size=4096") == parsed(byte_size=4096) == LocalCache(4096)


def test_settings_come_in_one_flag_or_in_several() -> None:
    assert parsed(REDIS) == parsed("redis,host=h", "redis,port=7") == RedisCache("h", 7)


def test_all_settings_of_redis() -> None:
    more = "user=u,db=2,tls_enabled=true,cacert=a,cert=b,key=c,wait_timeout=50,ttl=60,password=p,w=d"
    assert parsed(f"{REDIS},{more}") == RedisCache("h", 7, "u", "p,w=d", 2, True, "a", "b", "c", 50, 60)


def test_credentials_come_from_the_environment_unless_the_flag_has_them() -> None:
    environment = {"TRITONCACHE_REDIS_USERNAME": "u", "TRITONCACHE_REDIS_PASSWORD": "p"}
    assert parsed(REDIS, **environment) == RedisCache("h", 7, "u", "p")
    assert parsed(f"{REDIS},password=q", **environment) == RedisCache("h", 7, "u", "q")


def test_a_password_does_not_print() -> None:
    assert "secret" not in repr(parsed(f"{REDIS},password=secret"))


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (["local"], "its form is CACHE,SETTING=VALUE"),
        (["local,"], "must specify size"),
        (["local,size"], "its form is CACHE,SETTING=VALUE"),
        (["local,size="], "its form is CACHE,SETTING=VALUE"),
        (["local,size=0"], "must be an integer from 1"),
        (["local,size=-1"], "must be an integer from 1"),
        (["local,size=1MB"], "must be an integer from 1"),
        (["local,host=h"], "its settings are size"),
        (["memcached,host=h"], "the caches are local and redis"),
        (["local,size=1", REDIS], "multiple cache configurations: local, redis"),
        (["redis,host=h"], "must at a minimum specify host and port"),
        (["redis,port=7"], "must at a minimum specify host and port"),
        (["redis,host=h,port=70000"], "must be an integer from 1 to 65535"),
        ([f"{REDIS},pool_size=4"], "redis,pool_size: its settings are host"),
        ([f"{REDIS},tls_enabled=maybe"], "must be true or false"),
        ([f"{REDIS},cacert=a"], "need tls_enabled=true"),
        ([f"{REDIS},tls_enabled=true,cert=a"], "cert and key go together"),
        ([f"{REDIS},wait_timeout=0"], "must be an integer from 1 to 60000"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(texts: list[str], what: str) -> None:
    with pytest.raises(CacheConfigInvalid, match=what):
        parsed(*texts)


def test_both_ways_to_say_it_are_one_too_many() -> None:
    with pytest.raises(CacheConfigInvalid, match="incompatible flags"):
        parsed("local,size=1", byte_size=1)


def test_no_message_quotes_a_password() -> None:
    with pytest.raises(CacheConfigInvalid) as caught:
        parsed("redis,host=h,password=secret")
    assert "secret" not in str(caught.value)
