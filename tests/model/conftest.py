import pytest


@pytest.fixture(autouse=True)
def _strict(strict_promotion):
    """Model code never relies on implicit promotion."""
