"""Models of one layer against brute force over all their states, and the stack against the network it becomes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.tiny_training import torch_as_before
from training import digits, nets
from training.data import DATA_SETS
from training.files import TrainingError
from training.nets import deep_sigmoid
from training.nets.deep_sigmoid import DeepSigmoid
from training.pretraining import PRETRAINING, Pretraining, pretrain_by_name
from training.pretraining.denoising import DenoisingAutoencoder
from training.pretraining.greedy import fit, pretrain, upward
from training.pretraining.layer import Layer, sample
from training.pretraining.rbm import RBM
from training.pretraining.sparse import SparseAutoencoder, divergence

VISIBLE, HIDDEN = 4, 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def states(units: int) -> Tensor:
    """All of them, (2^units, units)."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=units)))


def tiny_rbm(steps: int = 1) -> RBM:
    """With weights large enough that no unit is nearly independent of the others."""
    rbm = RBM(VISIBLE, HIDDEN, steps)
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return rbm


def energies(rbm: RBM) -> Tensor:
    """Of each visible state (row) with each hidden state (column), unit by unit."""
    table = torch.zeros(2**VISIBLE, 2**HIDDEN)
    for i, v in enumerate(states(VISIBLE)):
        for j, h in enumerate(states(HIDDEN)):
            interaction = sum(h[a] * rbm.weight[a, b] * v[b] for a in range(HIDDEN) for b in range(VISIBLE))
            table[i, j] = -(rbm.visible_bias @ v) - (rbm.hidden_bias @ h) - interaction
    return table.detach()


