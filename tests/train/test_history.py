"""What a run leaves to read: table, page, plot, progress."""

import json
import re
import sys
import types

import optax
import pytest
from flax import nnx
from small_models import Linear, points

from trivium.train import History, fit


@pytest.fixture
def history():
    return History(
        loss=[0.5, 0.25],
        metric=[0.8, 0.9],
        validation_loss=[0.6, 0.7],
        validation_metric=[0.75, 0.74],
        seconds=[1.0, 2.0],
        examples_per_second=[60_000.0, 30_000.0],
        best_epoch=1,
        stopped_early=True,
    )


def test_table(history):
    lines = str(history).splitlines()
    assert lines[0].split("  ")[0] == "epoch"
    assert "validation accuracy" in lines[0]
    assert lines[1].split() == ["1", "*", "0.5000", "0.8000", "0.6000", "0.7500", "1.0", "60,000"]
    assert lines[3] == "* stopped early; the model has the weights of epoch 1"
    assert len(set(map(len, lines[:3]))) == 1
    assert str(History()) == "no epoch completed"


def test_page(history):
    page = history._repr_html_()
    assert page.count("<tr>") == 3
    assert '<th scope="col">validation loss</th>' in page
    history.metric_name = "<b>"
    assert "<b>" not in history._repr_html_()
    assert "no epoch" in History()._repr_html_()


def test_without_validation_or_metric():
    history = History(loss=[0.5], seconds=[1.0], examples_per_second=[10.0], metric_name=None)
    assert str(history).splitlines()[0].split() == ["epoch", "loss", "seconds", "examples/s"]
    assert [axis.get_ylabel() for axis in history.plot().axes] == ["loss"]


def test_plot(history):
    drawing = history.plot()
    assert [axis.get_ylabel() for axis in drawing.axes] == ["loss", "accuracy"]
    training, validation, best = drawing.axes[0].lines
    assert list(training.get_ydata()) == [0.5, 0.25]
    assert list(validation.get_ydata()) == [0.6, 0.7]
    assert set(best.get_xdata()) == {1}
    names = {text.get_text() for text in drawing.axes[0].texts}
    assert names == {"training", "validation"}
    assert history.plot(drawing.axes[1]) is drawing
    with pytest.raises(ValueError, match="no completed epoch"):
        History().plot()


def test_json(history):
    assert History(**json.loads(json.dumps(history.to_dict()))) == history


OPTIMIZER = optax.sgd(0.1)


def run(**options):
    fit(
        Linear(rngs=nnx.Rngs(0)),
        points(64),
        epochs=2,
        optimizer=OPTIMIZER,
        batch_size=8,
        validation=points(64),
        **options,
    )


def test_a_log_gets_a_line_an_epoch(capsys):
    run()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.match(r"epoch 2/2  loss \d\.\d{4}, ", lines[1])
    for part in ("accuracy 0.", "examples/s", "validation loss", "validation accuracy"):
        assert part in lines[1]


def test_quiet(capsys):
    run(progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run()
    shown = capsys.readouterr().err
    assert "epoch 2/2: 100%" in shown
    assert "validation accuracy" in shown


def test_a_notebook_keeps_the_final_lines_only(monkeypatch, capsys):
    shown: list = []

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return types.SimpleNamespace(
            update=lambda data, raw: shown.__setitem__(0, data["text/plain"])
        )

    kernel = types.SimpleNamespace(kernel=object())
    python = types.SimpleNamespace(get_ipython=lambda: kernel)
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    run()
    assert len(shown) == 1
    assert [line[:9] for line in shown[0].splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert capsys.readouterr().err == ""
