"""Time the softmax over the whole catalogue beside the same loss written with torch's own functions; print JSON lines.

    python benchmarks/softmax.py [--threads N] [--rounds R]

Loss and gradient, 64 dimensions, 4,096 positives. The forms take turns within each round; the least of the rounds
counts. Shapes: a step of Amazon-Book, of ml-100k and of Last-FM.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kgrec.model.losses import full_softmax_loss

SHAPES = {"amazon-book": (3_900, 24_915), "ml-100k": (943, 1_682), "lastfm": (1_870, 3_846)}
POSITIVES, DIMENSIONS, HEAT = 4_096, 64, 0.2


def plain(users_VD: Tensor, items_ID: Tensor, user_P: Tensor, item_P: Tensor, weight_P: Tensor) -> Tensor:
    logits_VI = users_VD @ items_ID.T / HEAT
    taken_P = logits_VI[user_P, item_P]
    return ((logits_VI.logsumexp(1)[user_P] - taken_P) * weight_P).sum() / weight_P.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, (num_users, num_items) in SHAPES.items():
        generator = torch.Generator().manual_seed(7)
        users_VD, items_ID = (
            functional.normalize(torch.randn(count, DIMENSIONS, generator=generator), dim=1).requires_grad_()
            for count in (num_users, num_items)
        )
        user_P, item_P = (torch.randint(count, (POSITIVES,), generator=generator) for count in (num_users, num_items))
        rows = (user_P, item_P, torch.ones(POSITIVES))
        forms: dict[str, Callable[[], Tensor]] = {
            "torch": lambda u=users_VD, i=items_ID, r=rows: plain(u, i, *r),
            "float32": lambda u=users_VD, i=items_ID, r=rows: full_softmax_loss(u, i, *r, HEAT),
            "bfloat16": lambda u=users_VD, i=items_ID, r=rows: full_softmax_loss(u, i, *r, HEAT, bfloat16=True),
        }
        clock: dict[str, list[float]] = {form: [] for form in forms}
        processor: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(arguments.rounds):
            for form, loss in forms.items():
                users_VD.grad = items_ID.grad = None
                started, spent = time.perf_counter(), time.process_time()
                loss().backward()
                clock[form].append(time.perf_counter() - started)
                processor[form].append(time.process_time() - spent)
        least = {form: min(values) for form, values in clock.items()}
        print(
            json.dumps({
                "shape": name, "users": num_users, "items": num_items, "threads": arguments.threads,
                "seconds": {form: round(value, 4) for form, value in least.items()},
                "processor_seconds": {form: round(min(values), 4) for form, values in processor.items()},
                "times_quicker": {form: round(least["torch"] / value, 2) for form, value in least.items()},
            }),
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
