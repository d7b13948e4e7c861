import json

import numpy as np
import polars as pl
import pytest

from kgrec.errors import ArtifactError
from kgrec.features.encoding import MAX_CATEGORIES, FeatureEncoder, FeaturesConfig

TRAIN = pl.DataFrame(
    {
        "rate": [0.1, 0.3, None, 0.2],
        "n": [0.0, 1.0, 3.0, 7.0],
        "same": [5.5] * 4,
        "tab": [3, 3, 9, 1],
        "country": ["de", None, "fr", "fr"],
        "live": [True, False, True, True],
        "seen_on": pl.Series([1, 2, 3, 4]).cast(pl.Date),
    },
    schema_overrides={"rate": pl.Float32},
)


def test_numbers_are_standardised_by_train_and_missing_says_so():
    encoder = FeatureEncoder.fit(TRAIN, counts=["n"])
    assert encoder.numeric_names == ("rate", "rate:missing", "n")
    assert set(encoder.ignored) == {"same", "seen_on"}
    numeric, _ = encoder.encode(TRAIN)
    assert numeric.dtype == np.float32
    assert numeric[2, :2].tolist() == [0.0, 1.0]
    known = np.array([0.1, 0.3, 0.2])
    np.testing.assert_allclose(numeric[[0, 1, 3], 0], (known - 0.2) / known.std(), atol=1e-6)
    logs = np.log1p([0, 1, 3, 7])
    np.testing.assert_allclose(numeric[:, 2], (logs - logs.mean()) / logs.std(), rtol=1e-5)


def test_categories_go_by_frequency_and_the_unknown_is_zero():
    encoder = FeatureEncoder.fit(TRAIN, context=["tab"])
    assert encoder.categorical_names == ("tab", "country", "live")
    assert encoder.cardinalities == (4, 3, 3)
    new = pl.DataFrame({"tab": [3, 1, 9, 7], "country": ["fr", "de", None, "xx"], "live": [True, False, None, True]})
    _, codes = encoder.encode(new)
    assert codes.dtype == np.int64
    assert codes.T.tolist() == [[1, 2, 3, 0], [1, 2, 0, 0], [1, 2, 0, 1]]


def test_many_whole_numbers_are_a_number_unless_declared_context():
    train = pl.DataFrame({"price": range(51), "debt": range(-1, 50)})
    plain = FeatureEncoder.fit(train)
    assert [(column.name, column.log) for column in plain.numeric] == [("price", True), ("debt", False)]
    assert FeatureEncoder.fit(train, context=["price"]).categorical_names == ("price",)
    assert FeatureEncoder.fit(train.head(50)).categorical_names == ("price", "debt")


def test_rare_values_beyond_the_cap_are_unknown():
    words = [f"w{n:05d}" for n in range(MAX_CATEGORIES + 10)]
    encoder = FeatureEncoder.fit(pl.DataFrame({"word": [*words, *words[-10:]]}))
    _, codes = encoder.encode(pl.DataFrame({"word": words}))
    assert encoder.cardinalities == (MAX_CATEGORIES + 1,)
    assert sorted(codes[-10:, 0]) == list(range(1, 11))
    assert (codes == 0).sum() == 10


def test_what_is_absent_infinite_or_extreme_later_stays_finite():
    encoder = FeatureEncoder.fit(TRAIN, counts=["n"])
    numeric, codes = encoder.encode(pl.DataFrame({"n": [-5.0, float("inf"), float("nan")]}))
    assert np.isfinite(numeric).all()
    assert numeric[:, 1].tolist() == [1.0] * 3
    assert numeric[1:, 2].tolist() == [0.0, 0.0]
    assert not codes.any()
    empty = FeatureEncoder.fit(pl.DataFrame({"same": [1.5, 1.5]})).encode(TRAIN)
    assert [array.shape for array in empty] == [(4, 0), (4, 0)]


def test_train_rows_may_come_in_frames_in_any_cut():
    numbers = np.random.default_rng(3).normal(1000, 3, 400)
    train = pl.DataFrame(
        {
            "x": [None, *numbers[1:]],
            "n": range(400),
            "debt": [*range(-1, 398), None],
            "few": [place % 7 for place in range(400)],
            "word": [f"w{place % 11}" for place in range(400)],
            "last": [[f"w{place % 3}"] * (place % 2) for place in range(400)],
        }
    )
    whole = FeatureEncoder.fit(train, counts=["x"], context=["few"])
    assert (whole.categorical_names, whole.ignored) == (("few", "word"), ())
    for at in (1, 60, 399):
        frames = [train.head(at), train.clear(), train.slice(at)]
        pieced = FeatureEncoder.fit(iter(frames), counts=["x"], context=["few"])
        assert pieced.categorical == whole.categorical
        assert pieced.sequences == whole.sequences
        for one, other in zip(pieced.numeric, whole.numeric, strict=True):
            assert (one.name, one.log, one.indicator) == (other.name, other.log, other.indicator)
            np.testing.assert_allclose([one.mean, one.std], [other.mean, other.std], rtol=1e-12)


def test_the_last_new_value_of_many_frames_still_counts():
    first = pl.DataFrame({"n": range(50), "word": [f"w{n}" for n in range(50)]})
    more = [pl.DataFrame({"n": [n], "word": [f"w{n}"]}) for n in (7, 7, 50)]
    few, many = (FeatureEncoder.fit([first, *frames]) for frames in (more[:2], more))
    assert few.categorical_names == ("n", "word")
    assert few.categorical[0].values[0] == "7"
    assert (few.categorical[1].values[0], len(few.categorical[1].values)) == ("w7", 50)
    assert many.categorical_names == ("word",)
    assert many.numeric_names == ("n",)
    assert len(many.categorical[0].values) == 51


def test_saved_as_json_it_encodes_the_same():
    encoder = FeatureEncoder.fit(TRAIN, context=["tab"], counts=["n"])
    again = FeatureEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder
    for one, other in zip(again.encode(TRAIN), encoder.encode(TRAIN), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ArtifactError):
        FeatureEncoder.from_dict({"numeric": []})


def test_values_beyond_the_cap_are_hashed_where_that_is_asked_for():
    train = pl.DataFrame({"word": ["a"] * 3 + ["b"] * 2 + ["c", "d"]})
    encoder = FeatureEncoder.fit(train, config=FeaturesConfig(categories=2, hash_buckets=3))
    _, codes = encoder.encode(pl.DataFrame({"word": ["a", "b", "c", "never seen", None]}))
    assert encoder.cardinalities == (6,)
    assert codes[:2, 0].tolist() == [1, 2]
    assert set(codes[2:4, 0]) <= {3, 4, 5}
    assert codes[4, 0] == 0
    again = FeatureEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    np.testing.assert_array_equal(again.encode(train)[1], encoder.encode(train)[1])
    assert FeatureEncoder.fit(train, config=FeaturesConfig(categories=4, hash_buckets=3)).cardinalities == (5,)


def test_sequences_are_pooled_into_shares_of_their_frequent_values():
    train = pl.DataFrame({"last": [["x", "y"], ["x"], [], ["x", "x", "z", "y"]]})
    encoder = FeatureEncoder.fit(train, config=FeaturesConfig(sequence_values=2))
    assert encoder.numeric_names == ("last=x", "last=y")
    assert encoder.encode(train)[0].tolist() == [[0.5, 0.5], [1, 0], [0, 0], [0.5, 0.25]]
    again = FeatureEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again.encode(pl.DataFrame({"last": [["y"]]}))[0].tolist() == [[0, 1]]
