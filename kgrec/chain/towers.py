"""What is done to the towers after training: calibration on validation, and their facts for people.

Axes: N rows of validation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.questions import Judge, Vectors, in_pieces
from kgrec.evaluation.calibration import CalibrationName, calibration_errors, fit_calibration
from kgrec.model.network import Network, run_towers


def calibrate(network: Network, judge: Judge, vectors: Vectors, name: CalibrationName) -> dict[str, dict[str, float]]:
    """Set the towers' slope and intercept to what fits validation best, and return them with the errors, by head.

    Click is fitted on all exposures, conversion on the clicked ones. ece_before and ece_after are of validation, after
    by cross-fitting. Empty where no row of validation has a label.
    """
    rows = judge.labelled_rows(c.VALIDATION)
    if network.towers is None or rows is None:
        return {}
    found: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        encoded = judge.encoded(network, vectors, c.VALIDATION)
        for some in in_pieces(rows):
            for key, logit_B in run_towers(network.towers, encoded, *some).logits.items():
                found.setdefault(key, []).append(logit_B)
    logits = {key: torch.cat(parts) for key, parts in found.items()}
    facts: dict[str, dict[str, float]] = {}
    for column, (head, label_N) in enumerate(zip(network.towers.heads, rows.labels(network.towers.heads), strict=True)):
        known_N = (
            rows.click_N > 0 if head == "conversion" and rows.click_N is not None else torch.ones_like(label_N) > 0
        )
        logit_N, judged_N = logits[head][known_N].double().numpy(), label_N[known_N].double().numpy()
        if not len(judged_N):
            continue
        fitted = fit_calibration(logit_N, judged_N, name)
        network.towers.slope_T[column], network.towers.intercept_T[column] = fitted.slope, fitted.intercept
        errors = {f"ece_{when}": error for when, error in calibration_errors(logit_N, judged_N, name).items()}
        facts[head] = {"slope": fitted.slope, "intercept": fitted.intercept, **errors}
    return facts


def gates(network: Network, features: Artifact | None) -> dict[str, dict[str, float]]:
    """Return each task's gate of each feature by its name; empty where there are no gates."""
    if network.towers is None or features is None:
        return {}
    return network.towers.gate_values(list(features.facts["numeric"]), list(features.facts["categorical"]))
