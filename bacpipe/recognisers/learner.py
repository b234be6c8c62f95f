"""How a class is learnt from a few labelled windows: logistic regression on frozen embeddings.

One regression per class, so that a window may hold several classes, or none.  Windows that nobody
has labelled are weak negatives, because nearly all windows lack a given class (as in perch-hoplite:
Dumoulin et al. 2025, "The Search for Squawk", https://arxiv.org/abs/2505.03071): 500 of them, which
together weigh half as much as the labels, and each at most a twentieth of one.

Features are the embeddings, centred and softly whitened by the covariance C of the windows to be
searched: with C = U Λ Uᵀ, they are multiplied by U (Λ + λ·mean(Λ))^(-1/2).  What varies in all
recordings, such as wind or distance, then counts less.  Of fewer windows than dimensions, the
covariance holds the classes themselves, and λ grows until nothing is whitened.  The result is a
weight vector and a bias on plain embeddings.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WEAK_NEGATIVES = 500
WEAK_WEIGHT = 0.05  # at most
SOFTNESS = 20.0
"""λ: of the mean eigenvalue, what is added to each, where the windows are many."""

_FEW = 10  # labels; with fewer, weak negatives weigh as with so many
_C = 10.0  # inverse strength of the penalty, at features of mean square length 1


class Whitening(NamedTuple):
    """Mean and covariance of the windows to be searched.

    Attributes
    ----------
    mean : np.ndarray, float32, shape (dim,)
    variances : np.ndarray, float32, shape (dim,)
        Eigenvalues of the covariance.
    directions : np.ndarray, float32, shape (dim, dim)
        Its eigenvectors, one per column.
    windows : np.ndarray, int64, shape (1,)
        Of how many it is.
    """

    mean: np.ndarray
    variances: np.ndarray
    directions: np.ndarray
    windows: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray) -> Whitening:
        """Of windows, float32 of shape (n, dim)."""
        mean = embeddings.mean(axis=0, dtype=np.float64)
        centred = embeddings - mean.astype(np.float32)
        covariance = centred.T @ centred / max(1, len(centred))
        variances, directions = np.linalg.eigh(covariance.astype(np.float64))
        return cls(
            mean.astype(np.float32),
            np.maximum(variances, 0).astype(np.float32),
            directions.astype(np.float32),
            np.array([len(embeddings)]),
        )

    @property
    def matrix(self) -> np.ndarray:
        """What centred embeddings are multiplied by, float32 of shape (dim, dim).

        The features have mean square length 1.
        """
        dim = len(self.mean)
        softness = SOFTNESS * (1 + (dim / max(1, self.windows[0])) ** 2)
        softened = self.variances + softness * self.variances.mean()
        if not softened.all():  # all windows are alike
            return self.directions
        scale = softened**-0.5
        scale /= np.sqrt((self.variances * scale**2).sum())
        matrix: np.ndarray = self.directions * scale
        return matrix

    def features(self, embeddings: np.ndarray) -> np.ndarray:
        """Features of embeddings, float32 of their shape."""
        features: np.ndarray = (embeddings - self.mean) @ self.matrix
        return features

    def on_embeddings(self, weight: np.ndarray, bias: float) -> tuple[np.ndarray, float]:
        """Weights and bias that give for embeddings what these give for features."""
        plain = self.matrix @ weight
        return plain, bias - float(plain @ self.mean)


class Examples(NamedTuple):
    """What one class is learnt from.

    Attributes
    ----------
    embeddings : np.ndarray, float32, shape (n, dim)
        The labelled windows first, then weak negatives.
    present : np.ndarray, bool, shape (n,)
        Whether the class was heard.
    labelled : int
        Number of labelled windows.
    """

    embeddings: np.ndarray
    present: np.ndarray
    labelled: int

    @property
    def weights(self) -> np.ndarray:
        """1 for labels; for all others together half of that, and at most `WEAK_WEIGHT` each.

        Where there are few labels, more would drown them.
        """
        weak = len(self.present) - self.labelled
        share = max(self.labelled, _FEW) / 2 / max(weak, 1)
        weights = np.full(len(self.present), min(WEAK_WEIGHT, share))
        weights[: self.labelled] = 1.0
        return weights


class Learnt(NamedTuple):
    """What was learnt of a class.

    Attributes
    ----------
    weight : np.ndarray, float32, shape (dim,)
        On embeddings.
    bias : float
    """

    weight: np.ndarray
    bias: float


def learn(examples: Examples, whitening: Whitening) -> Learnt:
    """Learn a class."""
    x = whitening.features(examples.embeddings)
    weight, bias = whitening.on_embeddings(*fit(x, examples.present, examples.weights))
    return Learnt(weight.astype(np.float32), bias)


def fit(x: np.ndarray, present: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of a penalised logistic regression; both outcomes must occur."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_C, max_iter=500, tol=1e-3)
    model.fit(x, present, sample_weight=weights)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])
