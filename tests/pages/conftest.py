"""Who visits the pages in tests."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client


@pytest.fixture
def owner() -> Any:
    from tests.factories import make_user

    return make_user("anna")


@pytest.fixture
def signed_in(client: Client, owner: Any) -> Client:
    client.force_login(owner)
    return client
