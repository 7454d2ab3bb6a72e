"""The two schedules."""

from __future__ import annotations

from spadunet.classification.options import ClassificationOptions


def test_the_papers_rate_is_a_tenth_from_epoch_50_of_100_and_a_hundredth_from_75(make_options):
    options: ClassificationOptions = make_options(schedule="steps", max_steps=1300)  # 13 steps an epoch
    rates = [options.rate(options.share_done(13 * epoch, 0), 1.0) for epoch in (0, 49, 50, 74, 75, 99)]
    assert [f"{rate:.3g}" for rate in rates] == ["1", "1", "0.1", "0.1", "0.01", "0.01"]
    assert options.rate(options.share_done(13 * 50 - 1, 0), 1.0) == 1


def test_the_usual_rate_rises_and_falls_to_zero(make_options):
    options = make_options()
    rates = [options.rate(share, 1.0) for share in (0, 0.03, 0.5, 1)]
    assert rates[0] < 0.1
    assert rates[1] == 1
    assert 0.4 < rates[2] < 0.6
    assert rates[3] == 0
