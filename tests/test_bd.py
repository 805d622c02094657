"""pscx.evaluation.bd against curves whose difference is known in closed form, and one worked by hand."""

from __future__ import annotations

from math import e, exp, log

import pytest

from pscx.evaluation.bd import bd_rate, overlap

CURVE = [(0.25, 28.0), (0.5, 31.5), (1.0, 34.0), (2.0, 37.5)]


def scaled(factor: float) -> list[tuple[float, float]]:
    return [(rate * factor, quality) for rate, quality in CURVE]


@pytest.mark.parametrize("factor", [0.8, 1.25, 3.0])
def test_a_shift_of_the_log_rate_is_that_percentage(factor: float) -> None:
    assert bd_rate(CURVE, scaled(factor)) == pytest.approx(100 * (factor - 1))


def test_a_curve_against_itself_is_zero_in_any_order() -> None:
    assert bd_rate(CURVE, CURVE) == 0
    assert bd_rate(CURVE, CURVE[::-1]) == 0


def test_the_overlap_is_what_both_reach() -> None:
    assert overlap(CURVE, [(0.1, 20.0), (0.9, 33.0)]) == (28.0, 33.0)
    assert overlap(CURVE, [(0.1, 30.0), (0.9, 33.0)]) == (30.0, 33.0)


def test_the_unit_of_the_rate_does_not_matter() -> None:
    other = [(0.3, 29.0), (0.9, 33.0), (1.5, 36.0)]
    anchor_bytes, other_bytes = ([(1000 * rate, quality) for rate, quality in curve] for curve in (CURVE, other))
    assert bd_rate(anchor_bytes, other_bytes) == pytest.approx(bd_rate(CURVE, other))


def test_two_straight_lines_worked_by_hand() -> None:
    """ln(rate) is q/10 for the anchor and q/5 - 3 for the test: over 20 <= q <= 40, from 20..40 and 10..50, the mean
    of q/10 - 3 is 0 at the centre 30. Over 30..40, for a test that begins at 30, it is 35/10 - 3 = 1/2.
    """
    anchor = [(exp(q / 10), q) for q in (20.0, 30.0, 40.0)]
    assert bd_rate(anchor, [(exp(q / 5 - 3), q) for q in (10.0, 30.0, 50.0)]) == pytest.approx(0, abs=1e-9)
    assert bd_rate(anchor, [(exp(q / 5 - 3), q) for q in (30.0, 40.0, 50.0)]) == pytest.approx(100 * (e**0.5 - 1))


def test_between_three_points_the_curve_is_a_monotone_cubic() -> None:
    """Fritsch and Butland's slopes by hand for ln(rate) 0, 1, 7 at quality 0, 1, 3, against the line ln(rate) = q.

    Widths 1 and 2, secants 1 and 3: the inner slope is 9 / (5/1 + 4/3) = 27/19, the outer ones (4*1 - 1*3)/3 = 1/3
    and (5*3 - 2*1)/3 = 13/3. A cubic Hermite piece of width h has the integral h (y0 + y1)/2 + h^2 (d0 - d1)/12.
    """
    test = [(1.0, 0.0), (exp(1.0), 1.0), (exp(7.0), 3.0)]
    integral = (0 + 1) / 2 + (1 / 3 - 27 / 19) / 12 + 2 * (1 + 7) / 2 + 4 * (27 / 19 - 13 / 3) / 12
    line = [(exp(q), q) for q in (0.0, 1.0, 3.0)]
    assert log(1 + bd_rate(line, test) / 100) == pytest.approx((integral - 4.5) / 3)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (CURVE[:1], "test: a curve needs at least 2 points, got 1"),
        ([(0.0, 30.0), (1.0, 33.0)], "test: rates must be over 0"),
        ([(0.5, 30.0), (1.0, float("inf"))], "qualities finite"),
        ([(0.5, 33.0), (1.0, 30.0)], "test: quality must rise with the rate, got 33 at 0.5 and 30 at 1"),
        ([(0.5, 30.0), (0.5, 33.0)], "test: quality must rise with the rate"),
        ([(0.5, 37.5), (1.0, 40.0)], "no quality in common: 28 to 37.5 and 37.5 to 40"),
    ],
)
def test_what_has_no_difference(test: list[tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bd_rate(CURVE, test)
