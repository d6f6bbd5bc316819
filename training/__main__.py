"""python -m training: train, evaluate, export, card, layers, build, check-zoo, lecture, list, digits, experiment.

Heavy imports are inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from training import recipes
from training.export_options import INPUTS, LOWER_PRECISIONS, OPSETS, OUTPUTS, PLAIN, ExportOptions
from training.files import TrainingError

if TYPE_CHECKING:
    from training.runs import Plan

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

    run = run_flags()
    train = commands.add_parser("train", parents=[run], help="train a recipe into a run folder")
    train.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
    train.set_defaults(command=run_train)

    build = commands.add_parser(
        "build", parents=[run], help="train, evaluate and export a recipe; what is done already is not done again"
    )
    build.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    build.add_argument("--name", help="of the model (default: the recipe's)")
    build.set_defaults(command=run_build)

    evaluate = commands.add_parser("evaluate", help="a run's accuracy and mistakes on the held-out data")
    evaluate.add_argument("run", help="a run folder, or a recipe's name for its run with the recipe's seed")
    evaluate.add_argument("--data-dir", type=Path, metavar="DIR", help=f"{DATA_DIR} (default: where the run found it)")
    evaluate.set_defaults(command=run_evaluate)

    export = commands.add_parser(
        "export", help="write a run as the next version of a served model, if ONNX Runtime agrees"
    )
    export.add_argument(
        "run",
        help="a run folder, or a recipe's name for its run with the recipe's seed; a network's name with the next two",
    )
    elsewhere = export.add_mutually_exclusive_group()
    elsewhere.add_argument("--weights", type=Path, metavar="FILE.pth", help="of the network, as torch.save wrote them")
    elsewhere.add_argument("--random-weights", action="store_true", help="of the network, for benchmarks")
    export.add_argument("--seed", type=seed, help="of --random-weights (default: 0)")
    export.add_argument("--labels", type=Path, metavar="FILE", help="with either: names of the classes, one a line")
    export.add_argument("--data-dir", type=Path, metavar="DIR", help=f"{DATA_DIR} (default: where the run found it)")
    export.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    export.add_argument("--name", help="of the model (default: the recipe's)")
    export.add_argument("--version", type=int, help="default: one more than the highest there")
    add_form_flags(export)
    export.set_defaults(command=run_export)

    card = commands.add_parser(
        "card", help="evaluate and time a served version again, here and now, and write its model card anew"
    )
    card.add_argument("model", metavar="MODEL", help="a model of the repository that a run was exported to")
    card.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    card.add_argument("--version", type=int, help="default: the highest there")
    card.add_argument("--data-dir", type=Path, metavar="DIR", help=DATA_DIR)
    card.set_defaults(command=run_card)

    layers = commands.add_parser(
        "layers", help="write a model beside a served one that answers with the values of every layer, to look inside"
    )
    layers.add_argument("model", metavar="MODEL", help="a model of the repository, whatever exported it")
    layers.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    layers.add_argument("--version", type=int, help="to look into (default: the highest there)")
    layers.add_argument("--name", help="of the model that is written (default: MODEL_layers)")
    layers.set_defaults(command=run_layers)

    zoo = commands.add_parser("check-zoo", help="export networks at their papers' sizes and compare with torch")
    zoo.add_argument("networks", nargs="*", metavar="NETWORK", help="default: all")
    zoo.set_defaults(command=run_check_zoo)

    lecture = commands.add_parser("lecture", help="write the lecture's convolution layer as a served model")
    lecture.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: model_repository")
    lecture.add_argument("--version", type=int, help="default: one more than the highest there")
    lecture.set_defaults(command=run_lecture)

    listing = commands.add_parser("list", help="the recipes")
    listing.set_defaults(command=run_list)

    digits = commands.add_parser("digits", help="write the held-out digits to a file that numpy alone can read")
    digits.add_argument("--write", type=Path, required=True, metavar="FILE.npz")
    digits.set_defaults(command=run_digits)

    experiment = commands.add_parser("experiment", help="a question of the lecture, answered by training many networks")
    experiment.add_argument("question", choices=("depth",), help="depth: does it help, and does pre-training?")
    experiment.add_argument("--quick", action="store_true", help="tiny, in seconds: to see that it runs")
    experiment.add_argument("--run-dir", type=Path, help="default: runs/experiment-QUESTION")
    experiment.set_defaults(command=run_experiment)
    return top


def run_flags() -> argparse.ArgumentParser:
    """What decides a run, for the commands that train."""
    run = argparse.ArgumentParser(add_help=False)
    run.add_argument("recipe", nargs="?", default="lenet5", help=f"{' | '.join(recipes.RECIPES)} (default: lenet5)")
    run.add_argument("--seed", type=seed, help="of weights, order and distortions (default: the recipe's)")
    run.add_argument("--epochs", type=int, help="default: the recipe's")
    run.add_argument("--run-dir", type=Path, help="default: runs/RECIPE-seedSEED")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    run.add_argument("--data-dir", type=Path, metavar="DIR", help=DATA_DIR)
    run.add_argument(
        "--early-stop",
        type=int,
        metavar="EPOCHS",
        help="stop after so many without a better loss on a tenth of the training data, which is set aside; 0: never",
    )
    run.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the network's arithmetic; weights stay in float32 (default: float32)",
    )
    run.add_argument("--compile", action="store_true", help="make kernels for the network with torch.compile")
    run.add_argument("--tensorboard", action="store_true", help="write the run folder's tensorboard/ as well")
    return run


def seed(text: str) -> int:
    """A flag's number that torch's generators take."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 2**63 - 1")
    return number


