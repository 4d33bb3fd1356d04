"""Early stopping gives back the best epoch's weights."""

import numpy as np
import optax
import pytest
from flax import nnx
from small_models import Linear, points

from trivium.train import evaluate, fit

OPTIMIZER = optax.sgd(30.0)  # so large that the loss jumps about


@pytest.mark.parametrize(
    ("monitor", "key", "best"),
    [("validation_loss", "loss", np.argmin), ("validation_metric", "metric", np.argmax)],
)
@pytest.mark.parametrize("patience", [2, 50])
def test_the_best_weights_come_back(monitor, key, best, patience):
    x, _ = points(60)
    noise = np.random.default_rng(5).integers(0, 3, 60)  # nothing to be learned
    held_out = (x[:30], noise[:30])
    model = Linear(rngs=nnx.Rngs(0))
    history = fit(
        model,
        (x[30:], noise[30:]),
        epochs=12,
        optimizer=OPTIMIZER,
        batch_size=10,
        validation=held_out,
        patience=patience,
        monitor=monitor,
        progress=False,
    )
    record = getattr(history, monitor)
    assert history.best_epoch == int(best(record)) + 1
    assert evaluate(model, held_out)[key] == record[history.best_epoch - 1]
    assert record[history.best_epoch - 1] != record[-1], "the last epoch was the best: no test"
    if patience == 2:
        assert history.stopped_early
        assert history.epochs == history.best_epoch + 2
    else:
        assert not history.stopped_early
        assert history.epochs == 12
