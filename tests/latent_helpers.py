"""A generator and classifiers whose yields can be computed by hand

The first three numbers of a vector are the colour of its face."""

import numpy as np


class Colours:
    """Paints faces of one colour, 128 + 32 z for each channel

    W is an affine map of z whose mean is far from 0."""

    name, sha256, psi, z_dim, w_dim, size = "colours", "c0", 1.0, 5, 5, 2
    matrix, offset = (
        np.diag([2.0, 1.0, 0.5, 1.0, 1.0]) + 0.3 * np.eye(5, k=1),
        np.array([3.0, -2.0, 1.0, 0.0, 0.0]),
    )

    def __init__(self):
        self.painted = 0

    def map(self, z):
        return (z @ self.matrix + self.offset).astype(np.float32)

    def paint(self, latents, space="z", batch_size=100):
        self.painted += len(latents)
        z = latents if space == "z" else (latents - self.offset) @ np.linalg.inv(self.matrix)
        colour = (128 + 32 * z[:, :3]).round().clip(0, 255).astype(np.uint8)
        return np.broadcast_to(colour[:, None, None], (len(z), self.size, self.size, 3)).copy()


class Above:
    '"yes" where the channel is above `border` standard deviations of an unguided z'

    classes, task = ["no", "yes"], "above"

    def __init__(self, border=0.0, channel=0):
        self.border, self.channel = border, channel

    def predict(self, images):
        yes = 1 / (
            1 + np.exp(-(images[:, 0, 0, self.channel].astype(float) - 128 - 32 * self.border) / 8)
        )
        return np.stack([1 - yes, yes], 1).astype(np.float32)


class Bands:
    "low, middle, high: which third of the colours the first channel is in, or so"

    classes, task = ["low", "middle", "high"], "band"

    def __init__(self, borders=(-1.0, 1.0)):
        self.borders = borders

    def predict(self, images):
        value = (images[:, 0, 0, 0].astype(float) - 128) / 32
        scores = np.stack(
            [4 * (self.borders[0] - value), np.zeros(len(value)), 4 * (value - self.borders[1])], 1
        )
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return (scores / scores.sum(1, keepdims=True)).astype(np.float32)
