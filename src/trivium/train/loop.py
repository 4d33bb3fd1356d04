"""fit, evaluate and predict: from NumPy in to NumPy out."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from trivium.train import batches, step
from trivium.train.history import History
from trivium.train.nonfinite import dotted, explain
from trivium.train.progress import Progress

# How long one call into the compiled program should last: long enough that Python's part is
# nothing, short enough for a lively progress line and a prompt interrupt.
_CALL_SECONDS = 0.1
# Calls that may be under way before the host looks at the results of the oldest.
_AHEAD = 4

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


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
    end, without padding. A sequence of length 0 is handed to the model as it is: what it answers
    for one is its own affair.

    optimizer: any optax transformation. loss, metric: functions (outputs, labels) -> [batch], one
    number for each example; metric may be None. Each step takes the mean loss over the examples of
    its batch; where the last batch has places left, they are filled with other examples of weight
    zero. trainable: the nnx filter that says which variables are trained, such as nnx.LoRAParam.

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
    delete the folder.

    mesh: each batch is spread over the mesh's first axis; weights and data are on every device.
    Every process of a multi-host run must be given the same data.

    The model ends in the mode (train or eval) in which it came. After a KeyboardInterrupt (the step
    under way is finished first; a second one stops at once) it has the weights so far.

    Raises ValueError or TypeError for arguments that do not fit, naming them; NonFiniteLoss when
    loss, gradient or weights stop being finite, naming step, learning rate and layer: the model
    then has the weights from before that step.
    """
    _check_model(model)
    _check_whole(epochs, "epochs", 0)
    _check_whole(batch_size, "batch_size", 1)
    _check_whole(buckets, "buckets", 1)
    _check_optimizer(optimizer)
    _check_stopping(patience, monitor, validation, metric)
    if checkpoint_every is not None:
        _check_whole(checkpoint_every, "checkpoint_every", 1)
        if checkpoint is None:
            raise ValueError("checkpoint_every needs checkpoint, the folder to write to")
    train = batches.prepare(*batches.unpack(data, "data"), name="data")
    held_out = None
    if validation is not None:
        held_out = batches.prepare(*batches.unpack(validation, "validation"), name="validation")
    devices = _Devices(mesh, batch_size)
    batch_size = devices.batch(min(batch_size, train.count))

    graphdef, weights, rest = step.split(model, trainable)
    if not jax.tree.leaves(weights):
        raise ValueError(f"the model has no variable that trainable={trainable} selects")
    optimizer = optax.with_extra_args_support(optimizer)
    state = step.TrainState(weights, rest, optimizer.init(weights), np.int32(0), np.bool_(True))
    homes = [getattr(leaf, "sharding", None) for leaf in jax.tree.leaves((weights, rest))]
    leaves = tuple(devices.copy(leaf) for leaf in jax.tree.leaves(state))
    program = step.Program(
        graphdef, jax.tree.structure(state), trainable, loss, metric, optimizer, devices.sharding
    )
    scorer = program._replace(treedef=jax.tree.structure((weights, rest)), optimizer=None)
    _check_call(model, scorer, (weights, rest), train, batch_size, "data")
    if held_out is not None:
        _check_call(model, scorer, (weights, rest), held_out, batch_size, "validation")

    run = _Run(program, scorer, devices, train, batch_size, seed, buckets)
    run.leaves, run.model_leaves = leaves, len(homes)
    run.history = History(metric_name=_name(metric))
    run.validation = held_out and _Scorer(scorer, devices, held_out, max(batch_size, 256), buckets)
    run.patience, run.monitor = patience, monitor
    run.checkpoint_every = checkpoint_every
    run.best = None
    run.bar = Progress(progress, epochs, run.steps)
    if checkpoint is not None:
        run.resume(checkpoint, epochs)
    try:
        run.train(epochs)
    finally:
        run.bar.close()
        if run.checkpoints is not None:
            run.checkpoints.close()
        kept = run.leaves[: run.model_leaves] if run.restored is None else run.restored
        # A call that died midway (out of memory) has consumed them: then the model stays as it was.
        if not any(leaf.is_deleted() for leaf in kept):
            back = [devices.home(leaf, home) for leaf, home in zip(kept, homes, strict=True)]
            nnx.update(model, *jax.tree.unflatten(scorer.treedef, back))
    return run.history


