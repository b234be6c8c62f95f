"""How a class is learnt from a few labelled windows: logistic regression on frozen embeddings.

One regression per class, so that a window may hold several classes, or none.  Windows that nobody
has labelled are weak negatives, because nearly all windows lack a given class (as in perch-hoplite:
Dumoulin et al. 2025, "The Search for Squawk", https://arxiv.org/abs/2505.03071): 500 of them, which
together weigh a quarter of the labels, and each at most a twentieth of one.

Features are the embeddings, centred and softly whitened by the covariance C of the windows to be
searched: with C = U Λ Uᵀ, they are multiplied by U (Λ + λ·mean(Λ))^(-1/2).  What varies in all
recordings, such as wind or distance, then counts less.  Of fewer windows than dimensions, the
covariance holds the classes themselves, and λ grows until nothing is whitened.  Embeddings that
are never negative, as behind a ReLU, are mostly near 0 and sometimes large; their square roots are
taken in their place, so that a few large values do not decide.  The result is a weight vector and
a bias on embeddings, or on their square roots.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bacpipe.store.recognisers import square_roots

WEAK_NEGATIVES = 500
WEAK_WEIGHT = 0.05  # at most
SOFTNESS = 20.0
"""λ: of the mean eigenvalue, what is added to each, where the windows are many."""

_FEW = 10  # labels; with fewer, weak negatives weigh as with so many
_WEAK_SHARE = 0.25  # what weak negatives weigh together, of the labels
_C = 10.0  # inverse strength of the penalty, at features of mean square length 1


class Whitening(NamedTuple):
    """Mean and covariance of the windows to be searched: of embeddings, or of their square roots.

    Attributes
    ----------
    mean : np.ndarray, float32, shape (dim,)
    variances : np.ndarray, float32, shape (dim,)
        Eigenvalues of the covariance.
    directions : np.ndarray, float32, shape (dim, dim)
        Its eigenvectors, one per column.
    windows : np.ndarray, int64, shape (1,)
        Of how many it is.
    square_roots : np.ndarray, bool, shape (1,)
        Whether it is of square roots: none of these embeddings has a negative value.
    """

    mean: np.ndarray
    variances: np.ndarray
    directions: np.ndarray
    windows: np.ndarray
    square_roots: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray) -> Whitening:
        """Of windows, float32 of shape (n, dim)."""
        roots = bool((embeddings >= 0).all())
        taken = square_roots(embeddings, roots)
        mean = taken.mean(axis=0, dtype=np.float64)
        centred = taken - mean.astype(np.float32)
        covariance = centred.T @ centred / max(1, len(centred))
        variances, directions = np.linalg.eigh(covariance.astype(np.float64))
        return cls(
            mean.astype(np.float32),
            np.maximum(variances, 0).astype(np.float32),
            directions.astype(np.float32),
            np.array([len(embeddings)]),
            np.array([roots]),
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

    def centred(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings, or their square roots, less the mean; float32 of their shape."""
        centred: np.ndarray = square_roots(embeddings, bool(self.square_roots[0])) - self.mean
        return centred

    def features(self, embeddings: np.ndarray) -> np.ndarray:
        """Features of embeddings, float32 of their shape."""
        features: np.ndarray = self.centred(embeddings) @ self.matrix
        return features

    def before_centring(self, weight: np.ndarray, bias: float) -> tuple[np.ndarray, float]:
        """Weights and bias that give for embeddings (or roots) what these give for features."""
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
        """1 for labels; for all others together a quarter, and at most `WEAK_WEIGHT` each.

        Where there are few labels, more would drown them.
        """
        weak = len(self.present) - self.labelled
        share = max(self.labelled, _FEW) * _WEAK_SHARE / max(weak, 1)
        weights = np.full(len(self.present), min(WEAK_WEIGHT, share))
        weights[: self.labelled] = 1.0
        return weights


class Learnt(NamedTuple):
    """What was learnt of a class.

    Attributes
    ----------
    weight : np.ndarray, float32, shape (dim,)
        On embeddings, or on their square roots.
    bias : float
    square_roots : bool
        Whether it is on square roots.
    """

    weight: np.ndarray
    bias: float
    square_roots: bool

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """Of windows, float32 of shape (n,)."""
        taken = square_roots(embeddings, self.square_roots)
        logits: np.ndarray = taken @ self.weight + np.float32(self.bias)
        return logits


def learn(examples: Examples, whitening: Whitening) -> Learnt:
    """Learn a class."""
    x = whitening.features(examples.embeddings)
    weight, bias = whitening.before_centring(*fit(x, examples.present, examples.weights))
    return Learnt(weight.astype(np.float32), bias, bool(whitening.square_roots[0]))


def logit_covariance(
    examples: Examples, learnt: Learnt, whitening: Whitening, embeddings: np.ndarray
) -> np.ndarray:
    """How unsure the logits of some windows are, given what a class was learnt from.

    Laplace's approximation: the penalty is the logarithm of a normal prior, and what is left of it
    after the examples is taken as normal, too.

    Parameters
    ----------
    examples : Examples
        What was learnt from; labels may be none.
    learnt : Learnt
        What was learnt.
    whitening : Whitening
        Of the windows to be searched.
    embeddings : np.ndarray, float32, shape (n, dim)
        Of the windows.

    Returns
    -------
    np.ndarray, float64, shape (n, n)
        Covariance of their logits.
    """
    from scipy.linalg import cho_factor, cho_solve
    from scipy.special import expit

    x, z = (_with_constant(whitening.features(e)) for e in (examples.embeddings, embeddings))
    p = expit(learnt.logits(examples.embeddings))
    told = examples.weights * p * (1 - p)
    precision = ((x.T * told.astype(np.float32)) @ x).astype(np.float64)
    precision[np.diag_indices_from(precision)] += 1 / _C
    covariance: np.ndarray = z @ cho_solve(cho_factor(precision), z.T)
    return covariance


def _with_constant(features: np.ndarray) -> np.ndarray:
    """Features and a 1 for the bias, float32 of shape (n, dim + 1)."""
    return np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)


def fit(x: np.ndarray, present: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of a penalised logistic regression; both outcomes must occur."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_C, max_iter=500, tol=1e-3)
    model.fit(x, present, sample_weight=weights)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])