def add_form_flags(export: argparse.ArgumentParser) -> None:
    """In which form a network is exported."""
    form = export.add_argument_group("form")
    form.add_argument("--output", choices=OUTPUTS, default=PLAIN.output, help=f"default: {PLAIN.output}")
    form.add_argument(
        "--input",
        choices=INPUTS,
        default=PLAIN.input,
        help="pixels: uint8, channels last, which the graph scales and normalises itself (default: tensor)",
    )
    form.add_argument(
        "--pictures",
        metavar="DATA_SET",
        help="with --weights or --random-weights: the data set that prepares pictures as they read them "
        "(folder224: the numbers of ImageNet)",
    )
    form.add_argument(
        "--any-size", action="store_true", help="leave height and width open, for networks that take a mean over maps"
    )
    form.add_argument(
        "--opset",
        type=int,
        default=PLAIN.opset,
        metavar="N",
        help=f"version of ONNX's operators, {OPSETS[0]} to {OPSETS[-1]} (default: {PLAIN.opset})",
    )
    lower = form.add_mutually_exclusive_group()
    for flag, precision in LOWER_PRECISIONS.items():
        lower.add_argument(flag, dest="form", action="store_const", const=precision, help=f"weights in {precision}")
    form.add_argument(
        "--max-accuracy-drop",
        type=float,
        metavar="PART",
        help="of the held-out accuracy, that --fp16 or --int8 may cost a run; beyond it nothing is written "
        f"(default: {PLAIN.max_accuracy_drop})",
    )


def run_train(options: argparse.Namespace) -> None:
    """Train, then say how well it did."""
    from training import distribution
    from training.train import train

    plan, folder = planned(options)
    with distribution.join(plan.device) as processes:
        plan = dataclasses.replace(plan, processes=processes.count)
        train(plan, folder, resume=options.resume, processes=processes, tensorboard=options.tensorboard)


def run_build(options: argparse.Namespace) -> None:
    """All from the recipe to a served version, but for what is there."""
    from training.build import build

    plan, folder = planned(options)
    build(plan, folder, options.repository, options.name or options.recipe, tensorboard=options.tensorboard)


def planned(options: argparse.Namespace) -> tuple[Plan, Path]:
    """What `run_flags` ask for, in one process, and the run's folder; raise if it cannot be done."""
    recipe = recipes.find(options.recipe)
    epochs = recipe.epochs if options.epochs is None else options.epochs
    if epochs < 1:
        raise TrainingError(f"--epochs {epochs}: at least 1 is needed.")
    seed = recipe.seed if options.seed is None else options.seed
    patience = recipe.patience if options.early_stop is None else options.early_stop or None
    if patience is not None and patience < 0:
        raise TrainingError(f"--early-stop {patience}: a number of epochs is needed, or 0 for never.")

    from training.runs import Plan, default_folder
    from training.train import choose_device, require_compiler

    device = choose_device(options.device)
    if options.compile:
        require_compiler(device)
    data_dir = None if options.data_dir is None else str(options.data_dir.resolve())
    plan = Plan(recipe, seed, epochs, device, patience, options.precision, options.compile, data_dir=data_dir)
    return plan, options.run_dir or default_folder(recipe.name, seed)


