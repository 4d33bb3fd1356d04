"""fit: the training run, from its first step (or its last checkpoint) to its last."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from trivium.train import batches, step
from trivium.train.checks import (
    check_call,
    check_model,
    check_optimizer,
    check_stopping,
    check_whole,
    cross_entropy,
)
from trivium.train.devices import Devices
from trivium.train.evaluation import Scorer, means
from trivium.train.examples import pair
from trivium.train.history import History
from trivium.train.nonfinite import explain
from trivium.train.progress import Progress

# How long one call into the compiled program should last: long enough that Python's part is
# nothing, short enough for a lively progress line and a prompt interrupt.
_CALL_SECONDS = 0.1
# Calls that may be under way before the host waits for the oldest.
_AHEAD = 4


def fit(
    model: nnx.Module,
    data,
    *,
    epochs: int,
    optimizer: optax.GradientTransformation,
    loss: Callable = cross_entropy,
    metric: Callable | None = step.accuracy,
    batch_size: int = 32,
    validation=None,
    seed: int = 0,
    patience: int | None = None,
    monitor: str = "validation_loss",
    checkpoint=None,
    checkpoint_every: int | None = None,
    buckets: int = 8,
    trainable: Any = nnx.Param,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
) -> History:
    """Train a model in place and return the record of the run.

    data: a pair (inputs, labels). inputs: an array [N, ...], then the model is called as
    `model(x)` with x [batch, ...]; or a list of N variable-length arrays [T_i] or [T_i, D], then
    as `model(x, lengths=lengths)` with x [batch, T] or [batch, T, D] padded with zeros and lengths
    [batch] int32. labels: [N] integers for the default loss. 64-bit numbers are trained in 32 bits.
    The data set is moved to the device once and must fit there; sequences are stored there end to
    end, without padding. A sequence of length 0 is handed to the model as it is, which must be
    able to answer it.

    optimizer: any optax transformation. loss, metric: functions (outputs, labels) -> [batch], one
    number for each example; metric may be None. Each step takes the mean loss over the examples of
    its batch; places left over in the last batch are filled with other examples of weight zero.
    trainable: the nnx filter that says which variables are trained, such as nnx.LoRAParam.

    Sequences are padded to one of at most `buckets` widths, those that pad the fewest steps in all.
    A batch holds sequences of one width (those left over join the next wider), and each width is
    compiled once.

    The order of examples follows from seed and epoch alone; dropout follows from the model's own
    random streams, which move on with every step.

    validation: a pair like data, evaluated after each epoch. patience: stop after this many epochs
    without a better `monitor` ("validation_loss", lower is better, or "validation_metric", higher
    is better); the model then has the best epoch's weights, also where patience never ran out.

    checkpoint: a folder. Weights, optimizer, random streams, position in the data and history are
    written there after each epoch, every `checkpoint_every` steps, and on an interrupt; the newest
    two are kept. If the folder holds a checkpoint, the run goes on from it, and ends with the
    weights and history of a run that was never interrupted, bit for bit on the same device and
    versions. More `epochs` than before go on from where the last run ended; for a fresh start,
    delete the folder. Optimizer settings that leave no trace in its state's shapes, such as the
    learning rate, may change on the way.

    mesh: each batch is spread over the mesh's first axis; weights and data are on every device.
    Every process of a multi-host run must be given the same data.

    progress: show loss, metric and speed while training. The model ends in the mode (train or
    eval) in which it came. On Ctrl-C the step under way is finished and the model has the weights
    so far (a second Ctrl-C stops at once).

    Raises ValueError or TypeError for arguments that do not fit, naming them; NonFiniteLoss when
    loss, gradient or weights stop being finite, naming step, learning rate and layer: the model
    then has the weights from before that step.
    """
    check_model(model)
    check_whole(0, epochs=epochs)
    check_whole(0, seed=seed)
    check_whole(1, batch_size=batch_size, buckets=buckets)
    check_optimizer(optimizer)
    check_stopping(patience, monitor, validation, metric)
    if checkpoint_every is not None:
        check_whole(1, checkpoint_every=checkpoint_every)
        if checkpoint is None:
            raise ValueError("checkpoint_every needs checkpoint, the folder to write to")
    devices = Devices(mesh, batch_size)
    examples = pair(data, "data")
    held_out = None if validation is None else pair(validation, "validation")

    graphdef, weights, rest = step.split(model, trainable)
    if not jax.tree.leaves(weights):
        raise ValueError(f"the model has no variable that trainable={trainable} selects")
    own = jax.tree.leaves((weights, rest))
    start = step.TrainState(weights, rest, optimizer.init(weights), np.int32(0), np.bool_(True))
    program = step.Program(
        graphdef, jax.tree.structure(start), trainable, loss, metric, optimizer, devices.sharding
    )
    answering = program._replace(treedef=jax.tree.structure((weights, rest)), optimizer=None)
    run = _Run(
        program,
        tuple(devices.own(leaf) for leaf in jax.tree.leaves(start)),
        devices,
        examples,
        batch_size=devices.batch(batch_size, examples.size),
        buckets=buckets,
        seed=seed,
    )
    check_call(answering, run.weights(), run.examples, run.batch_size, "data")
    if held_out is not None:
        scorer = Scorer(
            answering, devices, held_out, batch_size=max(batch_size, 256), buckets=buckets
        )
        check_call(answering, run.weights(), scorer.examples, scorer.batch_size, "validation")
        run.validate_with(scorer, patience, monitor)
    try:
        if checkpoint is not None:
            run.checkpoint_in(checkpoint, checkpoint_every)
        if run.history.epochs > epochs:
            raise ValueError(
                f"epochs={epochs}, but the checkpoint in {checkpoint} holds {run.history.epochs}"
            )
        run.train(epochs, Progress(progress, epochs, run.steps))
    finally:
        run.close()
        kept = run.weights()
        # A call that failed midway (out of memory) has consumed them: the model stays as it was.
        if not any(leaf.is_deleted() for leaf in kept):
            homes = [getattr(leaf, "sharding", None) for leaf in own]
            back = [devices.home(leaf, home) for leaf, home in zip(kept, homes, strict=True)]
            nnx.update(model, *jax.tree.unflatten(answering.treedef, back))
    return run.history


class _Run:
    """A training run: its state, and what happens to it call by call."""

    def __init__(self, program, leaves, devices, examples, *, batch_size, buckets, seed):
        self.program, self.leaves, self.devices = program, leaves, devices
        self.advance = step.training(program)
        start = jax.tree.unflatten(program.treedef, leaves)
        self.model_leaves = len(jax.tree.leaves((start.trainable, start.rest)))
        self.count, self.lengths = examples.size, examples.lengths
        self.examples = devices.put(examples)
        self.batch_size, self.buckets, self.seed = batch_size, buckets, seed
        self.widths = None
        if self.lengths is not None:
            self.widths = batches.bucket_widths(self.lengths, buckets)
        self.steps = -(-self.count // batch_size)  # of an epoch
        self.history = History(metric_name=_name(program.metric))
        self.step = 0  # taken since the beginning of training
        self.log = np.zeros((0, 2), np.float32)  # sums of loss and metric, each step of the epoch
        self.seconds = 0.0  # spent on the epoch so far
        self.pace: float | None = None  # seconds a step
        self.compiled: set = set()
        self.scorer: Scorer | None = None
        self.patience: int | None = None
        self.monitor = "validation_loss"
        self.best: Any = None  # the best epoch's weights
        self.best_value: Any = None  # and what was monitored then
        self.finished = False
        self.checkpoints: Any = None
        self.checkpoint_every: int | None = None

    def weights(self):
        """The leaves of (trainable, rest) that the model is to have if training ends now."""
        if self.finished and self.best is not None:
            return self.best
        return self.leaves[: self.model_leaves]

    def validate_with(self, scorer, patience, monitor):
        """Evaluate after each epoch, and stop early if patience is given."""
        self.scorer, self.patience, self.monitor = scorer, patience, monitor

    def train(self, epochs, bar):
        """Take all steps that are left."""
        self.bar = bar
        try:
            with _interrupt_between_calls() as self.interrupted:
                while self.history.epochs < epochs and not self.history.stopped_early:
                    self._epoch()
            self.finished = True
        finally:
            bar.close()

    def close(self):
        """Wait for the checkpoint that is being written."""
        if self.checkpoints is not None:
            self.checkpoints.close()
            self.checkpoints = None

    def _epoch(self):
        epoch = self.history.epochs
        begin, end = epoch * self.steps, (epoch + 1) * self.steps
        order = batches.shuffled(
            self.count,
            self.batch_size,
            lengths=self.lengths,
            widths=self.widths,
            seed=self.seed,
            epoch=epoch,
        )
        rows = self.devices.put_rows(order.rows)
        self.seen = np.cumsum((order.rows >= 0).sum(axis=1))
        self._compile(order, rows)
        self.bar.begin(epoch, self.step - begin)
        self.clock = time.perf_counter()
        waiting: deque = deque()
        sent = self.step
        while sent < end:
            width = order.widths[sent - begin]
            limit = sent + self._call_steps()
            if self.checkpoint_every is not None:
                limit = min(limit, sent + self.checkpoint_every - sent % self.checkpoint_every)
            sent = begin + batches.same_width(order.widths, sent - begin, limit - begin)
            self.leaves, log, status = self.advance(
                self.leaves, self.examples, rows, np.int32(sent), width=width
            )
            waiting.append((log, status))
            interrupted = self.interrupted()
            due = self.checkpoint_every is not None and sent % self.checkpoint_every == 0
            patient = 0 if due or interrupted or sent == end else _AHEAD
            while len(waiting) > patient:
                log, status = waiting.popleft()
                self._read(log, status, order, rows)
            if (due or interrupted) and sent < end:
                self._save()
            if interrupted and sent < end:
                raise KeyboardInterrupt
        self._end_epoch()
        if self.interrupted():
            raise KeyboardInterrupt

    def _compile(self, order, rows):
        """Compile for each width by taking no step at all, so that no epoch's time includes it."""
        clock = time.perf_counter()
        for width in sorted(set(order.widths) - self.compiled):
            self.leaves, _, status = self.advance(
                self.leaves, self.examples, rows, np.int32(self.step), width=width
            )
            status.block_until_ready()
            self.compiled.add(width)
            self.history.compile_seconds += time.perf_counter() - clock
            clock = time.perf_counter()

    def _call_steps(self):
        """How many steps the next call should take, by the pace so far."""
        if self.pace is None:
            return 1
        return int(np.clip(_CALL_SECONDS / self.pace, 1, step.LOG))

    def _read(self, log, status, order, rows):
        """Wait for a call and keep its log; raise if it met a step that is not finite."""
        reached, finite = (int(number) for number in np.asarray(status))
        now = time.perf_counter()
        taken, spent = reached - self.step, now - self.clock
        self.log = np.concatenate([self.log, np.asarray(log)[:taken]])
        self.step, self.seconds, self.clock = reached, self.seconds + spent, now
        epoch = self.history.epochs
        place = self.step - epoch * self.steps
        if not finite:
            state = jax.tree.unflatten(self.program.treedef, self.leaves)
            batch = step.gather(self.examples, rows[place], order.widths[place])
            raise explain(self.program, state, batch, epoch=epoch + 1)
        self.pace = spent / taken
        self.bar.update(place, self._text(place))

    def _text(self, place):
        seen = int(self.seen[place - 1])
        mean, measured = means(self.log, seen)
        metric = (
            "" if self.program.metric is None else f"{self.history.metric_name} {measured:.4f}, "
        )
        return f"loss {mean:.4f}, {metric}{seen / self.seconds:,.0f} examples/s"

    def _end_epoch(self):
        history, text = self.history, self._text(self.steps)
        mean, measured = means(self.log, self.count)
        history.loss.append(mean)
        if self.program.metric is not None:
            history.metric.append(measured)
        history.seconds.append(self.seconds)
        history.examples_per_second.append(self.count / self.seconds)
        self.log, self.seconds = self.log[:0], 0.0
        if self.scorer is not None:
            mean, measured = self.scorer(self.weights())
            history.validation_loss.append(mean)
            text += f", validation loss {mean:.4f}"
            if self.program.metric is not None:
                history.validation_metric.append(measured)
                text += f", validation {history.metric_name} {measured:.4f}"
        if self.patience is not None:
            self._consider(self.patience)
        self.bar.end(text)
        self._save()

    def _consider(self, patience):
        """Keep the weights if they are the best so far; stop if none were for too long."""
        history, value = self.history, getattr(self.history, self.monitor)[-1]
        lower = self.monitor == "validation_loss"
        if self.best is None or (value < self.best_value if lower else value > self.best_value):
            self.best_value, history.best_epoch = value, history.epochs
            self.best = tuple(leaf.copy() for leaf in self.weights())
        elif history.epochs - (history.best_epoch or 0) >= patience:
            history.stopped_early = True

    def _names(self):
        """A name for each leaf."""
        state = jax.tree.unflatten(self.program.treedef, self.leaves)
        paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
        return [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]

    def _save(self):
        if self.checkpoints is None:
            return
        arrays = dict(zip(self.names, self.leaves, strict=True))
        if self.best is not None:
            arrays |= {f"best.{n}": leaf for n, leaf in zip(self.names, self.best, strict=False)}
        log = np.zeros((self.steps, 2), np.float32)
        log[: len(self.log)] = self.log
        position = {
            "logged": len(self.log),
            "seconds": self.seconds,
            "best": self.best is not None,
            "best_value": self.best_value,
            "history": self.history.to_dict(),
        }
        self.checkpoints.save(self.step, arrays | {"log": log}, position)
        self.clock = time.perf_counter()

    def checkpoint_in(self, folder, every):
        """Write checkpoints to a folder, after going on from the newest that it holds, if any."""
        from trivium.train.checkpoint import Checkpoints, fingerprint

        self.names, self.checkpoint_every = self._names(), every
        leaves = dict(zip(self.names, self.leaves, strict=True))
        best = {f"best.{name}": leaves[name] for name in self.names[: self.model_leaves]}
        self.checkpoints = Checkpoints(
            folder,
            {
                "number of examples": self.count,
                "data checksum": fingerprint(self.examples),
                "validation checksum": self.scorer and fingerprint(self.scorer.examples),
                "batch_size": self.batch_size,
                "buckets": None if self.lengths is None else self.buckets,
                "seed": self.seed,
                "patience": self.patience,
                "monitor": self.patience and self.monitor,
            }
            | {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()},
        )
        log = {"log": np.zeros((self.steps, 2), np.float32)}
        found = self.checkpoints.load(
            lambda position: leaves | log | (best if position["best"] else {})
        )
        if found is None:
            return
        arrays, position = found
        restore = self.devices.restore
        self.leaves = tuple(restore(arrays[name], leaf) for name, leaf in leaves.items())
        if position["best"]:
            self.best = tuple(restore(arrays[name], leaf) for name, leaf in best.items())
        self.best_value, self.history = position["best_value"], History(**position["history"])
        self.log, self.seconds = arrays["log"][: position["logged"]], position["seconds"]
        self.step = self.history.epochs * self.steps + position["logged"]


@contextmanager
def _interrupt_between_calls():
    """Let Ctrl-C wait until no array is in the hands of a compiled program: yields a question.

    A KeyboardInterrupt raised while a donating call returns would lose the weights. The second
    Ctrl-C is Python's own again. Signals reach the main thread only; elsewhere nothing changes.
    """
    asked = False
    python = signal.default_int_handler
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not python
    ):
        yield lambda: False
        return

    def remember(number, frame):
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, python)

    signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, python)


def _name(metric):
    """What to call a metric in a table."""
    while isinstance(metric, partial):
        metric = metric.func
    return None if metric is None else getattr(metric, "__name__", "metric").replace("_", " ")
