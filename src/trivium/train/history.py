"""What a training run did, epoch by epoch."""

import html
from dataclasses import asdict, dataclass, field
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trivium import figures

_COLUMNS = {
    "loss": "loss",
    "metric": "{metric}",
    "validation_loss": "validation loss",
    "validation_metric": "validation {metric}",
    "seconds": "seconds",
    "examples_per_second": "examples/s",
}


@dataclass
class History:
    """The record of a training run: one entry an epoch in each list.

    loss, metric: means over the epoch's examples, each measured by the step that trained on it,
    so with the weights of that moment and dropout on. validation_loss, validation_metric: means
    over the validation set after the epoch; empty without one. seconds: time spent training,
    without compiling and validating. examples_per_second: examples / seconds.
    metric_name: what the metric is called; None (and no metric) where `fit` was given none.
    compile_seconds: time spent compiling, in all. best_epoch: 1-based, the epoch whose weights the
    model got back, where `patience` was asked for. stopped_early: whether patience ran out.
    """

    loss: list = field(default_factory=list)
    metric: list = field(default_factory=list)
    validation_loss: list = field(default_factory=list)
    validation_metric: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    examples_per_second: list = field(default_factory=list)
    metric_name: str | None = "accuracy"
    compile_seconds: float = 0.0
    best_epoch: int | None = None
    stopped_early: bool = False

    @property
    def epochs(self) -> int:
        """How many epochs were completed."""
        return len(self.loss)

    def to_dict(self) -> dict:
        """All fields as plain Python values, ready for JSON."""
        return asdict(self)

    def _columns(self):
        """Headings and formatted cells of the columns that hold anything."""
        for name, heading in _COLUMNS.items():
            values = getattr(self, name)
            if values:
                digits = {"seconds": ",.1f", "examples_per_second": ",.0f"}.get(name, ".4f")
                cells = [format(value, digits) for value in values]
                yield heading.format(metric=self.metric_name), cells

    def _rows(self):
        columns = list(self._columns())
        best = [" *" if epoch + 1 == self.best_epoch else "" for epoch in range(self.epochs)]
        epochs = [f"{epoch + 1}{best[epoch]}" for epoch in range(self.epochs)]
        header = ["epoch", *(heading for heading, _ in columns)]
        return [header, *map(list, zip(epochs, *(cells for _, cells in columns), strict=True))]

    def _note(self):
        if self.best_epoch is None:
            return ""
        early = "stopped early; " if self.stopped_early else ""
        return f"* {early}the model has the weights of epoch {self.best_epoch}"

    def __str__(self):
        if not self.epochs:
            return "no epoch completed"
        rows = self._rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*lines, self._note()]).rstrip()

    def _repr_html_(self):
        if not self.epochs:
            return "<p>no epoch completed</p>"
        header, *rows = self._rows()
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        note = f"<p>{self._note()}</p>" if self._note() else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw loss, and beside it the metric, over the epochs; return the figure.

        ax: draw the loss alone into these axes; None makes a figure in the book's style. Each
        curve's name stands at its right end; a dotted line marks the best epoch where early
        stopping chose one.

        Raises ValueError when no epoch was completed.
        """
        if not self.epochs:
            raise ValueError("history holds no completed epoch to plot")
        panels = {"loss": "loss"}
        if ax is not None:
            axes = [ax]
        elif self.metric:
            panels["metric"] = str(self.metric_name)
            axes = list(figures.figure(columns=2)[1])
        else:
            axes = [figures.figure()[1]]
        for axis, (name, label) in zip(axes, panels.items(), strict=True):
            lines = {"training": getattr(self, name)}
            if self.validation_loss:
                lines["validation"] = getattr(self, f"validation_{name}")
            figures.curves(axis, lines, colors={"validation": "ink"}, ylabel=label)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            if self.best_epoch is not None:
                axis.axvline(
                    self.best_epoch, color=figures.COLORS["muted"], linewidth=1, linestyle=":"
                )
        return cast(Figure, axes[0].figure)
