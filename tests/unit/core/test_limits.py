"""The batch limits hold together: no bound that could never be met, none past what a server takes."""

from dataclasses import astuple

import pytest

from dualtrack.core.limits import BATCH_LIMITS, BatchLimits


@pytest.mark.parametrize("limits", BATCH_LIMITS.values(), ids=BATCH_LIMITS)
def test_one_item_always_fits(limits: BatchLimits) -> None:
    """A bound of zero would lose items: nothing could ever be sent."""
    assert min(astuple(limits)) >= 1


@pytest.mark.parametrize("limits", BATCH_LIMITS.values(), ids=BATCH_LIMITS)
def test_no_profile_exceeds_what_mlflow_checks(limits: BatchLimits) -> None:
    """Facts section 6: 1000 metrics, 100 params, 100 tags, 1000 in all, 1 MB."""
    assert limits.metrics <= 1000
    assert limits.params <= 100
    assert limits.tags <= 100
    assert limits.total <= 1000
    assert limits.body_bytes < 1_000_000


def test_every_kind_of_backend_has_its_limits() -> None:
    assert set(BATCH_LIMITS) == {"mlflow", "databricks", "azureml"}
    assert BATCH_LIMITS["azureml"].rows_per_metric <= 250
