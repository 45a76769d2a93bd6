import pytest

from bitops import training
from bitops.training.schedules import (
    CosineDecay,
    ExponentialDecay,
    Halving,
    OneCycle,
    PerStep,
    StepDecay,
    Stretched,
    Warmup,
)


def rates(schedule, epochs):
    return [schedule(epoch, epochs) for epoch in range(epochs)]


def test_exponential_decay():
    schedule = ExponentialDecay(1e-2, 1e-4)
    assert schedule(0, 10) == pytest.approx(1e-2)
    assert schedule(5, 10) == pytest.approx(1e-3)
    assert schedule(10, 10) == pytest.approx(1e-4)
    ratios = [schedule(e + 1, 10) / schedule(e, 10) for e in range(10)]
    assert ratios == pytest.approx([ratios[0]] * 10)
    assert training.ExponentialDecay is ExponentialDecay


def test_step_decay():
    assert rates(StepDecay(1.0, (2, 3), 0.5), 5) == [1, 1, 0.5, 0.25, 0.25]
    assert rates(StepDecay(1.0, (1, 4), (0.5, 0.125)), 5) == [1, 0.5, 0.5, 0.5, 0.0625]
    assert rates(StepDecay(0.5, ()), 2) == [0.5, 0.5]
    assert StepDecay(1.0, (30,))(30, 100) == pytest.approx(0.1)


def test_halving_keeps_powers_of_two():
    assert rates(Halving(2**-6, 2), 5) == [2**-6, 2**-6, 2**-7, 2**-7, 2**-8]


def test_cosine_decay():
    schedule = CosineDecay(1.0, 0.5)
    assert schedule(0, 8) == 1
    assert schedule(4, 8) == pytest.approx(0.75)
    assert schedule(8, 8) == pytest.approx(0.5)
    assert schedule(2, 8) == pytest.approx(0.5 + 0.25 * (1 + 0.5**0.5))
    assert CosineDecay(1.0)(8, 8) == pytest.approx(0)


def test_warmup():
    inner = CosineDecay(1.0)
    schedule = Warmup(inner, 3)
    assert rates(schedule, 9)[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates(schedule, 9)[3:] == rates(inner, 6)
    assert rates(Warmup(inner, 0), 4) == rates(inner, 4)
    assert rates(schedule, 2) == [0.25, 0.5]  # a run that ends in the warm-up


def test_stretched():
    """Ten epochs stand for a hundred, and a hundred for ten; a single one is the first."""
    inner = Halving(1.0, 20)
    assert rates(Stretched(inner, 100), 10) == [
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
        1 / 8,
        1 / 8,
        1 / 16,
        1 / 16,
    ]
    assert rates(Stretched(inner, 100), 100) == rates(inner, 100)
    assert rates(Stretched(StepDecay(1.0, (3,)), 10), 20) == [1.0] * 6 + [0.1] * 14
    assert rates(Stretched(inner, 100), 1) == [1]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: ExponentialDecay(1e-3, 0), "ExponentialDecay"),
        (lambda: StepDecay(-0.5, ()), "StepDecay"),
        (lambda: StepDecay(1.0, (3, 2)), "StepDecay"),
        (lambda: StepDecay(1.0, (0,)), "StepDecay"),
        (lambda: StepDecay(1.0, (1, 2), (0.5,)), "StepDecay"),
        (lambda: StepDecay(1.0, (1,), -0.5), "StepDecay"),
        (lambda: Halving(0.0), "Halving"),
        (lambda: Halving(1.0, 0), "Halving"),
        (lambda: CosineDecay(0.0), "CosineDecay"),
        (lambda: CosineDecay(1.0, -0.1), "CosineDecay"),
        (lambda: Warmup(CosineDecay(1.0), -1), "Warmup"),
        (lambda: Stretched(CosineDecay(1.0), 0), "Stretched"),
        (lambda: Warmup(OneCycle(1.0), 1), "Warmup"),
        (lambda: Stretched(PerStep(CosineDecay(1.0)), 1), "Stretched"),
        (lambda: PerStep(OneCycle(1.0)), "PerStep"),
    ],
)
def test_bad_settings(make, name):
    with pytest.raises(ValueError, match=rf"^\[{name}\] "):
        make()
