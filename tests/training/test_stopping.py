import math

from hypothesis import given
from hypothesis import strategies as st

from kgrec.training.stopping import Stopping


@given(st.lists(st.floats(-5, 5) | st.just(math.nan), max_size=30), st.integers(0, 4))
def test_the_first_best_epoch_is_kept_and_patience_counts_from_it(objectives: list[float], patience: int) -> None:
    state = Stopping(patience)
    seen: list[float] = []
    for epoch, objective in enumerate(objectives):
        state = state.after(epoch, objective)
        seen.append(-math.inf if math.isnan(objective) else objective)
        best = seen.index(max(seen)) if max(seen) > -math.inf else -1
        assert state.best_epoch == best
        assert state.should_stop == (patience > 0 and epoch - best >= patience)