def run_evaluate(options: argparse.Namespace) -> None:
    """Print accuracy and mistakes."""
    from training.evaluate import evaluate
    from training.runs import find_folder

    evaluate(find_folder(options.run), options.data_dir)


def run_export(options: argparse.Namespace) -> None:
    """Export a run, or a network with weights from elsewhere, or say why not."""
    elsewhere = options.weights or options.random_weights
    drop = options.max_accuracy_drop
    for wrong, sentence in (
        (options.seed is not None and not options.random_weights, "--seed is of --random-weights."),
        (
            elsewhere and options.data_dir is not None,
            "--data-dir is a run's: no data comes with --weights or --random-weights.",
        ),
        (
            options.labels and not elsewhere,
            "--labels goes with --weights or --random-weights: a run knows its classes.",
        ),
        (
            options.pictures and not elsewhere,
            "--pictures goes with --weights or --random-weights: a run knows its data set.",
        ),
        (drop is not None and not options.form, "--max-accuracy-drop goes with --fp16 or --int8."),
        (
            drop is not None and elsewhere,
            "--max-accuracy-drop is a run's: no data to measure on comes with --weights or --random-weights.",
        ),
    ):
        if wrong:
            raise TrainingError(sentence)
    form = ExportOptions(
        output=options.output,
        input=options.input,
        any_size=options.any_size,
        opset=options.opset,
        precision=options.form or PLAIN.precision,
        max_accuracy_drop=PLAIN.max_accuracy_drop if drop is None else drop,
    )
    if elsewhere:
        from training.weights import export_weights

        export_weights(
            options.run,
            options.weights,
            seed=options.seed or 0,
            labels=options.labels,
            repository=options.repository,
            name=options.name,
            version=options.version,
            pictures=options.pictures,
            options=form,
        )
        return

    from training.export import export_run
    from training.runs import find_folder

    export_run(find_folder(options.run), options.repository, options.name, options.version, options.data_dir, form)


def run_card(options: argparse.Namespace) -> None:
    """Measure, write, and say what has become of it."""
    from training.export.refresh import refresh_card

    card = refresh_card(options.repository, options.model, options.version, options.data_dir)
    print(
        f"{options.model} version {card.version}: {card.accuracy} of the held-out examples, on {card.latency.machine}"
    )


def run_layers(options: argparse.Namespace) -> None:
    """Write the model."""
    from training.export.layers import write_layers

    write_layers(options.repository, options.model, options.version, options.name)


def run_check_zoo(options: argparse.Namespace) -> None:
    """One line for each network."""
    from training.zoo import check_zoo

    check_zoo(options.networks)


def run_lecture(options: argparse.Namespace) -> None:
    """Write the model."""
    from training.lecture import write_model

    write_model(options.repository, options.version)


def run_list(_: argparse.Namespace) -> None:
    """One line for each recipe."""
    print(f"{'recipe':18} {'network':17} {'data':16} {'loss':14} {'epochs':>6}  promises")
    for recipe in recipes.RECIPES.values():
        promise = "nothing: the data is yours" if recipe.target is None else f"{recipe.target:.1%} held-out accuracy"
        columns = f"{recipe.name:18} {recipe.network:17} {recipe.data:16} {recipe.loss:14} {recipe.epochs:6}"
        print(f"{columns}  {promise}")


def run_digits(options: argparse.Namespace) -> None:
    """Write the file and say what is in it."""
    from training.digits import write_held_out

    digits = write_held_out(options.write)
    print(f"{options.write}: {len(digits.labels)} held-out digits, {options.write.stat().st_size / 1000:.0f} kB")


def run_experiment(options: argparse.Namespace) -> None:
    """Train, and leave a CSV, a report and a plot."""
    from training.experiments import depth, depth_report
    from training.runs import RUNS

    design = depth.QUICK if options.quick else depth.FULL
    folder = options.run_dir or RUNS / f"experiment-{options.question}"
    began = time.perf_counter()
    results = depth.run(design, lambda line: print(line, flush=True))
    depth_report.write(folder, design, results, time.perf_counter() - began)
    print(f"{folder / 'report.md'}: {len(results)} networks")


if __name__ == "__main__":
    sys.exit(main())