def evaluate(
    model: nnx.Module,
    data,
    *,
    loss: Callable = cross_entropy,
    metric: Callable | None = step.accuracy,
    batch_size: int = 256,
    buckets: int = 8,
    mesh: jax.sharding.Mesh | None = None,
) -> dict:
    """Mean loss and metric over all examples: {"loss": float, "metric": float}.

    data, loss, metric, buckets, mesh: as for `fit`. The model is called in eval mode (no dropout,
    running averages) and left as it was. The means are over examples, whatever the batches.
    Raises ValueError or TypeError for arguments that do not fit.
    """
    _check_model(model)
    _check_whole(batch_size, "batch_size", 1)
    _check_whole(buckets, "buckets", 1)
    examples = batches.prepare(*batches.unpack(data, "data"), name="data")
    devices = _Devices(mesh, batch_size)
    graphdef, *states = step.split(model, nnx.Param)
    states = tuple(states)
    program = step.Program(
        graphdef, jax.tree.structure(states), nnx.Param, loss, metric, None, devices.sharding
    )
    _check_call(model, program, states, examples, min(batch_size, examples.count), "data")
    leaves = tuple(devices.put(leaf) for leaf in jax.tree.leaves(states))
    mean, measured = _Scorer(program, devices, examples, batch_size, buckets)(leaves)
    return {"loss": mean} if metric is None else {"loss": mean, "metric": measured}


def predict(
    model: nnx.Module,
    inputs,
    *,
    batch_size: int = 256,
    buckets: int = 8,
    mesh: jax.sharding.Mesh | None = None,
):
    """The model's outputs for all inputs, in their order: [N, ...] on the host.

    inputs, buckets, mesh: as for `fit`. The model is called in eval mode and left as it was. A
    model that returns several arrays (a tuple or dict of [batch, ...]) gives as many [N, ...].
    Raises ValueError or TypeError for arguments that do not fit, and ValueError for outputs whose
    shape changes with the padded length.
    """
    _check_model(model)
    _check_whole(batch_size, "batch_size", 1)
    _check_whole(buckets, "buckets", 1)
    examples = batches.prepare(inputs, name="predict")
    devices = _Devices(mesh, batch_size)
    graphdef, *states = step.split(model, nnx.Param)
    states = tuple(states)
    program = step.Program(
        graphdef, jax.tree.structure(states), nnx.Param, None, None, None, devices.sharding
    )
    leaves = tuple(devices.put(leaf) for leaf in jax.tree.leaves(states))
    apply = step.prediction(program)
    order = _in_order(examples, devices.batch(min(batch_size, examples.count)), buckets)
    on_device = devices.put_all(examples)
    result: Any = None
    waiting: deque = deque()

    def collect():
        nonlocal result
        rows, outputs = waiting.popleft()
        real = rows >= 0
        outputs = jax.tree.map(np.asarray, outputs)
        if result is None:
            result = jax.tree.map(
                lambda out: np.empty((examples.count, *out.shape[1:]), out.dtype), outputs
            )
        for whole, out in zip(jax.tree.leaves(result), jax.tree.leaves(outputs), strict=True):
            if out.ndim == 0 or len(out) != len(rows) or out.shape[1:] != whole.shape[1:]:
                raise ValueError(
                    f"predict needs outputs [batch, ...] of one shape, got {out.shape} "
                    f"for a batch of {len(rows)} after {whole.shape[1:]} for each example"
                )
            whole[rows[real]] = out[real]

    for rows, width in zip(order.rows, order.widths, strict=True):
        outputs = apply(leaves, on_device, devices.put_rows(rows), width=width)
        waiting.append((rows, outputs))
        if len(waiting) > _AHEAD:
            collect()
    while waiting:
        collect()
    return result