def products(visible: Tensor, hidden_means: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """<h·v>, <h>, <v> under a distribution over the rows."""
    return {
        "weight": torch.einsum("n,nh,nv->hv", weights, hidden_means, visible),
        "hidden_bias": weights @ hidden_means,
        "visible_bias": weights @ visible,
    }


def gradient(rbm: RBM, data: Tensor) -> dict[str, Tensor]:
    rbm.zero_grad()
    rbm.loss(data).backward()
    return {name: parameter.grad for name, parameter in rbm.named_parameters()}


def close(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float) -> bool:
    return all(torch.allclose(first[name], second[name], rtol=0, atol=tolerance) for name in first)


def test_energy_is_the_sum_over_biases_and_connections() -> None:
    rbm = tiny_rbm()
    visible = states(VISIBLE).repeat_interleave(2**HIDDEN, dim=0)
    hidden = states(HIDDEN).repeat(2**VISIBLE, 1)
    assert torch.allclose(rbm.energy(visible, hidden), energies(rbm).flatten(), atol=1e-5)


def test_free_energy_sums_over_all_hidden_states() -> None:
    rbm = tiny_rbm()
    assert torch.allclose(rbm.free_energy(states(VISIBLE)), -torch.logsumexp(-energies(rbm), dim=1), atol=1e-5)


def test_conditionals_are_those_of_the_joint_distribution() -> None:
    rbm = tiny_rbm()
    joint = (-energies(rbm)).softmax(dim=1)  # p(h | v) by row
    assert torch.allclose(rbm.hidden(states(VISIBLE)), joint @ states(HIDDEN), atol=1e-5)
    joint = (-energies(rbm)).softmax(dim=0)  # p(v | h) by column
    assert torch.allclose(rbm.visible(states(HIDDEN)), joint.T @ states(VISIBLE), atol=1e-5)


def test_the_gradient_of_one_step_is_the_enumerated_one_in_expectation() -> None:
    rbm, start = tiny_rbm(steps=1), torch.tensor([1.0, 0.0, 1.0, 1.0])
    up = (-energies(rbm)).softmax(dim=1)[int("1011", 2)]  # p(h | start), over hidden states
    down = (-energies(rbm)).softmax(dim=0)  # p(v | h)
    after = down @ up  # the distribution of v after one round
    negative = products(states(VISIBLE), rbm.hidden(states(VISIBLE)).detach(), after)
    positive = products(start[None], rbm.hidden(start[None]).detach(), torch.ones(1))
    expected = {name: negative[name] - positive[name] for name in negative}
    assert close(gradient(rbm, start.expand(200_000, -1)), expected, tolerance=0.006)


def test_with_many_steps_it_is_the_gradient_of_the_likelihood() -> None:
    rbm, data = tiny_rbm(steps=60), states(VISIBLE)[[3, 7, 11]].repeat(20_000, 1)
    exact = tiny_rbm()
    exact.load_state_dict(rbm.state_dict())
    (exact.free_energy(data).mean() + torch.logsumexp(-exact.free_energy(states(VISIBLE)), dim=0)).backward()
    expected = {name: parameter.grad for name, parameter in exact.named_parameters()}
    assert close(gradient(rbm, data), expected, tolerance=0.012)


def test_masking_sets_the_given_part_of_the_units_to_zero_and_changes_no_other() -> None:
    visible = torch.rand(100, 1000) + 0.5
    corrupted = DenoisingAutoencoder(1000, 2, corruption=0.3).corrupt(visible)
    assert abs((corrupted == 0).float().mean().item() - 0.3) < 0.01
    assert torch.equal(corrupted[corrupted != 0], visible[corrupted != 0])


def test_denoising_compares_with_the_clean_input() -> None:
    layer, visible = DenoisingAutoencoder(VISIBLE, HIDDEN, corruption=1.0), torch.rand(5, VISIBLE)
    blind = layer.visible(layer.hidden(torch.zeros(5, VISIBLE)))
    by_hand = -(visible * blind.log() + (1 - visible) * (1 - blind).log()).sum(dim=1).mean()
    assert torch.allclose(layer.loss(visible), by_hand)


def test_divergence_has_the_notes_derivative_and_is_zero_where_it_should_be() -> None:
    mean = torch.tensor([0.02, 0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    cost = divergence(0.1, mean)
    cost.sum().backward()
    formula = -0.1 / mean + 0.9 / (1 - mean)
    assert mean.grad is not None and torch.allclose(mean.grad, formula)
    assert cost[1].item() == pytest.approx(0) and (cost[[0, 2, 3]] > 0).all()


def test_the_penalty_makes_hidden_units_silent() -> None:
    inputs = torch.rand(256, 16)
    free, penalised = SparseAutoencoder(16, 8, 0.05, penalty=0.0), SparseAutoencoder(16, 8, 0.05, penalty=1.0)
    schedule = dataclasses.replace(PRETRAINING["sparse"].schedule, epochs=40)
    for layer in (free, penalised):
        fit(layer, lambda: inputs, schedule)
    assert free.hidden(inputs).mean() > 0.3 and abs(penalised.hidden(inputs).mean().item() - 0.05) < 0.02


@pytest.mark.parametrize(
    "make",
    [
        lambda: RBM(VISIBLE, HIDDEN, 1),
        lambda: DenoisingAutoencoder(VISIBLE, HIDDEN, 0.0),
        lambda: SparseAutoencoder(VISIBLE, HIDDEN, 0.1, 0.1),
    ],
    ids=["rbm", "denoising", "sparse"],
)
def test_a_fresh_layer_guesses_one_half(make: Callable[[], Layer]) -> None:
    layer, inputs = make(), states(VISIBLE)
    assert layer.reconstruction_error(inputs) == pytest.approx(0.25, abs=0.01)


def test_samples_have_the_given_means() -> None:
    drawn = sample(torch.tensor([0.0, 0.2, 1.0]).expand(50_000, -1))
    assert torch.allclose(drawn.mean(dim=0), torch.tensor([0.0, 0.2, 1.0]), atol=0.01)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}


def small_digits() -> Tensor:
    """128 of the training digits, as the network reads them."""
    return torch.from_numpy(digits.to_input(digits.training_digits().images[:128]))


def small_network() -> DeepSigmoid:
    return DeepSigmoid(deep_sigmoid.Intensities(), deep_sigmoid.UNITS, (24, 12), 10)


def learn(row: Pretraining, network: DeepSigmoid, images: Tensor, epochs: int = 10) -> list[Layer]:
    return pretrain(network, lambda: images, row.make, dataclasses.replace(row.schedule, epochs=epochs))


@pytest.mark.parametrize("name", PRETRAINING)
def test_the_unrolled_network_computes_the_stacks_mean_field_pass(name: str) -> None:
    network, images = small_network(), small_digits()
    output = {key: tensor.clone() for key, tensor in network.output.state_dict().items()}
    stack = learn(PRETRAINING[name], network, images, epochs=1)
    with torch.no_grad():
        units = network.units(images)
        assert units.shape == (128, deep_sigmoid.UNITS) and units.min() > -1e-5 and units.max() < 1 + 1e-5
        assert torch.allclose(network(images), network.output(upward(stack, units)), atol=1e-5)
    assert all(torch.equal(tensor, output[key]) for key, tensor in network.output.state_dict().items())


@pytest.mark.parametrize("name", PRETRAINING)
def test_reconstruction_error_falls_in_each_layer(name: str) -> None:
    said: list[str] = []
    row = PRETRAINING[name]
    images = small_digits()
    pretrain(small_network(), lambda: images, row.make, dataclasses.replace(row.schedule, epochs=40), said.append)
    errors = [[float(number) for number in line.split(": reconstruction error ")[1].split(" → ")] for line in said]
    assert [line.split(":")[0] for line in said] == ["layer 1 of 2", "layer 2 of 2"]
    assert errors[0][1] < errors[0][0] / 2 and errors[1][1] < errors[1][0] * 0.6


@pytest.mark.parametrize("name", PRETRAINING)
def test_the_same_seed_learns_the_same_bits(name: str) -> None:
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        network = small_network()
        learn(PRETRAINING[name], network, small_digits(), epochs=2)
        weights.append(torch.cat([parameter.flatten() for parameter in network.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_each_epoch_draws_its_inputs_anew() -> None:
    drawn = []

    def draw() -> Tensor:
        drawn.append(torch.rand(8, VISIBLE))
        return drawn[-1]

    fit(RBM(VISIBLE, HIDDEN, 1), draw, dataclasses.replace(PRETRAINING["dbn"].schedule, epochs=3))
    assert len(drawn) == 4  # one to look at before learning


def test_the_networks_idea_of_paper_and_ink_is_the_datas() -> None:
    assert (deep_sigmoid.PAPER, deep_sigmoid.INK) == (digits.BACKGROUND, digits.FOREGROUND)


def test_what_cannot_be_pretrained_is_said() -> None:
    with pytest.raises(TrainingError, match=r"no pre-training named 'gan'. There are: dbn, sdae, sparse"):
        pretrain_by_name("gan", small_network(), small_digits)
    with pytest.raises(TrainingError, match=r"'dbn' needs a network of sigmoid layers .* not Linear"):
        pretrain_by_name("dbn", nn.Linear(2, 2), small_digits)
    with pytest.raises(TrainingError, match=r"'neocognitron' needs a neocognitron .* not DeepSigmoid"):
        pretrain_by_name("neocognitron", small_network(), small_digits)


def test_a_classifiers_cells_organise_themselves_and_its_labelled_layer_waits() -> None:
    torch.manual_seed(0)
    network = nets.build("neocognitron_classifier", 10)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    images = DATA_SETS["digits16"].load().images[:16]
    with torch_as_before():
        torch.set_num_threads(1)  # steps this small wait for a second thread, on a busy machine for minutes
        pretrain_by_name("neocognitron", network, lambda: images, say=lambda _: None)
    changed = {key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {"layers.s1.a", "layers.s1.b", "layers.s2.a", "layers.s2.b"}
    assert [key for key, parameter in network.named_parameters() if parameter.requires_grad] == [
        "output.weight", "output.bias"
    ]  # fmt: skip
