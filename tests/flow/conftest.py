"""The app in process between two façades over real servers: see `tests/support/flow.py`."""

from tests.support.flow import a, b, launch, proxy, session

__all__ = ["a", "b", "launch", "proxy", "session"]
