"""Learning without labels, before the training with labels: one paper per file. Must know neither recipes nor runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from training.files import TrainingError
from training.nets.deep_sigmoid import DeepSigmoid
from training.nets.neocognitron import Neocognitron
from training.pretraining.denoising import DenoisingAutoencoder
from training.pretraining.greedy import Draw, Schedule, pretrain
from training.pretraining.layer import Layer
from training.pretraining.rbm import RBM
from training.pretraining.self_organisation import SelfOrganisation, organise
from training.pretraining.sparse import SparseAutoencoder


@dataclass(frozen=True, slots=True)
class Pretraining:
    """One row: what each layer is taken for, and how it learns."""

    make: Callable[[int, int], Layer]
    """(visible units, hidden units) → a fresh model of that layer."""
    schedule: Schedule


PRETRAINING = {
    "dbn": Pretraining(
        lambda visible, hidden: RBM(visible, hidden, steps=1),
        Schedule(epochs=30, batch_size=32, learning_rate=0.05, momentum=0.8, weight_decay=2e-4),
    ),
    "sdae": Pretraining(
        lambda visible, hidden: DenoisingAutoencoder(visible, hidden, corruption=0.25),
        Schedule(epochs=30, batch_size=32, learning_rate=0.02, momentum=0.8, weight_decay=0.0),
    ),
    "sparse": Pretraining(
        lambda visible, hidden: SparseAutoencoder(visible, hidden, activity=0.1, penalty=0.3),
        Schedule(epochs=30, batch_size=32, learning_rate=0.1, momentum=0.8, weight_decay=0.0),
    ),
}

SELF_ORGANISATION = {"neocognitron": SelfOrganisation(rounds=1)}
"""The rows for networks that have a way of their own to learn without labels."""


def pretrain_by_name(name: str, network: nn.Module, draw: Draw, say: Callable[[str], None] = print) -> None:
    """Pre-train the network's hidden layers in place by a row of the tables, and say how far each layer came."""
    if name in SELF_ORGANISATION:
        if not isinstance(network, Neocognitron):
            raise TrainingError(
                f"Pre-training {name!r} needs a neocognitron (training/nets/neocognitron.py), "
                f"not {type(network).__name__}. Leave it out of the recipe, or choose another network."
            )
        organise(network, draw, SELF_ORGANISATION[name], say)
        return
    if name not in PRETRAINING:
        names = ", ".join((*PRETRAINING, *SELF_ORGANISATION))
        raise TrainingError(f"There is no pre-training named {name!r}. There are: {names}.")
    if not isinstance(network, DeepSigmoid):
        raise TrainingError(
            f"Pre-training {name!r} needs a network of sigmoid layers (training/nets/deep_sigmoid.py), "
            f"not {type(network).__name__}. Leave it out of the recipe, or choose another network."
        )
    row = PRETRAINING[name]
    pretrain(network, draw, row.make, row.schedule, say)
