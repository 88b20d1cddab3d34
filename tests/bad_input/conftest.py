"""The toy services, as in the integration tests."""

from __future__ import annotations

from tests.integration.conftest import flow

__all__ = ["flow"]
