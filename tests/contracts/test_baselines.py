"""What every baseline of the registry has to do; nobody escapes, since the list is read from the registry."""

import pytest
import torch

from kgrec.evaluation.baseline_roles import BaselinesConfig, Known, LeftOutError
from kgrec.evaluation.baselines import BASELINES, fit, judge, tune
from kgrec.evaluation.pairs import Pairs

USERS, ITEMS = 40, 24
CONFIG = BaselinesConfig(neighbours=(2, 8), shrinkage=(0.0, 5.0), ease_lambda=(1.0, 50.0), filter_exponents=(0.0, 0.5))


def world():
    """Two communities of items; each user lives in one, and all that is held out is there too."""
    generator = torch.Generator().manual_seed(11)
    train, held = [], []
    for user in range(USERS):
        own = torch.randperm(ITEMS // 2, generator=generator) + (user % 2) * (ITEMS // 2)
        train += [(user, int(item)) for item in own[:7]]
        held += [(user, int(item)) for item in own[7:9]]
    train_UI, held_UI = (Pairs.of(*zip(*rows, strict=True), USERS, ITEMS) for rows in (train, held))
    nodes = [(item, ITEMS + item // (ITEMS // 2)) for item in range(ITEMS)]
    ages = torch.arange(len(train_UI.indices)) % 5
    return Known(train_UI, ages, torch.tensor(nodes), repeats=True), held_UI


@pytest.fixture(params=sorted(BASELINES))
def name(request):
    return request.param


def test_scores_have_the_shape_of_the_histories_and_need_no_known_user(name):
    known, _ = world()
    scorer = fit(name, known, BASELINES[name](known, CONFIG).settings()[0], CONFIG)
    strangers = Pairs.of([0, 0, 2], [1, 5, 3], num_rows=3, num_columns=ITEMS)
    scores = scorer(strangers)
    assert scores.shape == (3, ITEMS)
    assert bool(scores.isfinite().all())
    assert torch.equal(scores[2:], scorer(strangers.take(torch.tensor([2]))))


def test_two_fits_agree_bit_for_bit(name):
    known, _ = world()
    train = known.train_UI
    for setting in BASELINES[name](known, CONFIG).settings():
        assert torch.equal(fit(name, known, setting, CONFIG)(train), fit(name, known, setting, CONFIG)(train))


def test_fits_in_any_order_agree_with_fresh_ones(name):
    known, _ = world()
    train = known.train_UI
    shared = BASELINES[name](known, CONFIG)
    for setting in [*shared.settings(), *reversed(shared.settings())]:
        assert torch.equal(shared.fit(setting)(train), fit(name, known, setting, CONFIG)(train))


def test_tuning_returns_the_best_of_what_it_tried(name):
    known, held = world()
    train = known.train_UI
    tuned = tune(name, known, held, train, ks=(5,), metric="recall@5", config=CONFIG)
    tried = [line["validation"]["recall@5"] for line in tuned.tried]
    settings = BASELINES[name](known, CONFIG).settings()
    assert all(line["setting"] in settings for line in tuned.tried)
    assert len({tuple(line["setting"].values()) for line in tuned.tried}) == len(tried) <= len(settings)
    assert tuned.validation["recall@5"] == max(tried)
    assert max(tried) == tried[[line["setting"] for line in tuned.tried].index(dict(tuned.setting))]
    fresh = fit(name, known, tuned.setting, CONFIG)
    assert judge(fresh, torch.arange(USERS), train, held, train, (5,)) == tuned.validation


def test_personal_baselines_find_the_planted_communities(name):
    known, held = world()
    train = known.train_UI
    tuned = tune(name, known, held, train, ks=(5,), metric="recall@5", config=CONFIG)
    if name in ("popularity", "seen_then_popular"):
        assert tuned.validation["recall@5"] < 0.7
    else:
        assert tuned.validation["precision@5"] == pytest.approx(tuned.validation["recall@5"] * 2 / 5)
        scores = fit(name, known, tuned.setting, CONFIG)(train).masked_fill(train_mask(train), -torch.inf)
        own = torch.arange(ITEMS)[None] // (ITEMS // 2) == torch.arange(USERS)[:, None] % 2
        assert bool(own.gather(1, scores.topk(5).indices).all()), "something from the other community was recommended"


def train_mask(train):
    mask = torch.zeros(USERS, ITEMS, dtype=torch.bool)
    mask[train.rows(), train.indices] = True
    return mask


def test_nothing_to_validate_on_is_said(name):
    known, _ = world()
    train = known.train_UI
    with pytest.raises(LeftOutError, match="validation"):
        tune(name, known, Pairs.empty(USERS, ITEMS), train, config=CONFIG)
