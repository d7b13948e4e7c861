import numpy as np
import pytest

from kgrec.evaluation.calibration import FEWEST, Calibration, CalibrationName, calibration_errors, fit_calibration


def world(rows: int, slope: float, intercept: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels whose true logit is slope * logit + intercept."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, rows)
    return logits, (generator.random(rows) < 1 / (1 + np.exp(-(slope * logits + intercept)))).astype(float)


def test_platt_finds_the_planted_slope_and_intercept() -> None:
    fitted = fit_calibration(*world(40_000, 0.5, -0.8), CalibrationName.PLATT)
    assert fitted.slope == pytest.approx(0.5, abs=0.03)
    assert fitted.intercept == pytest.approx(-0.8, abs=0.03)


def test_temperature_moves_the_slope_alone() -> None:
    fitted = fit_calibration(*world(40_000, 0.5, 0.0), CalibrationName.TEMPERATURE)
    assert fitted.slope == pytest.approx(0.5, abs=0.03)
    assert fitted.intercept == 0


def test_the_fit_is_the_least_log_loss_of_a_grid() -> None:
    logits, labels = world(3000, 1.7, 0.4)
    fitted = fit_calibration(logits, labels, CalibrationName.PLATT)
    positives = labels.sum()
    target = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))

    def cost(slope: float, intercept: float) -> float:
        chance = Calibration(slope, intercept).probabilities(logits)
        return float(-np.mean(target * np.log(chance) + (1 - target) * np.log(1 - chance)))

    best = cost(fitted.slope, fitted.intercept)
    for slope in np.linspace(-0.1, 0.1, 5):
        for intercept in np.linspace(-0.1, 0.1, 5):
            assert best <= cost(fitted.slope + slope, fitted.intercept + intercept) + 1e-12


@pytest.mark.parametrize("name", list(CalibrationName))
def test_too_few_rows_a_constant_label_or_a_backward_slope_change_nothing(name: CalibrationName) -> None:
    logits, labels = world(2 * FEWEST - 1, 0.4, 0.3)
    assert fit_calibration(logits, labels, name) == Calibration()
    assert fit_calibration(np.zeros(900), np.ones(900), name) == Calibration()
    assert fit_calibration(*world(5000, -1.0, 0.0), name) == Calibration()
    assert fit_calibration([], [], name) == Calibration()


def test_errors_fall_where_there_was_something_to_mend() -> None:
    logits, labels = world(20_000, 0.4, 0.7)
    errors = calibration_errors(logits, labels, CalibrationName.PLATT)
    assert errors["after"] < 0.02
    assert errors["before"] > 0.1
    without = calibration_errors(logits, labels, CalibrationName.NONE)
    assert without["after"] == without["before"] == errors["before"]
    assert calibration_errors([], [], CalibrationName.PLATT) == {}
