"""A store on a Redis server. Its own thread speaks to Redis; the event loop only hands over and takes back.

Rules of this file:
- A lookup is answered within `timeout_ms`, by Redis or as a miss. Lookups that wait together go in one MGET.
- While Redis is gone nobody waits for it: lookups are misses at once, until it is tried again, after 0.1 … 10 s.
- What cannot be kept now is not kept: at most so many lookups and bytes wait for the thread.
- What Redis returns is decoded on the thread, and is a miss where it is no entry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from server.cache import wire
from server.cache.entries import Entry, size_of
from server.cache.store import Found, StoreCounts
from server.cache_config import RedisCache

log = logging.getLogger(__name__)

KEY_PREFIX = b"convoy:1:"
"""The format of keys and entries; another one gets another number."""

MAX_LOOKUPS_AT_ONCE = 16
MAX_WRITES_AT_ONCE = 64
MAX_WRITE_BYTES = 1 << 20
"""In one go; one entry may be larger."""
MAX_WAITING_LOOKUPS = 1024
MAX_WAITING_BYTES = 64 << 20
"""Of entries that wait to be written."""

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 10.0


class RedisStore:
    """See `store.Store`."""

    is_shared = True

    def __init__(self, config: RedisCache, loop: asyncio.AbstractEventLoop) -> None:
        """The thread starts now, and connects."""
        self._config = config
        self._loop = loop
        self._counts = StoreCounts()
        self._timeout = config.timeout_ms / 1000
        self._changed = threading.Condition()
        self._lookups: deque[tuple[bytes, float]] = deque()  # keys, and when they are of no use any more
        self._writes: deque[tuple[bytes, bytes]] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._found: dict[bytes, tuple[Found, asyncio.TimerHandle]] = {}
        self._is_gone = True
        self._looking: list[bytes] = []
        self._writing: list[tuple[bytes, bytes]] = []
        self._warned: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="redis", daemon=True)
        self._thread.start()

    def get(self, key: bytes) -> Entry | None:
        return None

    def fetch(self, key: bytes, found: Found) -> bool:
        if self._is_gone or self._closed or len(self._found) >= MAX_WAITING_LOOKUPS:
            self._counts.failed_lookups += 1
            return False
        timer = self._loop.call_later(self._timeout, self._give_up, key)
        self._found[key] = found, timer
        with self._changed:
            self._lookups.append((key, time.monotonic() + self._timeout))
            self._changed.notify()
        return True

    def put(self, key: bytes, entry: Entry) -> None:
        if self._is_gone or self._closed or self._waiting_bytes + size_of(entry) > MAX_WAITING_BYTES:
            self._counts.not_stored += 1
            return
        data = wire.encode(entry)
        with self._changed:
            self._writes.append((key, data))
            self._waiting_bytes += len(data)
            self._changed.notify()

    def counts(self) -> StoreCounts:
        return replace(self._counts, is_connected=not self._is_gone)

    def close(self) -> None:
        self._closed = True
        with self._changed:
            self._changed.notify()
        for key in tuple(self._found):
            self._give_up(key)
        self._thread.join(self._timeout + 1)

    def _give_up(self, key: bytes) -> None:
        self._counts.failed_lookups += 1
        self._tell(key, None)

    def _tell(self, key: bytes, entry: Entry | None) -> None:
        waiting = self._found.pop(key, None)
        if waiting is None:
            return  # too late: it was a miss
        found, timer = waiting
        timer.cancel()
        found(entry)

    def _tell_all(self, entries: Sequence[tuple[bytes, Entry | None]]) -> None:
        for key, entry in entries:
            self._tell(key, entry)

    def _note_gone(self, keys: Sequence[bytes], lost_writes: int) -> None:
        self._is_gone = True
        self._counts.not_stored += lost_writes
        for key in keys:
            if key in self._found:
                self._give_up(key)

    def _note_back(self) -> None:
        self._is_gone = False

    def _note_not_stored(self, count: int) -> None:
        self._counts.not_stored += count

    # From here on: the thread.

    def _work(self) -> None:
        client = _client(self._config)
        place = f"{self._config.host}:{self._config.port}"
        delay, is_told = FIRST_RETRY_SECONDS, False
        while not self._closed:
            connected_at = time.monotonic()
            try:
                client.ping()
                log.info("the response cache is connected to Redis at %s", place)
                is_told = False
                self._post(self._note_back)
                self._serve(client)
            except (redis.RedisError, OSError) as error:
                self._drop()
                if not is_told:
                    log.warning("Redis at %s: %s; requests are served without a cache until it is there", place, error)
                is_told = True
            if time.monotonic() - connected_at > LAST_RETRY_SECONDS:
                delay = FIRST_RETRY_SECONDS
            with self._changed:
                self._changed.wait_for(lambda: self._closed, delay)
            delay = min(2 * delay, LAST_RETRY_SECONDS)
        client.close()

    def _serve(self, client: redis.Redis) -> None:
        """Do what is asked until the store is closed. Raises what Redis raises, with what is not done in hand."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._lookups or self._writes)
                if self._closed:
                    return
                self._take()
            if self._looking:
                values: Sequence[Any] = client.mget([KEY_PREFIX + key for key in self._looking])
                found = [(key, self._decoded(value)) for key, value in zip(self._looking, values, strict=True)]
                self._looking = []
                self._post(self._tell_all, found)
            if self._writing:
                self._write(client)

    def _take(self) -> None:
        """Take in hand what waits, as much as goes in one go. What nobody waits for any more is left out."""
        now = time.monotonic()
        while self._lookups and len(self._looking) < MAX_LOOKUPS_AT_ONCE:
            key, until = self._lookups.popleft()
            if now < until:
                self._looking.append(key)
        size = 0
        while self._writes and len(self._writing) < MAX_WRITES_AT_ONCE and size < MAX_WRITE_BYTES:
            self._writing.append(self._writes.popleft())
            size += len(self._writing[-1][1])
        self._waiting_bytes -= size

    def _write(self, client: redis.Redis) -> None:
        pipeline = client.pipeline(transaction=False)
        for key, data in self._writing:
            pipeline.set(KEY_PREFIX + key, data, ex=self._config.ttl_seconds or None)
        refusals = [each for each in pipeline.execute(raise_on_error=False) if isinstance(each, Exception)]
        self._writing = []
        if refusals:
            self._warn_once("Redis keeps no answers", refusals[0])
            self._post(self._note_not_stored, len(refusals))

    def _decoded(self, data: bytes | None) -> Entry | None:
        try:
            return None if data is None else wire.decode(data)
        except ValueError as error:
            self._warn_once("Redis has what is no answer of this server", error)
            return None

    def _drop(self) -> None:
        """Nobody is there: forget what is in hand and what waits."""
        with self._changed:
            keys = [*self._looking, *(key for key, _ in self._lookups)]
            lost = len(self._writing) + len(self._writes)
            self._lookups.clear()
            self._writes.clear()
            self._waiting_bytes = 0
        self._looking, self._writing = [], []
        self._post(self._note_gone, keys, lost)

    def _warn_once(self, what: str, error: Exception) -> None:
        if what not in self._warned:
            self._warned.add(what)
            log.warning("%s: %s (told once)", what, error)

    def _post(self, function: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there any more
            self._loop.call_soon_threadsafe(function, *arguments)


def _client(config: RedisCache) -> redis.Redis:
    return redis.Redis(
        host=config.host,
        port=config.port,
        db=config.db,
        username=config.username,
        password=config.password,
        ssl=config.tls,
        ssl_ca_certs=config.ca_file,
        ssl_certfile=config.cert_file,
        ssl_keyfile=config.key_file,
        socket_timeout=config.timeout_ms / 1000,
        socket_connect_timeout=max(1.0, config.timeout_ms / 1000),
        retry=Retry(NoBackoff(), 0),
        client_name="convoy",
    )
