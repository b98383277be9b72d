"""Stock lime is the oracle."""

import numpy as np
import pytest
from lime.lime_base import LimeBase
from sklearn.linear_model import Ridge

from audit.explain.surrogate import GramBase, r_squared


def kernel(d):
    return np.sqrt(np.exp(-(d**2) / 0.5**2))


def neighbourhood(seed, n=300, d=9, binary=True):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, (n, d)).astype(float) if binary else rng.normal(size=(n, d))
    x[0] = 1.0 if binary else rng.normal(size=d)
    y = 1 / (1 + np.exp(-(x @ rng.normal(size=d) + 0.3 * x[:, 0] * x[:, 1])))
    return x, np.stack([1 - y, y], axis=1), np.abs(rng.normal(size=n))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("method", "count"),
    [("none", 9), ("highest_weights", 4), ("forward_selection", 5), ("auto", 3), ("auto", 7)],
)
def test_the_gram_regression_is_stock_limes(method, count, binary):
    for seed in range(5):
        data = neighbourhood(seed, binary=binary)
        ours = GramBase(kernel, random_state=0).explain_instance_with_data(
            *data, 1, count, feature_selection=method
        )
        stock = LimeBase(kernel, random_state=0).explain_instance_with_data(
            *data, 1, count, feature_selection=method
        )
        assert ours[0] == pytest.approx(stock[0], abs=1e-9)
        assert [j for j, _ in ours[1]] == [j for j, _ in stock[1]]
        assert [b for _, b in ours[1]] == pytest.approx([b for _, b in stock[1]], abs=1e-9)
        assert ours[2] == pytest.approx(stock[2], abs=1e-9)
        assert ours[3] == pytest.approx(stock[3], abs=1e-9)


def test_what_is_not_ours_goes_to_stock_lime():
    data = neighbourhood(1)
    for options in ({"feature_selection": "lasso_path"}, {"model_regressor": Ridge(alpha=3.0)}):
        ours = GramBase(kernel, random_state=0).explain_instance_with_data(*data, 1, 4, **options)
        stock = LimeBase(kernel, random_state=0).explain_instance_with_data(*data, 1, 4, **options)
        assert ours[1] == stock[1]


def test_constant_and_repeated_features_do_not_break_the_selection():
    x, y, distances = neighbourhood(2)
    x[:, 3] = 1.0
    x[:, 4] = x[:, 5]
    found = GramBase(kernel, random_state=0).explain_instance_with_data(
        x, y, distances, 1, 9, feature_selection="forward_selection"
    )
    assert sorted(j for j, _ in found[1]) == list(range(9))
    assert np.isfinite([b for _, b in found[1]]).all()


def test_r_squared_of_what_does_not_vary_is_zero():
    assert r_squared(np.ones(3), np.ones(3), np.ones(3)) == 0.0
