import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgrec.columns import VOCABULARY_SCHEMA
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import ArtifactError

ids = st.lists(st.text(max_size=4))


def text(values):
    return pl.Series(values, dtype=pl.String)


@given(ids, ids)
def test_growing_never_moves_a_row_and_adds_in_first_seen_order(old, new):
    small = Vocabulary.of(text(old))
    large = small.grow(text(new))
    expected = list(dict.fromkeys([*old, *new]))
    assert large.entries.to_list() == expected
    assert large.rows(text(expected)).to_list() == list(range(len(expected)))
    assert large.rows(small.entries).equals(small.rows(small.entries))


@given(ids, ids)
def test_rows_and_ids_are_inverse_and_the_unknown_is_null(known, asked):
    vocabulary = Vocabulary.of(text(known))
    rows = vocabulary.rows(text(asked))
    assert rows.dtype == pl.Int32
    places = {word: place for place, word in enumerate(dict.fromkeys(known))}
    assert rows.to_list() == [places.get(word) for word in asked]
    assert vocabulary.ids(rows).to_list() == [word if word in places else None for word in asked]


NUMBERS = ["0", "7", "12", "100", "640"]
NEARLY = [*NUMBERS, "07", "+7", "-7", " 7", "7 ", "7.0", "1e2", "-0", "", "\u0667", "641", "9" * 30, None]


@given(st.lists(st.sampled_from(NUMBERS)), st.lists(st.sampled_from(NEARLY)), st.booleans())
def test_ids_that_are_numbers_are_found_as_texts_are(known, asked, by_text):
    """Looked up by number where all of them are plain numbers; one that is not (of a known length) takes the join."""
    vocabulary = Vocabulary.of(text([*known, *(["07"] if by_text else [])]))
    places = {word: place for place, word in enumerate(vocabulary.entries)}
    expected = [places.get(word) for word in asked]
    assert vocabulary.rows(text(asked)).to_list() == expected
    frame = vocabulary.with_rows(pl.LazyFrame({"user": text(asked), "at": range(len(asked))}), "user", "user_row")
    found = frame.collect(engine="streaming")
    assert found["user_row"].to_list() == expected
    assert found["user_row"].dtype == pl.Int32
    assert found["at"].to_list() == list(range(len(asked)))


def test_numbers_far_apart_do_not_make_a_table_over_all_of_them():
    far = text(["5", str(10**12), str(2**63 - 1)])
    vocabulary = Vocabulary.of(far)
    assert vocabulary.rows(text([str(2**63 - 1), "6", "5"])).to_list() == [2, None, 0]


def test_nulls_numbers_and_rows_out_of_range_are_refused():
    vocabulary = Vocabulary.of(text(["a", "b"]))
    with pytest.raises(ValueError, match="1 null"):
        vocabulary.grow(text(["c", None]))
    with pytest.raises(TypeError, match="Int64"):
        vocabulary.rows(pl.Series([1]))
    for row in (2, -1):
        with pytest.raises(IndexError, match=f"row {row} "):
            vocabulary.ids(pl.Series([0, row]))
    assert vocabulary.rows(text([None, "b"])).to_list() == [None, 1]


def test_digest_tells_ids_and_order_apart():
    words = [["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"], []]
    assert len({Vocabulary.of(text(word)).digest for word in words}) == len(words)
    assert Vocabulary.of(text(["ab", "c", "ab"])).digest == Vocabulary.of(text(["ab", "c"])).digest


def test_saved_and_loaded(tmp_path):
    vocabulary = Vocabulary.of(text(["ü", "", "x"]))
    vocabulary.save(tmp_path / "v.parquet")
    assert Vocabulary.load(tmp_path / "v.parquet") == vocabulary
    assert pl.read_parquet_schema(tmp_path / "v.parquet") == VOCABULARY_SCHEMA


@pytest.mark.parametrize(
    ("rows", "words", "fault"),
    [
        ([0, 2], ["a", "b"], "gap"),
        ([1, 0], ["a", "b"], "gap"),
        ([0, 1], ["a", "a"], "twice, such as that of row 0"),
        ([0, 1], ["a", None], "1 null ids"),
        ([0, None], ["a", "b"], "1 null rows"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, rows, words, fault):
    pl.DataFrame({"row": rows, "id": words}, schema=VOCABULARY_SCHEMA).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(ArtifactError, match=fault):
        Vocabulary.load(tmp_path / "v.parquet")


def test_another_file_is_refused(tmp_path):
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "other.parquet")
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    for name in ("other", "noise", "absent"):
        with pytest.raises(ArtifactError, match=name):
            Vocabulary.load(tmp_path / f"{name}.parquet")
