"""All declarations of a feature store judged together: names, columns, sources, circles; every fault at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeAlias

from kgrec.errors import InputError, Problem, nearest
from kgrec.features.aggregations import DistinctCount, LastValues
from kgrec.features.derived import Derived
from kgrec.features.nodes import NodeView
from kgrec.features.view import FeatureView

Declaration: TypeAlias = FeatureView | Derived | NodeView


def split_declarations(declared: Iterable[Declaration]) -> tuple[list[FeatureView], list[Derived]]:
    """Return the views and the derived features, each in the order given."""
    declared = list(declared)
    views = [one for one in declared if isinstance(one, FeatureView)]
    return views, [one for one in declared if isinstance(one, Derived)]


def node_views(declared: Iterable[Declaration]) -> list[NodeView]:
    """Return the views of items in the graph, in the order given."""
    return [one for one in declared if isinstance(one, NodeView)]


def check_declarations(declared: Sequence[Declaration], context: Collection[str] | None = None) -> None:
    """Raise InputError with every fault of the declarations as a whole.

    Refused: names that stand twice, columns that the source does not have, inputs of derived features that nothing
    makes, and circles among these. context: the declared context columns; None where they are not known yet, and then
    a plain column that no source has is taken for one of them. A side feature (`item:...`, `user:...`) is a matter of
    the data: a view over a missing one is left out and named, not refused.
    """
    views, derived = split_declarations(declared)
    problems = _twice([one.name for one in declared])
    problems += [problem for view in views for problem in _unknown_columns(view, context)]
    problems += _bad_inputs(views, derived, [column for view in node_views(declared) for column in view.columns])
    if problems:
        raise InputError(problems)


def declare(makers: Iterable[Callable[[], Declaration]], context: Collection[str] | None = None) -> list[Declaration]:
    """Make the declarations one by one and return them; InputError carries the faults of all of them together.

    >>> from datetime import timedelta
    >>> from kgrec.features.view import Count
    >>> bad = lambda name, window: lambda: FeatureView(name, ("user_row",), (Count(),), window, "what", "who")
    >>> try:
    ...     declare([bad("two words", None), bad("past", -timedelta(days=1))])
    ... except InputError as error:
    ...     print(len(error.problems))
    2
    """
    made: list[Declaration] = []
    problems: list[Problem] = []
    for maker in makers:
        try:
            made.append(maker())
        except InputError as error:
            problems += error.problems
    try:
        check_declarations(made, context)
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    return made


def _twice(names: Sequence[str]) -> list[Problem]:
    return [
        Problem(f"feature view {name!r}", "declared twice", "rename all but one of them", count=names.count(name))
        for name in sorted({name for name in names if names.count(name) > 1})
    ]


def _unknown_columns(view: FeatureView, context: Collection[str] | None) -> list[Problem]:
    gathered = [feature.column for feature in view.features if isinstance(feature, DistinctCount | LastValues)]
    known = [*view.source.columns, *(context or ())]
    problems = []
    for name in dict.fromkeys([*view.keys, *gathered]):
        if ":" in name or name in known:
            continue
        guess = nearest(name, known)
        if context is None and guess is None:
            continue
        remedy = f"did you mean {guess!r}?" if guess else "name it in interactions.context, or use context:*"
        what = f"the source {view.source.name!r} has no column {name!r}"
        problems.append(Problem(f"feature view {view.name!r}", what, remedy, example=", ".join(known)))
    return problems


def _bad_inputs(
    views: Sequence[FeatureView], derived: Sequence[Derived], of_nodes: Sequence[str]
) -> list[Problem]:  # fmt: skip
    made = {column for view in views for column in view.columns} | {feature.name for feature in derived} | {*of_nodes}
    starred = [view for view in views if any(key.endswith(":*") and not view.graph_key for key in view.keys)]
    problems, sound = [], []
    for feature in derived:
        unknown = [name for name in feature.inputs if name not in made and not _may_be_made(name, starred)]
        if not unknown:
            sound.append(feature)
        for name in unknown:
            guess = nearest(name, made)
            remedy = f"did you mean {guess!r}?" if guess else "declare the view that makes it, or drop the feature"
            problems.append(Problem(f"derived feature {feature.name!r}", f"nothing makes its input {name!r}", remedy))
    names = {feature.name for feature in derived}
    waiting = {feature.name: {name for name in feature.inputs if name in names} for feature in sound}
    while ready := [name for name, inputs in waiting.items() if not inputs & set(waiting)]:
        for name in ready:
            del waiting[name]
    if waiting:
        circle = _circle(waiting)
        remedy = "let one of them start from the columns of views"
        problems.append(Problem(f"derived feature {circle[0]!r}", f"a circle: {' -> '.join(circle)}", remedy))
    return problems


def _circle(waiting: dict[str, set[str]]) -> list[str]:
    trail = [min(waiting)]
    while (following := min(waiting[trail[-1]] & set(waiting))) not in trail:
        trail.append(following)
    return [*trail[trail.index(following) :], following]


def _may_be_made(name: str, starred: Sequence[FeatureView]) -> bool:
    view_name, _, feature_name = name.partition("__")
    return any(
        view_name.startswith(f"{view.name}_") and feature_name in {feature.name for feature in view.features}
        for view in starred
    )
