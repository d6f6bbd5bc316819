"""Every state that a small system can reach, each visited once, shortest way first.

A state's name is its pickle: two systems of the same pickle are the same in every field, so that leaving out the second
loses nothing; equal systems whose pickles differ cost time and nothing else. Where `pickle` can bring a system back,
the pickle is its snapshot too. Where it cannot, as with coroutines in it, the way to a state is gone again.
"""

from __future__ import annotations

import asyncio
import copyreg
import io
import pickle
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from types import AsyncGeneratorType, CoroutineType, FrameType, FunctionType
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

Move = tuple[Hashable, ...]
"""What happens next: its name and its arguments."""


class System(Protocol):
    """Something to which one of several things may happen next. The tests' own checks are in `do` and `settle`."""

    def moves(self) -> Sequence[Move]:
        """All that may happen now."""
        ...

    def do(self, move: Move) -> None:
        """Let it happen. Raises `AssertionError` where what must hold does not."""
        ...

    def settle(self) -> None:
        """Let whatever is under way come to its end, and nothing new begin. Raises `AssertionError` as `do`."""
        ...


@dataclass
class Explored:
    """What was seen."""

    states: int = 0
    moves: int = 0
    longest: int = 0
    """Moves to the state that is farthest from the first."""


class Counterexample(AssertionError):
    """A way to a state in which something does not hold."""

    def __init__(self, way: Sequence[Move], what: Exception) -> None:
        steps = "\n".join(f"  {number}. {' '.join(map(str, move))}" for number, move in enumerate(way, 1))
        super().__init__(f"{type(what).__name__}: {what}\nafter\n{steps}")
        self.way = way


H = TypeVar("H")


class Memory(Protocol[H]):
    """How states are remembered, and brought back: by a handle."""

    def first(self) -> H: ...

    def next(self, before: H, move: Move, system: System) -> H:
        """The handle of a system after a move."""
        ...

    def restored(self, handle: H) -> AbstractContextManager[System]:
        """A system in that state, which may be changed."""
        ...

    def name(self, handle: H) -> bytes:
        """Equal for states that are the same in every field."""
        ...


class Pickled(Memory[bytes]):
    """A system that `pickle` can bring back."""

    def __init__(self, system: System) -> None:
        self._first = _frozen(system, _Freezer)

    def first(self) -> bytes:
        return self._first

    def next(self, before: bytes, move: Move, system: System) -> bytes:
        return _frozen(system, _Freezer)

    @contextmanager
    def restored(self, handle: bytes) -> Iterator[System]:
        yield pickle.loads(handle)

    def name(self, handle: bytes) -> bytes:
        return blake2b(handle, digest_size=16).digest()


class Replayed(Memory[tuple[bytes, tuple[Move, ...]]]):
    """A system that is made and led to its state anew each time. It must do the same every time."""

    def __init__(self, make: Callable[[], AbstractContextManager[System]]) -> None:
        self._make = make

    def first(self) -> tuple[bytes, tuple[Move, ...]]:
        with self._make() as system:
            return _digest(system), ()

    def next(
        self, before: tuple[bytes, tuple[Move, ...]], move: Move, system: System
    ) -> tuple[bytes, tuple[Move, ...]]:
        return _digest(system), (*before[1], move)

    @contextmanager
    def restored(self, handle: tuple[bytes, tuple[Move, ...]]) -> Iterator[System]:
        with self._make() as system:
            for move in handle[1]:
                system.do(move)
            yield system

    def name(self, handle: tuple[bytes, tuple[Move, ...]]) -> bytes:
        return handle[0]


def explore(memory: Memory[H], most_states: int) -> Explored:
    """Visit every state that a system can reach; from each, let it settle too.

    Raises `Counterexample` with a shortest way to what does not hold, and `RuntimeError` where there are more states
    than `most_states`: an exploration that is cut short proves nothing.
    """
    seen = Explored()
    first = memory.first()
    tree = _Tree(memory, first)
    frontier = [first]
    while frontier:
        following: list[H] = []
        for state in frontier:
            seen.states += 1
            with memory.restored(state) as system:
                moves = system.moves()
                tree.attempt(state, ("settle",), system.settle)
            for move in moves:
                seen.moves += 1
                with memory.restored(state) as system:
                    tree.attempt(state, move, partial(system.do, move))
                    reached = memory.next(state, move, system)
                if tree.grows(state, move, reached):
                    following.append(reached)
                if len(tree.parents) > most_states:
                    raise RuntimeError(f"more than {most_states} states: make the system smaller")
        seen.longest += bool(following)
        frontier = following
    return seen


class _Tree(Generic[H]):
    """A shortest way to every state that was reached."""

    def __init__(self, memory: Memory[H], first: H) -> None:
        self.memory = memory
        self.parents: dict[bytes, tuple[bytes, Move] | None] = {memory.name(first): None}

    def grows(self, before: H, move: Move, reached: H) -> bool:
        """Whether this state is new."""
        name = self.memory.name(reached)
        if name in self.parents:
            return False
        self.parents[name] = self.memory.name(before), move
        return True

    def attempt(self, state: H, move: Move, action: Callable[[], None]) -> None:
        """Raises `Counterexample` where the action raises."""
        try:
            action()
        except Exception as error:
            raise Counterexample([*self._way(state), move], error) from error

    def _way(self, state: H) -> list[Move]:
        way: list[Move] = []
        step = self.parents[self.memory.name(state)]
        while step is not None:
            way.append(step[1])
            step = self.parents[step[0]]
        return way[::-1]


def _reduced(weak: WeakValueDictionary[Any, Any]) -> tuple[object, ...]:
    return WeakValueDictionary, (dict(weak),)


class _Freezer(pickle.Pickler):
    """Pickles dictionaries of weak references too."""

    dispatch_table = copyreg.dispatch_table | {WeakValueDictionary: _reduced}


_OPAQUE = {"Condition", "FutureIter", "async_generator_asend", "async_generator_athrow", "lock"}
"""Names of types of which it does not matter what is in them: it is known from elsewhere, or never changes."""


class _Describer(_Freezer):
    """Pickles what runs as where it stands. Nothing can be brought back from that."""

    def reducer_override(self, thing: Any) -> Any:
        if asyncio.isfuture(thing):
            return _described, ("future", thing.done(), thing.cancelled(), getattr(thing, "_coro", None))
        if isinstance(thing, CoroutineType):
            return _described, (thing.__qualname__, _standing(thing.cr_frame), thing.cr_await)
        if isinstance(thing, AsyncGeneratorType):
            return _described, (thing.__qualname__, _standing(thing.ag_frame), thing.ag_await)
        if isinstance(thing, FunctionType) and "<" in thing.__qualname__:
            return _described, (thing.__qualname__, [cell.cell_contents for cell in thing.__closure__ or ()])
        if isinstance(thing, Executor) or type(thing).__name__ in _OPAQUE:
            return _described, (type(thing).__name__,)
        return NotImplemented


def _standing(frame: FrameType | None) -> tuple[int, dict[str, Any]] | None:
    """Where the code of a frame stands, and what it knows."""
    return None if frame is None else (frame.f_lasti, frame.f_locals)


def _described(*words: object) -> object:
    return words


def _frozen(system: System, freezer: type[pickle.Pickler]) -> bytes:
    buffer = io.BytesIO()
    freezer(buffer, pickle.HIGHEST_PROTOCOL).dump(system)
    return buffer.getvalue()


def _digest(system: System) -> bytes:
    return blake2b(_frozen(system, _Describer), digest_size=16).digest()
