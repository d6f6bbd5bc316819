"""What to train, as rows. Must not import torch: listing the recipes costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from training.augmentations import ALEXNET, CIFAR, RESNET, VGG, Affine, Augmentation, PadCropFlip
from training.augmentations import from_dict as augmentation_from_dict
from training.files import TrainingError


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the result, but for the seed."""

    name: str
    network: str
    """A row of `training.nets`."""
    data: str
    """A row of `training.data`."""
    loss: str
    """A row of `training.losses`."""
    augmentation: Augmentation
    batch_size: int
    epochs: int
    learning_rate: float
    """The highest: reached after `warm_up`, then as the schedule says."""
    warm_up: float
    """Part of all steps."""
    weight_decay: float
    """AdamW's is decoupled from the gradient; for the other optimisers it is the L2 penalty."""
    threads: int
    """Of torch on the CPU. Fixed, because sums depend on how they are shared out; LeNet gains nothing from a second."""
    target: float | None
    """Held-out accuracy that the recipe promises; None: its data is yours."""
    seed: int = 0
    """Unless the run has another. The one of the model that is served."""
    optimizer: str = "AdamW"
    """A row of `training.optim`."""
    schedule: str = "cosine"
    """A row of `training.optim`."""
    milestones: tuple[float, ...] = ()
    """Where the schedule "step" takes a step down, in parts of all steps."""
    label_smoothing: float = 0.0
    """Part of a target's certainty that is spread over all classes evenly."""
    clip_norm: float | None = None
    """Greatest Euclidean norm of the gradient of all parameters together; a longer one is shortened to it."""
    patience: int | None = None
    """Epochs without a better loss on a tenth of the training data, set aside, after which to stop. None: never."""
    pretraining: str | None = None
    """A row of `training.pretraining`: learning without labels, before the first epoch."""

    def __post_init__(self) -> None:
        """Raise TrainingError for a row that contradicts itself."""
        if bool(self.milestones) != (self.schedule == "step"):
            raise TrainingError(f'Recipe {self.name}: milestones belong to the schedule "step", and it needs some.')
        if list(self.milestones) != sorted(set(self.milestones)) or not all(0 < at < 1 for at in self.milestones):
            raise TrainingError(f"Recipe {self.name}: milestones {self.milestones} must rise between 0 and 1.")
        if not 0 <= self.label_smoothing < 1:
            raise TrainingError(f"Recipe {self.name}: label_smoothing {self.label_smoothing} must be in [0, 1).")
        if self.label_smoothing and self.loss == "competitive":
            raise TrainingError(f"Recipe {self.name}: the competitive loss has no targets that could be smoothed.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise TrainingError(f"Recipe {self.name}: clip_norm {self.clip_norm} must be above 0.")
        if self.patience is not None and self.patience < 1:
            raise TrainingError(f"Recipe {self.name}: patience {self.patience} must be at least 1 epoch.")


# Each chosen by cross-validation inside the training digits: see LOG.md. The rows of mnist, emnist_letters and CIFAR-10
# have not been run on the real files: their promises are the papers' figures (mnist, resnet20_cifar10) and guesses.
GENTLE = Affine(rotation=12, scale=0.12, shift=1.5, shear=0.15)
STRONG = Affine(rotation=15, scale=0.2, shift=2, shear=0.25)
NOTHING = Affine(rotation=0, scale=0, shift=0, shear=0)

# The same fine-tuning for each kind of pre-training, and for the networks that need none.
DEEP_SIGMOID = Recipe(
    name="dbn_digits",
    network="deep_sigmoid",
    data="digits",
    loss="cross entropy",
    augmentation=GENTLE,
    batch_size=32,
    epochs=60,
    learning_rate=3e-3,
    warm_up=0.1,
    weight_decay=1e-2,
    threads=1,
    target=0.97,
    pretraining="dbn",
)

# The large networks' way: ImageNet in folders, or as many photographs of yours. He et al. 2015, section 3.4; AlexNet as
# in section 5 of Krizhevsky et al. 2012, VGG as in section 3.1 of Simonyan & Zisserman 2014. All with a tenth at fixed
# times instead of whenever progress stops. None has been run on ImageNet.
PHOTOGRAPHS = Recipe(
    name="folder224",
    network="resnet18",
    data="folder224",
    loss="cross entropy",
    augmentation=RESNET,
    batch_size=256,
    epochs=90,
    learning_rate=0.1,
    warm_up=0.0,
    weight_decay=1e-4,
    threads=2,
    target=None,
    optimizer="momentum",
    schedule="step",
    milestones=(1 / 3, 2 / 3),
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="lenet5",
            network="lenet5",
            data="digits",
            loss="competitive",
            augmentation=GENTLE,
            batch_size=32,
            epochs=100,
            learning_rate=3e-3,
            warm_up=0.2,
            weight_decay=1e-2,
            threads=1,
            target=0.985,
        ),
        Recipe(
            name="lenet5_modern",
            network="lenet5_modern",
            data="digits",
            loss="cross entropy",
            augmentation=STRONG,
            batch_size=32,
            epochs=100,
            learning_rate=3e-3,
            warm_up=0.2,
            weight_decay=1e-2,
            threads=1,
            target=0.985,
        ),
        DEEP_SIGMOID,
        replace(DEEP_SIGMOID, name="sdae_digits", pretraining="sdae"),
        replace(DEEP_SIGMOID, name="sparse_digits", pretraining="sparse"),
        replace(DEEP_SIGMOID, name="mlp_shallow_digits", network="mlp_shallow", pretraining=None),
        replace(DEEP_SIGMOID, name="mlp_deep_digits", network="mlp_deep", pretraining=None),
        replace(DEEP_SIGMOID, name="lstm_digits", network="lstm_rows", pretraining=None, clip_norm=1.0),
        replace(
            DEEP_SIGMOID,
            name="neocognitron_digits",
            network="neocognitron_classifier",
            data="digits16",
            augmentation=NOTHING,
            learning_rate=3e-2,
            target=0.93,
            pretraining="neocognitron",
        ),
        Recipe(
            name="mnist",
            network="lenet5",
            data="mnist32",
            loss="competitive",
            augmentation=GENTLE,
            batch_size=64,
            epochs=20,
            learning_rate=3e-3,
            warm_up=0.1,
            weight_decay=1e-2,
            threads=1,
            target=0.9905,
        ),
        Recipe(
            name="letters26",
            network="letters26",
            data="letters",
            loss="cross entropy",
            augmentation=GENTLE,
            batch_size=64,
            epochs=20,
            learning_rate=3e-3,
            warm_up=0.1,
            weight_decay=1e-2,
            threads=1,
            target=0.97,
        ),
        Recipe(
            name="emnist_letters",
            network="lenet5_modern",
            data="emnist_letters32",
            loss="cross entropy",
            augmentation=GENTLE,
            batch_size=64,
            epochs=20,
            learning_rate=3e-3,
            warm_up=0.1,
            weight_decay=1e-2,
            threads=1,
            target=0.9,
        ),
        # As the demo trains: moved by up to two pixels and mirrored, Adadelta, batches of four, L2.
        Recipe(
            name="convnetjs_cifar10",
            network="convnetjs_cifar10",
            data="cifar10",
            loss="cross entropy",
            augmentation=PadCropFlip(padding=2),
            batch_size=4,
            epochs=20,
            learning_rate=1.0,
            warm_up=0.0,
            weight_decay=1e-4,
            threads=1,
            target=0.75,
            optimizer="Adadelta",
            schedule="constant",
        ),
        # He et al. 2015, section 4.2: 64,000 steps, a tenth after 32,000 and after 48,000. For a GPU, or a day.
        Recipe(
            name="resnet20_cifar10",
            network="resnet20",
            data="cifar10",
            loss="cross entropy",
            augmentation=CIFAR,
            batch_size=128,
            epochs=164,
            learning_rate=0.1,
            warm_up=0.0,
            weight_decay=1e-4,
            threads=1,
            target=0.9125,
            optimizer="momentum",
            schedule="step",
            milestones=(0.5, 0.75),
        ),
        # Your own pictures. Small ones may be anything, signs too: nothing is mirrored.
        Recipe(
            name="folder32",
            network="resnet20",
            data="folder32",
            loss="cross entropy",
            augmentation=GENTLE,
            batch_size=32,
            epochs=30,
            learning_rate=3e-3,
            warm_up=0.1,
            weight_decay=1e-2,
            threads=1,
            target=None,
        ),
        # Few photographs of yours: small batches, and a rate that has a gentle start and end.
        replace(PHOTOGRAPHS, batch_size=32, learning_rate=0.0125, warm_up=0.05, schedule="cosine", milestones=()),
        replace(PHOTOGRAPHS, name="imagenet_resnet50", network="resnet50"),
        replace(
            PHOTOGRAPHS,
            name="imagenet_alexnet",
            network="alexnet_two_tower",
            augmentation=ALEXNET,
            batch_size=128,
            learning_rate=0.01,
            weight_decay=5e-4,
        ),
        replace(
            PHOTOGRAPHS,
            name="imagenet_vgg16",
            network="vgg16",
            augmentation=VGG,
            epochs=74,
            learning_rate=0.01,
            weight_decay=5e-4,
        ),
    )
}


def find(name: str) -> Recipe:
    """The recipe of that name."""
    if name not in RECIPES:
        raise TrainingError(f"There is no recipe named {name!r}. There are: {', '.join(RECIPES)}.")
    return RECIPES[name]


def from_dict(fields: dict[str, Any]) -> Recipe:
    """The inverse of `dataclasses.asdict`: a recipe as a run recorded it, even if its row has changed since."""
    return Recipe(**{**fields, "augmentation": augmentation_from_dict(fields["augmentation"])})
