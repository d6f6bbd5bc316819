"""python -m training: train, evaluate, export, list, digits.

Heavy imports are inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training import recipes
from training.files import TrainingError

DATA_DIR = "folder of a data set that is not built in, in its published format"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 could not be done (one sentence on stderr), 2 misspelt."""
    options = parser().parse_args(arguments)
    try:
        options.command(options)
    except TrainingError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    top = argparse.ArgumentParser(
        prog="python -m training", description="Train a network, look at it, export it to ONNX."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a recipe into a run folder")
    train.add_argument("recipe", nargs="?", default="lenet5", help=f"{' | '.join(recipes.RECIPES)} (default: lenet5)")
    train.add_argument("--seed", type=int, default=0, help="of weights, order and distortions (default: 0)")
    train.add_argument("--epochs", type=int, help="default: the recipe's")
    train.add_argument("--run-dir", type=Path, help="default: runs/RECIPE-seedSEED")
    train.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    train.add_argument("--data-dir", type=Path, metavar="DIR", help=DATA_DIR)
    train.set_defaults(command=run_train)

    evaluate = commands.add_parser("evaluate", help="a run's accuracy and mistakes on the held-out data")
    evaluate.add_argument("run", help="a run folder, or a recipe's name for its run with seed 0")
    evaluate.add_argument("--data-dir", type=Path, metavar="DIR", help=DATA_DIR)
    evaluate.set_defaults(command=run_evaluate)

    export = commands.add_parser(
        "export", help="write a run as the next version of a served model, if ONNX Runtime agrees"
    )
    export.add_argument("run", help="a run folder, or a recipe's name for its run with seed 0")
    export.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    export.add_argument("--name", help="of the model (default: the recipe's)")
    export.add_argument("--version", type=int, help="default: one more than the highest there")
    export.add_argument("--data-dir", type=Path, metavar="DIR", help=DATA_DIR)
    export.set_defaults(command=run_export)

    listing = commands.add_parser("list", help="the recipes")
    listing.set_defaults(command=run_list)

    digits = commands.add_parser("digits", help="write the held-out digits to a file that numpy alone can read")
    digits.add_argument("--write", type=Path, required=True, metavar="FILE.npz")
    digits.set_defaults(command=run_digits)
    return top


def run_train(options: argparse.Namespace) -> None:
    """Train, then say how well it did."""
    recipe = recipes.find(options.recipe)
    epochs = recipe.epochs if options.epochs is None else options.epochs
    if epochs < 1:
        raise TrainingError(f"--epochs {epochs}: at least 1 is needed.")

    from training.runs import Plan, default_folder
    from training.train import choose_device, train

    plan = Plan(recipe, options.seed, epochs, choose_device(options.device))
    train(
        plan,
        options.run_dir or default_folder(recipe.name, options.seed),
        resume=options.resume,
        data_dir=options.data_dir,
    )


def run_evaluate(options: argparse.Namespace) -> None:
    """Print accuracy and mistakes."""
    from training.evaluate import evaluate
    from training.runs import find_folder

    evaluate(find_folder(options.run), options.data_dir)


def run_export(options: argparse.Namespace) -> None:
    """Export, or say why not."""
    from training.export import export_run
    from training.runs import find_folder

    export_run(find_folder(options.run), options.repository, options.name, options.version, options.data_dir)


def run_list(_: argparse.Namespace) -> None:
    """One line for each recipe."""
    print(f"{'recipe':16} {'data':16} {'loss':14} {'epochs':>6}  promises")
    for recipe in recipes.RECIPES.values():
        promise = f"{recipe.target:.1%} held-out accuracy"
        print(f"{recipe.name:16} {recipe.data:16} {recipe.loss:14} {recipe.epochs:6}  {promise}")


def run_digits(options: argparse.Namespace) -> None:
    """Write the file and say what is in it."""
    from training.digits import write_held_out

    digits = write_held_out(options.write)
    print(f"{options.write}: {len(digits.labels)} held-out digits, {options.write.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