class _Devices:
    """Where arrays live: on one device, or spread over the first axis of a mesh."""

    def __init__(self, mesh, batch_size):
        self.sharding = self.replicated = None
        self.parts = 1
        if mesh is None:
            return
        if not isinstance(mesh, jax.sharding.Mesh):
            raise TypeError(f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}")
        # Axes as the compiler spreads them: models say nothing of devices.
        mesh = jax.sharding.Mesh(mesh.devices, mesh.axis_names)
        axis = mesh.axis_names[0]
        self.parts = mesh.shape[axis]
        if batch_size % self.parts:
            raise ValueError(
                f"batch_size must be a multiple of the {self.parts} devices on the mesh's axis "
                f"{axis!r}, got {batch_size}"
            )
        self.replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self.sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(axis))

    def batch(self, size):
        """The next size of a batch that spreads evenly."""
        return -(-size // self.parts) * self.parts

    def put(self, array):
        """An array on the device, or on each."""
        if self.replicated is None:
            return array if isinstance(array, jax.Array) else jnp.asarray(array)
        return jax.device_put(array, self.replicated)

    def put_rows(self, rows):
        """Rows [batch] or [steps, batch], spread over the mesh."""
        if self.sharding is None:
            return jnp.asarray(rows)
        spec = jax.sharding.PartitionSpec(*[None] * (rows.ndim - 1), *self.sharding.spec)
        return jax.device_put(rows, jax.sharding.NamedSharding(self.sharding.mesh, spec))

    def put_all(self, examples):
        return jax.tree.map(self.put, examples)

    def copy(self, leaf):
        """A copy that a donating program may consume while the model keeps its own."""
        return self.put(leaf.copy() if isinstance(leaf, jax.Array) else np.array(leaf))

    def restore(self, saved, like):
        """An array of a checkpoint in the form of the one it replaces."""
        if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
            saved = jax.random.wrap_key_data(jnp.asarray(saved), impl=jax.random.key_impl(like))
        return self.put(saved)

    def home(self, leaf, sharding):
        """A trained array where the model's own was."""
        if self.replicated is None or sharding is None:
            return leaf
        return jax.device_put(leaf.addressable_data(0), sharding)


class _Scorer:
    """Mean loss and metric of one data set, for any weights: scorer(leaves) -> (loss, metric)."""

    def __init__(self, program, devices, examples, batch_size, buckets):
        self.score = step.scoring(program)
        self.count, self.devices = examples.count, devices
        size = devices.batch(min(batch_size, examples.count))
        self.order = _in_order(examples, size, buckets)
        self.rows = devices.put_rows(self.order.rows)
        self.examples = devices.put_all(examples)

    def __call__(self, leaves):
        logs, begin = [], 0
        while begin < len(self.order.widths):
            end = _run_end(self.order.widths, begin, begin + step.LOG)
            log = self.score(
                leaves,
                self.examples,
                self.rows,
                np.int32(begin),
                np.int32(end),
                width=self.order.widths[begin],
            )
            logs.append((log, end - begin))
            begin = end
        return _means(np.concatenate([np.asarray(log)[:n] for log, n in logs]), self.count)


class _Run:
    """A training run: its state, and what happens to it step by step."""

    def __init__(self, program, scorer, devices, train, batch_size, seed, buckets):
        self.program, self.devices = program, devices
        self.advance = step.training(program)
        self.train_set, self.batch_size, self.seed = train, batch_size, seed
        self.examples = devices.put_all(train)
        self.widths = None
        if train.lengths is not None:
            self.widths = batches.bucket_widths(train.lengths, buckets)
        self.steps = -(-train.count // batch_size)
        self.buckets = buckets
        self.compiled: set = set()
        self.step = 0  # steps taken since the beginning of training
        self.seconds = 0.0  # spent on this epoch so far
        self.log = np.zeros((0, 2), np.float32)  # of this epoch: loss and metric sums, each step
        self.best = None  # model leaves of the best epoch
        self.best_value = None
        self.restored = None  # what the model gets back instead of the current leaves
        self.checkpoints = None

    def train(self, epochs):
        """Take all steps that are left."""
        with _interrupt_between_steps() as interrupted:
            self.interrupted = interrupted
            while self.history.epochs < epochs and not self.history.stopped_early:
                self._epoch()
        if self.best is not None:
            self.restored = self.best

    def _epoch(self):
        epoch = self.history.epochs
        order = batches.shuffled(
            self.train_set.count,
            self.batch_size,
            lengths=self.train_set.lengths,
            widths=self.widths,
            seed=self.seed,
            epoch=epoch,
        )
        self.order, self.rows = order, self.devices.put_rows(order.rows)
        first = epoch * self.steps
        self.bar.begin(epoch, self.step - first)
        self._compile()
        waiting: deque = deque()
        sent = self.step
        self.clock = time.perf_counter()
        while sent < first + self.steps:
            stop = _run_end(order.widths, sent - first, sent - first + self._chunk()) + first
            if self.checkpoint_every is not None:
                stop = min(stop, sent - sent % self.checkpoint_every + self.checkpoint_every)
            self.leaves, log, status = self.advance(
                self.leaves,
                self.examples,
                self.rows,
                np.int32(stop),
                width=order.widths[sent - first],
            )
            waiting.append((stop, log, status))
            sent = stop
            due = self.checkpoint_every is not None and sent % self.checkpoint_every == 0
            last = sent == first + self.steps
            if self.interrupted():
                due = True
            while waiting and (due or last or len(waiting) > _AHEAD):
                self._read(*waiting.popleft())
            if due and not last:
                self._save()
            if self.interrupted() and not last:
                self._save()
                raise KeyboardInterrupt
        self._finish_epoch()
        if self.interrupted():
            raise KeyboardInterrupt

    def _compile(self):
        """Compile for each width by taking no step at all, so that no epoch's time holds it."""
        begin = time.perf_counter()
        for width in set(self.order.widths) - self.compiled:
            self.leaves, _, status = self.advance(
                self.leaves, self.examples, self.rows, np.int32(self.step), width=width
            )
            status.block_until_ready()
            self.compiled.add(width)
        self.history.compile_seconds += time.perf_counter() - begin

    def _chunk(self):
        """How many steps the next call should take, from the speed of this epoch so far."""
        if not len(self.log) or self.seconds == 0:
            return 1
        return int(np.clip(_CALL_SECONDS * len(self.log) / self.seconds, 1, step.LOG))

    def _read(self, stop, log, status):
        """Wait for a call; keep its log, or raise if it met a step that is not finite."""
        reached, finite = np.asarray(status)
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        self.log = np.concatenate([self.log, np.asarray(log)[: reached - self.step]])
        self.step = int(reached)
        epoch = self.history.epochs
        place = self.step - epoch * self.steps
        if not finite:
            state = jax.tree.unflatten(self.program.treedef, self.leaves)
            raise explain(
                self.program,
                state,
                self.examples,
                self.rows[place],
                self.order.widths[place],
                epoch=epoch + 1,
            )
        self.bar.update(place, self._text(place))

    def _text(self, place):
        seen = min(place * self.batch_size, self.train_set.count)
        mean, measured = _means(self.log, seen)
        parts = [f"loss {mean:.4f}"]
        if self.program.metric is not None:
            parts.append(f"{self.history.metric_name} {measured:.4f}")
        return ", ".join([*parts, f"{seen / self.seconds:,.0f} examples/s"])

    def _finish_epoch(self):
        history, count = self.history, self.train_set.count
        mean, measured = _means(self.log, count)
        text = self._text(self.steps)
        history.loss.append(mean)
        history.seconds.append(self.seconds)
        history.examples_per_second.append(count / self.seconds)
        if self.program.metric is not None:
            history.metric.append(measured)
        if self.validation is not None:
            mean, measured = self.validation(self.leaves[: self.model_leaves])
            text += f", validation loss {mean:.4f}"
            history.validation_loss.append(mean)
            if self.program.metric is not None:
                text += f", validation {history.metric_name} {measured:.4f}"
                history.validation_metric.append(measured)
        self.log, self.seconds = self.log[:0], 0.0
        if self.patience is not None:
            self._consider()
        self.bar.end(text)
        if self.checkpoints is not None:
            self._save()

    def _consider(self):
        """Keep the weights if they are the best so far; stop if none were for long."""
        value = getattr(self.history, self.monitor)[-1]
        score = -value if self.monitor == "validation_loss" else value
        if self.best is None or score > self.best_value:
            self.best_value, self.history.best_epoch = score, self.history.epochs
            self.best = tuple(leaf.copy() for leaf in self.leaves[: self.model_leaves])
        elif self.history.epochs - self.history.best_epoch >= self.patience:
            self.history.stopped_early = True

    def _arrays(self, leaves, best):
        """The arrays of a checkpoint, by name."""
        state = jax.tree.unflatten(self.program.treedef, range(len(leaves)))
        names = [
            jax.tree_util.keystr(path, simple=True, separator=".")
            for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]
        ]
        arrays = dict(zip(names, leaves, strict=True))
        if best is not None:
            arrays |= {f"best.{n}": b for n, b in zip(names[: len(best)], best, strict=True)}
        return arrays

    def _save(self):
        if self.checkpoints is None:
            return
        self.checkpoints.save(
            self.step,
            self._arrays(self.leaves, self.best) | {"log": np.resize(self.log, (self.steps, 2))},
            {
                "logged": len(self.log),
                "has_best": self.best is not None,
                "seconds": self.seconds,
                "best_value": self.best_value,
                "history": self.history.to_dict(),
            },
        )
        self.clock = time.perf_counter()

    def resume(self, folder, epochs):
        """Open the folder, and go on from its newest checkpoint if it holds one."""
        from trivium.train.checkpoint import Checkpoints, fingerprint

        train, held_out = self.train_set, self.validation and self.validation.examples
        arrays = self._arrays(self.leaves, None)
        self.checkpoints = Checkpoints(
            folder,
            {
                "number of examples": train.count,
                "batch_size": self.batch_size,
                "seed": self.seed,
                "buckets": None if train.lengths is None else self.buckets,
                "patience": self.patience,
                "monitor": self.monitor,
                "data checksum": fingerprint(*train),
                "validation checksum": held_out and fingerprint(*held_out),
            }
            | {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()},
        )
        found = self.checkpoints.load(
            lambda saved: (
                self._arrays(
                    self.leaves, self.leaves[: self.model_leaves] if saved["has_best"] else None
                )
                | {"log": np.zeros((self.steps, 2), np.float32)}
            )
        )
        if found is None:
            return
        arrays, saved = found
        history = History(**saved["history"])
        if history.epochs > epochs:
            raise ValueError(
                f"epochs={epochs}, but the checkpoint in {folder} holds {history.epochs} epochs"
            )
        names = list(self._arrays(self.leaves, None))
        restore = self.devices.restore
        leaves = [restore(arrays[n], leaf) for n, leaf in zip(names, self.leaves, strict=True)]
        if saved["has_best"]:
            best = zip(names, self.leaves[: self.model_leaves], strict=False)
            self.best = tuple(restore(arrays[f"best.{n}"], leaf) for n, leaf in best)
        self.leaves, self.history, self.best_value = tuple(leaves), history, saved["best_value"]
        self.log, self.seconds = arrays["log"][: saved["logged"]], saved["seconds"]
        self.step = history.epochs * self.steps + saved["logged"]


def _in_order(examples, batch_size, buckets):
    if examples.lengths is None:
        return batches.in_order(examples.count, batch_size)
    widths = batches.bucket_widths(examples.lengths, buckets)
    return batches.in_order(examples.count, batch_size, lengths=examples.lengths, widths=widths)


def _run_end(widths, begin, limit):
    """Where the run of batches of one width ends that begins at `begin`, at most `limit`."""
    end = begin + 1
    limit = min(limit, len(widths))
    while end < limit and widths[end] == widths[begin]:
        end += 1
    return end


def _means(log, count):
    """Mean loss and metric from sums over batches, added in float64."""
    total, measured = log.astype(np.float64).sum(axis=0)
    return float(total / count), float(measured / count)


@contextmanager
def _interrupt_between_steps():
    """Let Ctrl-C wait until no array is in the hands of a compiled program: yields a question.

    A KeyboardInterrupt raised while a donating call returns would lose the weights. The second
    Ctrl-C is Python's own again. Signals reach the main thread only; elsewhere nothing changes.
    """
    asked = False
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield lambda: False
        return

    def remember(number, frame):
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _name(metric):
    """What to call a metric in a table."""
    while isinstance(metric, partial):
        metric = metric.func
    return None if metric is None else getattr(metric, "__name__", "metric").replace("_", " ")


def _check_model(model):
    if not isinstance(model, nnx.Module):
        raise TypeError(f"model must be a flax.nnx.Module, got {type(model).__name__}")


def _check_whole(value, name, least):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_optimizer(optimizer):
    if not isinstance(optimizer, optax.GradientTransformation):
        hint = "; call it with a learning rate" if callable(optimizer) else ""
        raise TypeError(
            "optimizer must be an optax.GradientTransformation such as optax.adam(1e-3), "
            f"got {optimizer!r}{hint}"
        )


def _check_stopping(patience, monitor, validation, metric):
    if monitor not in ("validation_loss", "validation_metric"):
        raise ValueError(
            f"monitor must be 'validation_loss' or 'validation_metric', got {monitor!r}"
        )
    if patience is None:
        return
    _check_whole(patience, "patience", 1)
    if validation is None:
        raise ValueError("patience needs validation, the data that decides when to stop")
    if monitor == "validation_metric" and metric is None:
        raise ValueError("monitor='validation_metric' needs a metric")


def _check_call(model, program, states, examples, batch_size, name):
    """Trace one batch through model, loss and metric, and check what comes and goes."""
    width = None if examples.lengths is None else max(int(examples.lengths.max()), 1)
    shapes = jax.eval_shape(
        lambda leaves: step._apply(
            program._replace(sharding=None),
            leaves,
            jax.tree.map(jnp.asarray, examples),
            jnp.zeros(batch_size, jnp.int32),
            width,
        )[0],
        jax.tree.leaves(states),
    )
    labels = examples.labels
    if cross_entropy in (program.loss,) or step.accuracy in (program.metric,):
        if labels.dtype.kind not in "iu":
            raise TypeError(
                f"{name}: labels must be integers, the index of each example's class, "
                f"got {labels.dtype}"
            )
        if not hasattr(shapes, "shape") or shapes.shape[:-1] != labels[:batch_size].shape:
            raise ValueError(
                f"{name}: expected logits [batch, classes] for labels {labels.shape}, "
                f"the model gives {jax.tree.map(lambda s: s.shape, shapes)} for a batch of "
                f"{batch_size}"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= shapes.shape[-1]:
            raise ValueError(
                f"{name}: labels must lie in 0..{shapes.shape[-1] - 1} for the model's "
                f"{shapes.shape[-1]} logits, got {low}..{high}"
            )
    label_shape = jax.ShapeDtypeStruct((batch_size, *labels.shape[1:]), labels.dtype)
    real = jax.ShapeDtypeStruct((batch_size,), bool)
    jax.eval_shape(lambda o, l, r: step.scores(program, o, l, r), shapes, label_shape, real)
