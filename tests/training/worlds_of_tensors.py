"""Small planted worlds as tensors, each with a known answer."""

from __future__ import annotations

import torch

from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import Network, NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.training.exposures import Exposures
from kgrec.training.tasks import Positives, TrainingData


def tastes(seed: int = 0) -> tuple[NetworkShape, TrainingData, torch.Tensor]:
    """60 users of 4 tastes, 40 items of 4 genres; users take items of their taste. The last item of each genre has no
    event: the genre's entity alone tells whose it is. Returns the genre of each item as well.
    """
    generator = torch.Generator().manual_seed(seed)
    users, items, genres = 60, 40, 4
    genre_I = torch.arange(items) % genres
    pairs = []
    for user in range(users):
        own = (genre_I[: items - genres] == user % genres).nonzero().flatten()
        pairs += [(user, int(item)) for item in own[torch.randperm(len(own), generator=generator)[:5]]]
    pairs_P2 = torch.tensor(pairs)
    triples_T3 = torch.stack([torch.arange(items), torch.zeros(items, dtype=torch.int64), items + genre_I], dim=1)
    edges = GraphEdges(pairs_P2, triples_T3[:, [0, 2]])
    positives = Positives(pairs_P2[:, 0], pairs_P2[:, 1], torch.ones(len(pairs)))
    shape = NetworkShape(num_users=users, num_items=items, num_entities=items + genres, num_relations=1)
    return shape, TrainingData(edges, positives, triples_T3=triples_T3), genre_I


def exposures(rows: int, *, impressions: bool, seed: int = 0) -> tuple[Exposures, torch.Tensor, torch.Tensor]:
    """Exposures whose click and conversion follow known logits of two numbers and a category."""
    generator = torch.Generator().manual_seed(seed)
    numeric_NF = torch.randn(rows, 2, generator=generator) * torch.tensor([1.0, 50.0]) + torch.tensor([0.0, 300.0])
    category_NC = torch.randint(3, (rows, 1), generator=generator)
    standard_N = (numeric_NF[:, 1] - 300) / 50
    click_logit_N = 1.5 * numeric_NF[:, 0] - 0.5
    conversion_logit_N = 1.2 * standard_N + (category_NC[:, 0] == 1) * 2.0 - 1.0
    click_N = (torch.rand(rows, generator=generator) < click_logit_N.sigmoid()).float()
    conversion_N = click_N * (torch.rand(rows, generator=generator) < conversion_logit_N.sigmoid()).float()
    user_N, item_N = (torch.randint(20, (rows,), generator=generator) for _ in range(2))
    kept = torch.ones(rows, dtype=torch.bool) if impressions else click_N > 0
    table = Exposures(
        user_N[kept], item_N[kept], numeric_NF[kept], category_NC[kept],
        click_N[kept] if impressions else None, conversion_N[kept], impressions,
    )  # fmt: skip
    return table, click_logit_N[kept], conversion_logit_N[kept]


def relatives(people: int = 24) -> tuple[NetworkShape, torch.Tensor, torch.Tensor]:
    """A ring: "parent" points from each to the next (antisymmetric), "spouse" pairs 2k and 2k+1 both ways (symmetric).

    Of each spouse pair's two directions one of every third is held out, and returned: symmetry alone tells it.
    """
    parent = [(k, 0, (k + 1) % people) for k in range(people)]
    spouse = [(k, 1, k ^ 1) for k in range(people)]
    held = [triple for triple in spouse if triple[0] % 6 == 0]
    shape = NetworkShape(num_users=0, num_items=0, num_entities=people, num_relations=2)
    return shape, torch.tensor(parent + [t for t in spouse if t not in held]), torch.tensor(held)


def cosine_objective(network: Network, genre_I: torch.Tensor) -> dict[str, float]:
    """The share of each user's top ten that is of the user's taste."""
    vectors = network.export()
    top = (vectors.user_vectors_UD @ vectors.item_vectors_ID.T).topk(10, dim=1).indices
    taste_U1 = (torch.arange(len(top)) % 4)[:, None]
    return {"objective": float((genre_I[top] == taste_U1).double().mean())}


SMALL = NetworkConfig(dimensions=8, id_dropout=0.2)


def line(entities: int, steps: int = 4) -> tuple[NetworkShape, torch.Tensor, torch.Tensor]:
    """Relation r leads r + 1 places along a line. One triple of each relation is held out and returned."""
    triples = [(k, r, k + r + 1) for r in range(steps) for k in range(entities - r - 1)]
    held = [triple for triple in triples if triple[0] == 4 + 2 * triple[1]]
    shape = NetworkShape(num_users=0, num_items=0, num_entities=entities, num_relations=steps)
    return shape, torch.tensor([triple for triple in triples if triple not in held]), torch.tensor(held)
