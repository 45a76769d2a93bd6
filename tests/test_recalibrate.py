"""Statistics of batch normalisation taken anew: by the function, in `fit`, by the command."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bitops.cli import main as cli
from bitops.layers import BatchNorm, Dense, Sequential, ShiftBatchNorm
from bitops.models import mlp
from bitops.quantizers import ap2
from bitops.training import Checkpoint, Log, read_log, recalibrate
from trainings import At, assert_same, data, dense, prototypes, stop

X, Y = prototypes()
OPTIONS = {"epochs": 4, "batch_size": 20, "verbose": 0, "validation": (X[160:], Y[160:])}


def fitted(**options):
    model = mlp(96, 32, 1, 4, seed=0)
    history = model.fit(X[:160], Y[:160], **{**OPTIONS, **options})
    return model, history


def statistics(model):
    norms = [layer for layer in model.flat_layers() if isinstance(layer, BatchNorm)]
    return [array for norm in norms for array in (norm.running_mean, norm.running_inv_std)]


def rare(rng, n=400):
    """Features that differ from 0 in few rows, where the mean of inv_std says little."""
    x = rng.standard_normal((n, 5)).astype(np.float32) + np.arange(5, dtype=np.float32)
    x[:, 0] *= rng.random(n) < 0.02
    x[:, 1] = 3
    return x


@pytest.mark.parametrize("batch_size", [10, 100, 399, 1000])
def test_statistics_are_those_of_all_rows(rng, batch_size):
    x, layer = rare(rng), BatchNorm(5)
    recalibrate(Sequential(layer), x, batch_size=batch_size)
    assert_allclose(layer.running_mean, x.mean(axis=0, dtype=float), rtol=1e-6, atol=1e-7)
    expected = (x.var(axis=0, dtype=float) + layer.eps) ** -0.5
    assert_allclose(layer.running_inv_std, expected, rtol=1e-5)


def test_statistics_of_powers_of_two(rng):
    x, layer = rare(rng), ShiftBatchNorm(5)
    recalibrate(Sequential(layer), x, batch_size=400)
    c = x - x.mean(axis=0)
    assert_allclose(layer.running_inv_std, ((c * ap2(c)).mean(axis=0) + layer.eps) ** -0.5, 1e-4)


def test_nothing_else_changes():
    def make():
        model = dense()  # with dropout
        model.forward(x[:50], training=True)
        model.layers[norms[-1]].trainable = False
        return model

    x, y = data()
    norms = [i for i, layer in enumerate(dense().layers) if isinstance(layer, BatchNorm)]
    model, before = make(), make().state()
    recalibrate(model, x, rows=60)
    for place, (now, then) in enumerate(zip(model.state(), before, strict=True)):
        for i, (array, old) in enumerate(zip(now, then, strict=True)):
            is_new = place in norms[:-1] and i in (2, 3)  # behind gamma and beta
            assert np.array_equal(array, old) != is_new
    again = make()
    recalibrate(again, x, rows=60)
    assert_same(model, again)
    for seed in (0, 1):  # the generators of dropout are where they were
        model.fit(x, y, epochs=1, seed=seed, verbose=0)
        again.fit(x, y, epochs=1, seed=seed, verbose=0)
    assert_same(model, again)
    fresh = make()
    fresh.fit(x, y, epochs=1, seed=0, verbose=0)
    fresh.fit(x, y, epochs=1, seed=1, verbose=0)
    for a, b in zip(fresh.parameters(), model.parameters(), strict=True):
        assert_array_equal(a.value, b.value)


def test_isas_and_threads_give_the_same_bits(isa, threads):
    model = mlp(96, 32, 2, 4, seed=0)
    recalibrate(model, X, batch_size=50)
    for array, expected in zip(statistics(model), REFERENCE, strict=True):
        assert_array_equal(array, expected)


def _reference():
    model = mlp(96, 32, 2, 4, seed=0)
    recalibrate(model, X, batch_size=50)
    return statistics(model)


REFERENCE = _reference()


# in fit


def test_fit_measures_what_it_keeps():
    plain, _ = fitted()
    model, history = fitted(recalibrate=100)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert a.shape == b.shape
    assert history.best.validation_error == model.error_rate(X[160:], Y[160:])
    kept = statistics(model)
    recalibrate(model, X[:160], rows=100, batch_size=20)
    for array, expected in zip(statistics(model), kept, strict=True):
        assert_array_equal(array, expected)


def test_fit_gives_the_weights_of_one_without(tmp_path):
    plain, model = (fitted(validation=None, recalibrate=rows)[0] for rows in (0, 100))
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert_array_equal(a.value, b.value)
    assert not np.array_equal(statistics(model)[0], statistics(plain)[0])


@pytest.mark.parametrize("step", [5, 8, 16, 21])
def test_resume_is_exact(tmp_path, step):
    whole, history = fitted(recalibrate=100, schedule="constant")
    path = tmp_path / "run.ckpt"
    options = {"recalibrate": 100, "schedule": "constant"}
    fitted(callbacks=[At(step, stop), Checkpoint(path)], **options)
    model, resumed = fitted(resume=path, **options)
    assert_same(model, whole)
    errors = [[epoch.validation_error for epoch in h.epochs] for h in (history, resumed)]
    assert errors[0] == errors[1]


def test_models_without_batch_normalisation_are_refused():
    with pytest.raises(ValueError, match="recalibrate must be 0 for a model without BatchNorm"):
        Sequential(Dense(96, 4)).fit(X, Y, recalibrate=100)


def test_statistics_taken_anew_are_not_left_by_a_resume(tmp_path):
    """Those before are gone, and errors by other ones would not compare."""
    path = tmp_path / "run.ckpt"
    fitted(recalibrate=100, callbacks=[At(8, stop), Checkpoint(path)])
    with pytest.raises(ValueError, match="recalibrate is 100 there and none here"):
        fitted(resume=path)


@pytest.mark.parametrize("validation", [OPTIONS["validation"], None])
def test_finished_training_is_recalibrated(tmp_path, validation):
    path, log = tmp_path / "run.ckpt", tmp_path / "run.csv"
    plain, history = fitted(validation=validation, callbacks=[Checkpoint(path), Log(log)])
    model, measured = fitted(
        validation=validation,
        recalibrate=100,
        resume=path,
        callbacks=[Checkpoint(path), Log(log)],
    )
    assert len(read_log(log)) == 4
    best = measured.best.number
    assert best in (history.best.number, 4)
    if best == history.best.number:
        for a, b in zip(model.parameters(), plain.parameters(), strict=True):
            assert_array_equal(a.value, b.value)
    if validation is not None:
        assert measured.best.validation_error == model.error_rate(*validation)
    again = {history.best.number, 4}
    for new, old in zip(measured.epochs, history.epochs, strict=True):
        assert (new == old) != (new.number in again and validation is not None)
    recalibrate(plain, X[:160], rows=100, batch_size=20)
    if best == history.best.number:
        assert_same(model, plain)
    # what is written is what a third run finds, and nothing is measured twice
    third, found = fitted(validation=validation, recalibrate=100, resume=path)
    assert_same(third, model)
    assert found.best == measured.best


def test_checkpoint_amid_an_epoch_is_recalibrated(tmp_path):
    path = tmp_path / "run.ckpt"
    _, history = fitted(callbacks=[At(19, stop), Checkpoint(path)])
    at = []
    model, measured = fitted(
        resume=path, recalibrate=100, callbacks=At(20, lambda run: at.append(run.history.best))
    )
    assert at[0].number == history.best.number
    assert measured.best.validation_error == model.error_rate(*OPTIONS["validation"])
    plain, _ = fitted(validation=None)
    last, _ = fitted(validation=None, recalibrate=50)
    for a, b in zip(plain.parameters(), last.parameters(), strict=True):
        assert_array_equal(a.value, b.value)


def kill(run):
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", [8, 24])
def test_checkpoint_before_the_validation_of_its_epoch(tmp_path, step):
    """The last step of an epoch may be in it, and the results of that epoch not yet."""
    path, epoch = tmp_path / "run.ckpt", step // 8
    written = Checkpoint(path, steps=1)
    with pytest.raises(KeyboardInterrupt):
        fitted(callbacks=[written, At(step, kill)])
    model, measured = fitted(resume=path, recalibrate=100)
    _, whole = fitted(recalibrate=100)
    assert [e.number for e in measured.epochs] == [1, 2, 3, 4]
    errors = [[e.validation_error for e in h.epochs[epoch - 1 :]] for h in (measured, whole)]
    assert errors[0] == errors[1]
    assert measured.best.validation_error == model.error_rate(*OPTIONS["validation"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"recalibrate": -1}, r"\[fit\] recalibrate must be"),
        ({"recalibrate": 1}, r"\[fit\] recalibrate must be 0 or at least 2"),
        ({"recalibrate": 2.5}, r"\[fit\] recalibrate must be"),
        ({"x": [(X[:9], Y[:9])], "y": None, "recalibrate": 5}, r"must be 0 for batches"),
        (
            {"x": X[:60, :50], "y": Y[:60], "augment": lambda x, _: x, "recalibrate": 5},
            r"\[fit\] x must have the shape that the model takes",
        ),
    ],
)
def test_refused_before_any_step(options, match):
    model = mlp(96, 32, 1, 4, seed=0)
    options = {"x": X, "y": Y, "epochs": 1, "verbose": 0, **options}
    with pytest.raises((TypeError, ValueError), match=match):
        model.fit(**options)
    assert model.layers[1].batches_seen == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"x": X[:0]}, "at least one row"),
        ({"rows": 0}, "rows must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"rows": 1}, r"\[BatchNorm\] x must have at least two rows"),
    ],
)
def test_function_refuses(options, match):
    with pytest.raises(ValueError, match=match):
        recalibrate(mlp(96, 32, 1, 4, seed=0), **{"x": X, **options})


# the command


def test_command_recalibrates_a_finished_run(capsys, tmp_path):
    images = tmp_path / "images.npz"
    np.savez(images, x=X.reshape(-1, 8, 12), y=Y)
    argv = ["train", "bnn-theano", "--data", str(images), "--width", "16", "--epochs", "2"]
    argv += ["--batch", "20", "--dropout", "0", "--checkpoint", str(tmp_path / "run.ckpt")]
    assert cli.main(argv) == 0
    first = capsys.readouterr().out
    assert "recalibrated" not in first
    assert cli.main([*argv, "--resume", "--recalibrate", "100"]) == 0
    second = capsys.readouterr().out
    assert "recalibrated by 100 images" in second
    assert "bit for bit" in second
