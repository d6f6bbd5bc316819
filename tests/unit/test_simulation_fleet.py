"""Several servers: one is one, requests go where the balancer says, and a better balancer shortens the tail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtest.simulation.engine import Engine
from loadtest.simulation.fleet import Balancer, Fleet
from loadtest.simulation.tally import Tally
from server.scheduling.policy import WindowPolicy
from server.scheduling.queue import BatchQueue, LevelPolicy
from tests.unit.test_simulation_points import SCENARIO, point


def p99(servers: int, balancer: Balancer, load: float = 0.95) -> float:
    scenario = replace(SCENARIO, servers=servers, balancer=balancer, seconds=0.5)
    return point(scenario, "window:0", load).tally.latency(0.99)


@pytest.mark.parametrize("balancer", Balancer)
def test_one_server_is_the_same_behind_any_balancer(balancer: Balancer) -> None:
    alone, behind = (
        point(replace(SCENARIO, balancer=which), "window:1", 0.7).tally for which in (Balancer.ROUND_ROBIN, balancer)
    )
    assert (alone.answered, alone.latency_sum, alone.busy) == (behind.answered, behind.latency_sum, behind.busy)


@pytest.mark.parametrize("balancer", Balancer)
def test_every_request_is_somewhere(balancer: Balancer) -> None:
    scenario = replace(SCENARIO, servers=3, lanes=2, rows=2, seconds=1.0, balancer=balancer)
    tally = point(scenario, "window:0,max_queued_rows=16", 1.3).tally
    assert tally.refused.total() > 0
    assert tally.arrived == tally.answered + tally.refused.total() + tally.expired + tally.present_at_end
    assert tally.answered * 2 == tally.batches @ np.arange(17)


def test_the_capacity_is_that_of_all_servers() -> None:
    assert replace(SCENARIO, servers=3, lanes=2).capacity == pytest.approx(6 * SCENARIO.capacity)


def fleet(balancer: Balancer, servers: int) -> tuple[Fleet, list[Engine]]:
    """Servers that run one row at a time, each for a second."""
    tally = Tally(10.0, 1)
    engines = [
        Engine(
            BatchQueue(WindowPolicy(1, (LevelPolicy(max_queued_rows=100),), max_delay=0.0, preferred_rows=())),
            1,
            tally,
            typical=[0.0, 1.0],
            spread=[0.0, 0.0],
            normals=iter([0.0] * 100),
        )
        for _ in range(servers)
    ]
    return Fleet(engines, balancer, np.random.default_rng(1)), engines


def test_round_robin_takes_turns_from_block_to_block() -> None:
    several, engines = fleet(Balancer.ROUND_ROBIN, 3)
    several.run([0.0, 0.1], None, 0.15)
    several.run([0.2, 0.3, 0.4], None, 0.5)
    assert [engine.present for engine in engines] == [2, 2, 1]


def test_least_goes_where_the_fewest_are() -> None:
    several, engines = fleet(Balancer.LEAST, 2)
    several.run([0.0, 0.1, 0.2], None, 0.3)
    assert [engine.present for engine in engines] == [2, 1]
    several.run([1.15], None, 1.2)  # the second server has become idle at 1.1, and the first is busy until 2.0
    assert [engine.present for engine in engines] == [1, 1]
    assert several.tally.arrived == 4


def test_the_more_a_balancer_knows_the_shorter_the_tail() -> None:
    assert p99(4, Balancer.LEAST) < p99(4, Balancer.ROUND_ROBIN) < p99(4, Balancer.RANDOM)
