"""How much of the geometry of one model's states another model's have: linear CKA (Kornblith et al. 2019).

With Song et al.'s unbiased estimate of HSIC (2012, equation 5), because there are fewer texts than dimensions: the
plain one is then near 1 for states that have nothing to do with each other. States are first given unit length, so that
the few that are hundreds of times as long as the others are not all that is compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LEAST = 4
"""Texts, below which the estimate is not defined."""


def cka(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Return the CKA of two models' states of the same texts, (texts, width): 1 if alike up to rotation, 0 if not.

    NaN where all states of a model are the same.
    """
    first, second = (_similarities(states) for states in (one, other))
    scale = _hsic(first, first) * _hsic(second, second)
    return float(_hsic(first, second) / np.sqrt(scale)) if scale > 0 else float("nan")


def _similarities(states: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the inner products of states of unit length, with zeros in the diagonal."""
    exact = states.astype(np.float64)
    exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    products: np.ndarray[Any, Any] = exact @ exact.T
    np.fill_diagonal(products, 0)
    return products


def _hsic(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    n = len(first)
    one, two = first.sum(0), second.sum(0)
    total = (first * second).sum() + one.sum() * two.sum() / ((n - 1) * (n - 2)) - 2 * one @ two / (n - 2)
    return float(total / (n * (n - 3)))
