"""A small real training run, watched by the Cirron SDK: what a user's own script looks like.

A network of one hidden layer learns to tell two spirals apart, in NumPy. The SDK writes what it sees to
./.cirron/spool, one batch for each interval. `python train.py [SECONDS]`
"""

from __future__ import annotations

import sys
import time

import cirron as ci
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POINTS = 2000
HIDDEN = 256
RATE = 0.03
BATCH = 2000  # points a step: a step takes milliseconds, so an interval's batch is some tens of KB


def spirals(random: np.random.Generator, points: int) -> tuple[Array, Array]:
    """Return points of shape (2 * points, 2) and their labels (2 * points, 1), 0 or 1 for the arm."""
    turn = np.sqrt(random.random(points)) * 3 * np.pi
    arm = np.stack([turn * np.cos(turn), turn * np.sin(turn)], axis=1) / 8
    both = np.concatenate([arm, -arm]) + random.normal(scale=0.05, size=(2 * points, 2))
    return both, np.repeat([[0.0], [1.0]], points, axis=0)


class Network:
    """One layer of tanh, one logistic output, trained by gradient descent with Adam's step sizes."""

    def __init__(self, random: np.random.Generator) -> None:
        self.weights: list[Array] = [
            random.normal(scale=1.5, size=(2, HIDDEN)),
            random.normal(size=(1, HIDDEN)),
            np.zeros((HIDDEN, 1)),
            np.zeros((1, 1)),
        ]
        self.means = [np.zeros_like(weight) for weight in self.weights]
        self.squares = [np.zeros_like(weight) for weight in self.weights]
        self.steps = 0

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Return the hidden layer (n, HIDDEN) and the probability of arm 1 (n, 1) for the points (n, 2)."""
        w1, b1, w2, b2 = self.weights
        hidden: Array = np.tanh(x @ w1 + b1)
        output: Array = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
        return hidden, output

    def backward(self, x: Array, hidden: Array, error: Array) -> list[Array]:
        """Return the gradient of the mean cross-entropy; `error` is output minus label, (n, 1)."""
        back = (error @ self.weights[2].T) * (1 - hidden**2) / len(x)
        return [
            x.T @ back,
            back.sum(axis=0, keepdims=True),
            hidden.T @ error / len(x),
            error.mean(axis=0, keepdims=True),
        ]

    def step(self, gradients: list[Array]) -> None:
        """Move every weight against its gradient (Kingma and Ba 2014, with its usual constants)."""
        self.steps += 1
        for weight, mean, square, gradient in zip(
            self.weights, self.means, self.squares, gradients, strict=True
        ):
            mean[:] += 0.1 * (gradient - mean)
            square[:] += 0.001 * (gradient**2 - square)
            unbiased = square / (1 - 0.999**self.steps)
            weight[:] -= RATE * mean / (1 - 0.9**self.steps) / (np.sqrt(unbiased) + 1e-8)


def cross_entropy(output: Array, y: Array) -> float:
    """Return the mean loss in nats."""
    p = np.clip(output, 1e-9, 1 - 1e-9)
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


def train(seconds: float) -> None:
    """Train for that long, with a span for every epoch, batch and step, and a mark for every loss."""
    random = np.random.default_rng(7)
    x, y = spirals(random, POINTS)
    network = Network(random)
    end = time.monotonic() + seconds

    ci.profile(flush_interval=0.5)
    epoch, loss, right = 0, float("nan"), float("nan")
    while time.monotonic() < end:
        with ci.scope("epoch", index=epoch):
            order = random.permutation(len(x))
            for chunk in ci.batches(np.split(order, len(order) // BATCH)):
                with ci.scope("forward"):
                    hidden, output = network.forward(x[chunk])
                with ci.scope("backward"):
                    gradients = network.backward(x[chunk], hidden, output - y[chunk])
                with ci.scope("optimizer"):
                    network.step(gradients)
                ci.mark("loss", cross_entropy(output, y[chunk]))
            _, output = network.forward(x)
            loss = cross_entropy(output, y)
            right = float(((output > 0.5) == (y > 0.5)).mean())
            ci.mark("accuracy", right, kind="summary")
        epoch += 1
    ci.shutdown()

    print(f"{epoch} epochs on {len(x)} points: loss {loss:.3f}, {right:.1%} classified correctly")


if __name__ == "__main__":
    try:
        train(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
    except KeyboardInterrupt:
        sys.exit(130)
