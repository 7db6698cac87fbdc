"""Say what fits on a GPU: a model, a context, so many requests at once, and why.

    python -m build.gpu.fit --gpu rtx4090d --model 4B --context 131072 --concurrency 1
    python -m build.gpu.fit --gpu rtx4090d --model 4B --precisions
    python -m build.gpu.fit --table

A model is a checkpoint folder (its own tensors are counted), a published size or a hub name.
Exits with 1 if it does not fit.
"""

import argparse
import sys

from build.gpu.planner.models import find_model, published_sizes
from build.gpu.planner.planning import Fit, Refusal, find_fit
from build.gpu.planner.profiles import ENGINES, find_profile, profiles
from build.gpu.planner.report import describe, precision_table, table


def add_wish(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Adds the options that `wished_fit` reads; `required`: a GPU and a model must be named."""
    parser.add_argument("--gpu", required=required, choices=list(profiles()), help="profile of the GPU")
    parser.add_argument("--model", required=required, help="checkpoint folder, published size (4B) or hub name")
    parser.add_argument("--engine", choices=ENGINES, help="stage 3's engine; default: the profile's")
    parser.add_argument("--context", type=int, help="longest prompt plus answer, in tokens")
    parser.add_argument("--concurrency", type=int, help="requests of that length at once")
    parser.add_argument("--weights", help="precision of the decoder's weights; default: chosen")
    parser.add_argument("--kv-cache", help="precision of the KV cache; default: chosen")


def wished_fit(arguments: argparse.Namespace, model: str) -> Fit | Refusal:
    """The fit of `model` for the options of `add_wish`. Raises ValueError for a wish that makes no sense."""
    profile = find_profile(arguments.gpu)
    return find_fit(
        profile.with_engine(arguments.engine or profile.engine),
        find_model(model),
        context_tokens=arguments.context,
        concurrency=arguments.concurrency,
        weights=arguments.weights,
        kv_cache=arguments.kv_cache,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Say what fits on a GPU, and why.")
    add_wish(parser, required=False)
    parser.add_argument("--precisions", action="store_true", help="a table of every precision that exists on the GPU")
    parser.add_argument("--table", action="store_true", help="a Markdown table of all GPUs and published sizes")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(list(profiles().values()), [find_model(size) for size in published_sizes()]))
        return 0
    if not (arguments.gpu and arguments.model):
        parser.error("--gpu and --model are required, or --table")
    try:
        if arguments.precisions:
            profile = find_profile(arguments.gpu)
            profile = profile.with_engine(arguments.engine or profile.engine)
            print(precision_table(profile, find_model(arguments.model)))
            return 0
        fit = wished_fit(arguments, arguments.model)
    except ValueError as error:
        parser.error(str(error))
    print(describe(fit))
    return 1 if isinstance(fit, Refusal) else 0


if __name__ == "__main__":
    sys.exit(main())
