"""How long does the article's CNN program take, and how good is it, here and in Keras?

Each program trains the same network (54,410 parameters) on all of Fashion-MNIST for 5 epochs of
batches of 32 with Adam, in a process of its own, and is then evaluated on the 10,000 test images.
The programs take turns, in an order that is reversed from round to round. A time is that of the
training alone, compilation included; start-up and loading are left out for all alike.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import _harness

EPOCHS, BATCH = 5, 32
# The names, and the back end that Keras runs on.
PROGRAMS = {_harness.OURS: None, "Keras on TensorFlow": "tensorflow", "Keras on JAX": "jax"}


def train_trivium() -> dict[str, float]:
    """The program with this package."""
    import optax
    from flax import nnx

    from trivium import data, models, train

    garments = data.fashion_mnist()
    model = models.ConvClassifier(classes=10, rngs=nnx.Rngs(0))
    start = time.perf_counter()
    train.fit(
        model, garments.train, epochs=EPOCHS, batch_size=BATCH, optimizer=optax.adam(1e-3),
        progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "accuracy": train.evaluate(model, garments.test)["metric"]}


def train_keras() -> dict[str, float]:
    """The article's listing, corrected: its last layer applied, on logits as ours."""
    import keras

    from trivium import data

    garments = data.fashion_mnist()
    keras.utils.set_random_seed(0)
    images = keras.layers.Input(shape=(28, 28, 1))
    x = keras.layers.Conv2D(32, (3, 3), activation="relu")(images)
    x = keras.layers.MaxPooling2D((2, 2))(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(images, keras.layers.Dense(10)(x))
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    inputs, labels = garments.train
    start = time.perf_counter()
    model.fit(inputs, labels, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    seconds = time.perf_counter() - start
    _, accuracy = model.evaluate(*garments.test, verbose=0)
    return {"seconds": seconds, "accuracy": float(accuracy)}


def run(program: str) -> dict[str, float]:
    """Run one program in a process of its own."""
    environment = dict(os.environ)
    if backend := PROGRAMS[program]:
        environment["KERAS_BACKEND"] = backend
    finished = subprocess.run(
        [sys.executable, __file__, "--program", program],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if finished.returncode:
        raise SystemExit(f"{program} failed:\n{finished.stderr[-3000:]}")
    return json.loads(finished.stdout.strip().splitlines()[-1])


def main() -> None:
    """Take turns, print a line a run, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each program, at least 2")
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: the quartiles take at least 2")
    if options.program:
        result = train_keras() if PROGRAMS[options.program] else train_trivium()
        print(json.dumps(result))
        return
    runs: dict[str, list[dict[str, float]]] = {program: [] for program in PROGRAMS}
    order = list(PROGRAMS)
    for _ in range(options.rounds):
        for program in order:
            runs[program].append(run(program))
            last = runs[program][-1]
            print(
                f"{program:20} {last['seconds']:6.1f} s  accuracy {last['accuracy']:.4f}",
                flush=True,
            )
        order.reverse()
    times = {
        program: {
            **_harness.summary([each["seconds"] for each in rows], "fit"),
            "accuracy": sum(each["accuracy"] for each in rows) / len(rows),
        }
        for program, rows in runs.items()
    }
    result = {
        "question": "the article's CNN program: 5 epochs of Fashion-MNIST, batches of 32",
        "unit": "one program, compilation included",
        "cases": [{"case": f"{EPOCHS} epochs, batches of {BATCH}", "times": times, "targets": []}],
    }
    packages = ("jax", "flax", "optax", "numpy", "keras", "tensorflow")
    print("written to", _harness.write("cnn_program", result, packages=packages))


if __name__ == "__main__":
    main()
