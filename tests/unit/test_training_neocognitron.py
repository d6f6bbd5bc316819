"""The neocognitron finds its features alone, and forgives where they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from training import nets
from training.nets import neocognitron
from training.nets.neocognitron import CCells, Neocognitron, SCells, field, winners

NUMERALS = """
..####..  ....#...  .#####..  #######.  .....#..
.#....#.  ...##...  #.....#.  .....#..  ....##..
#......#  ..#.#...  ......#.  ....#...  ...#.#..
#......#  ....#...  .....#..  ...###..  ..#..#..
#......#  ....#...  ...##...  ......#.  .#...#..
#......#  ....#...  ..#.....  ......#.  ########
.#....#.  ....#...  .#......  #.....#.  .....#..
..####..  ..#####.  #######.  .#####..  .....#..
"""
"""0 to 4, as the paper's experiment had them, drawn anew."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Operations this small take a hundred times as long on two threads of a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pictures(down: int = 0, right: int = 0) -> Tensor:
    """The five numerals on 16×16, off the middle by so much. (5, 1, 16, 16)."""
    rows = [line.split() for line in NUMERALS.split("\n") if line]
    x = torch.zeros(5, 1, 16, 16)
    for numeral in range(5):
        ink = torch.tensor([[float(c == "#") for c in row[numeral]] for row in rows])
        x[numeral, 0, 4 + down : 12 + down, 4 + right : 12 + right] = ink
    return x


@pytest.fixture(scope="module")
def taught(one_thread: None) -> Neocognitron:
    torch.manual_seed(0)
    network = neocognitron.build("neocognitron")
    network.learn(torch.cat([pictures(*off) for off in ((0, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))]), rounds=20)
    return network.eval()


def test_layers_have_the_papers_numbers_of_cells() -> None:
    with torch.device("meta"):
        network, x = nets.build("neocognitron"), torch.zeros(1, 1, 16, 16)
    shapes = []
    for layer in network.layers:
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(24, 16, 16), (24, 10, 10), (24, 8, 8), (24, 6, 6), (24, 2, 2), (24, 1, 1), (24,)]


def test_without_a_teacher_each_numeral_finds_a_cell_of_its_own(taught: Neocognitron) -> None:
    assert len(set(taught(pictures()).argmax(dim=1).tolist())) == 5


@pytest.mark.parametrize("off", [(1, 0), (0, 1), (2, 0)])
def test_a_numeral_that_was_not_seen_there_excites_the_same_cell(taught: Neocognitron, off: tuple[int, int]) -> None:
    assert torch.equal(taught(pictures(*off)).argmax(dim=1), taught(pictures()).argmax(dim=1))


def test_answers_are_between_0_and_1(taught: Neocognitron) -> None:
    scores = taught(torch.cat([pictures(), torch.rand(5, 1, 16, 16)]))
    assert (scores >= 0).all() and (scores < 1).all() and scores[:5].max() > 0.3


def test_a_network_that_has_seen_nothing_is_next_to_silent() -> None:
    torch.manual_seed(0)
    assert neocognitron.build("neocognitron")(pictures()).max() < 1e-3


def test_an_s_cell_answers_to_what_it_has_learned_and_not_to_what_is_unlike() -> None:
    torch.manual_seed(0)
    cells = SCells(1, 1, neocognitron.NETWORKS["neocognitron"][0])
    bar = torch.zeros(1, 1, 16, 16)
    bar[:, :, :, 8] = 1
    for _ in range(20):
        cells.learn(bar)
    assert cells(bar).max() > 0.5
    assert cells(bar.transpose(2, 3)).max() == 0


def test_a_learned_cell_answers_above_the_papers_cosine() -> None:
    row = neocognitron.NETWORKS["neocognitron"][0]
    cells = SCells(1, 1, row)
    cells.a.zero_()
    seen = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    cells.a[0, 0] = cells.c[0, 0] * seen * 1000
    cells.b[0] = cells.inhibition(seen[None, None])[0, 0, 2, 2] * 500
    other = torch.rand(5, 5, generator=torch.Generator().manual_seed(1))
    weight = cells.c[0, 0]
    for part in torch.linspace(0, 1, 21):
        mixed = part * seen + (1 - part) * other
        cosine = (weight * seen * mixed).sum() / ((weight * seen**2).sum() * (weight * mixed**2).sum()).sqrt()
        assert (cells(mixed[None, None])[0, 0, 2, 2] > 0) == (cosine > row.selectivity / (1 + row.selectivity))


def test_c_cells_forgive_a_step_and_planes_hold_each_other_down() -> None:
    cells = CCells(kernel=5, padding=1)
    u = torch.zeros(1, 2, 8, 8)
    u[0, 0, 3, 3] = 1
    moved = u.roll(1, dims=3)
    assert cells(u)[0, 0, 2, 2] > 0 and cells(moved)[0, 0, 2, 2] > 0
    assert not cells(u)[0, 1].any()
    assert not cells(u[:, :1].expand(-1, 2, -1, -1)).any()


def test_winners_are_the_strongest_one_a_plane_and_not_in_each_others_fields() -> None:
    responses = torch.zeros(4, 9, 9)
    responses[0, 1, 1] = 5
    responses[0, 8, 8] = 4  # plane 0 has won already
    responses[1, 3, 3] = 3  # in the first winner's field
    responses[2, 1, 4] = 2
    responses[3, 8, 8] = 1
    assert winners(responses) == [(0, 10), (2, 13), (3, 80)]
    assert winners(torch.zeros(4, 9, 9)) == []


def test_a_field_adds_up_to_1_and_its_middle_counts_most() -> None:
    for kernel in (2, 5):
        assert torch.isclose(field(kernel).sum(), torch.tensor(1.0))
    assert field(5).argmax() == 12
