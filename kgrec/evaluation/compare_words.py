"""What a comparison says, in plain words: the graph, the tasks together or alone, every other arm, the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from kgrec.evaluation.compare import Difference, Outcome
from kgrec.evaluation.report_words import chance_words, decimals, plain_name
from kgrec.evaluation.significance import LEVEL_OF_NOISE

GROUPS: Final[Mapping[str, str]] = {
    "ranking": "ranking",
    "ranking_cold": "ranking of items that training never saw",
    "click": "click",
    "conversion": "conversion, given a click",
    "click_and_conversion": "click and conversion",
    "link": "missing links",
}


class ArmKind(StrEnum):
    """What an arm is there for."""

    GRAPH_OFF = "graph_off"
    GRAPH_SHUFFLED = "graph_shuffled"
    ALONE = "alone"
    OTHER = "other"


def headlines(lines: Sequence[Difference]) -> list[Difference]:
    """Return the one line of each arm and group that decides: NDCG at the shortest list, recall there for cold items.

    AUC, and MRR for links, stand alone in their groups.
    """
    wanted = {"ranking": "ndcg", "ranking_cold": "recall"}
    chosen: dict[tuple[str, str, str], Difference] = {}
    for line in lines:
        family, _, k = line.metric.partition("@")
        if family != wanted.get(line.group, family):
            continue
        key = (line.arm, line.group, line.segment)
        if key not in chosen or int(k or 0) < int(chosen[key].metric.partition("@")[2] or 0):
            chosen[key] = line
    return list(chosen.values())


def verdicts(
    reference: str, lines: Sequence[Difference], segments: Sequence[Difference], baselines: Sequence[Difference],
    kinds: Mapping[str, ArmKind], seeds: int,
) -> list[str]:  # fmt: skip
    """Return the sentences, the graph's first. lines, segments and baselines: each corrected as its own family."""
    decisive = headlines(lines)
    said = _graph(decisive, kinds)
    for line in decisive:
        if kinds[line.arm] is ArmKind.ALONE:
            said.append(_alone(reference, line, segments))
        elif kinds[line.arm] is ArmKind.OTHER:
            said.append(f"{line.arm}, {GROUPS[line.group]}: {_outcome(line, reference)} {_figures(line, reference)}.")
    said += _against_baselines(reference, headlines(baselines))
    if seeds == 1:
        said.append("One seed: what another start of training would change is not in these figures.")
    return said


def _graph(decisive: Sequence[Difference], kinds: Mapping[str, ArmKind]) -> list[str]:
    by_kind = {(line.group, kinds[line.arm]): line for line in decisive}
    said = []
    for group in dict.fromkeys(line.group for line in decisive):
        off, shuffled = (by_kind.get((group, kind)) for kind in (ArmKind.GRAPH_OFF, ArmKind.GRAPH_SHUFFLED))
        parts = []
        if off is not None:
            parts.append(f"{_OFF[off.outcome]} {_figures(off, 'with it', 'without')}")
        if shuffled is not None:
            parts.append(f"{_SHUFFLED[shuffled.outcome]} {_figures(shuffled, 'true', 'shuffled')}")
        if parts:
            text = "; ".join(parts)
            said.append(f"{GROUPS[group][0].upper()}{GROUPS[group][1:]}: {text}.")
    return said


_OFF: Final = {
    Outcome.WORSE: "the graph helps",
    Outcome.BETTER: "the graph does not help, it is better without",
    Outcome.NOISE: "with or without the graph, the difference is inside the noise",
}
_SHUFFLED: Final = {
    Outcome.WORSE: "what its triples say matters, a shuffled graph is worse",
    Outcome.BETTER: "a shuffled graph is better than the true one",
    Outcome.NOISE: "true or shuffled, the difference is inside the noise",
}


def _alone(reference: str, line: Difference, segments: Sequence[Difference]) -> str:
    name = GROUPS[line.group]
    figures = _figures(line, "together", "alone")
    if line.outcome is Outcome.NOISE:
        text = f"{name[0].upper()}{name[1:]}: learned with the other tasks or alone, the difference is inside the noise"
    elif line.outcome is Outcome.BETTER:
        text = f"Negative transfer in {name}: alone it is better than with the other tasks"
    else:
        text = f"Learning together helps {name}"
    here = [s for s in segments if (s.arm, s.group, s.metric) == (line.arm, line.group, line.metric)]
    worse = [s.segment for s in here if s.outcome is Outcome.BETTER]
    better = [s.segment for s in here if s.outcome is Outcome.WORSE]
    text = f"{text} {figures}"
    text += f"; better alone for {', '.join(worse)}" if worse else ""
    text += f"; better together for {', '.join(better)}" if better else ""
    return f"{text}."


def _outcome(line: Difference, reference: str) -> str:
    words = {Outcome.BETTER: f"better than {reference}", Outcome.WORSE: f"worse than {reference}"}
    return words.get(line.outcome, f"the difference to {reference} is inside the noise")


def _against_baselines(reference: str, decisive: Sequence[Difference]) -> list[str]:
    ranked = [line for line in decisive if line.group == "ranking"]
    if not ranked:
        return []
    best = max(ranked, key=lambda line: line.value)
    words = {
        Outcome.WORSE: "is better than the best baseline",
        Outcome.BETTER: "is worse than the best baseline",
        Outcome.NOISE: "and the best baseline differ by no more than noise",
    }[best.outcome]
    return [f"Ranking: {reference} {words} {_figures(best, reference, best.arm)}."]


def _figures(line: Difference, reference: str, own: str = "") -> str:
    """Return the two figures and the corrected p, in brackets; a small p is no more than noise if seeds disagree."""
    disagree = line.outcome is Outcome.NOISE and line.p_holm <= LEVEL_OF_NOISE
    chance = chance_words(line.p_holm) + (", but not every seed says so" if disagree else "")
    own = own or line.arm
    return f"({plain_name(line.metric)} {decimals(line.reference)} {reference}, {decimals(line.value)} {own}, {chance})"
