"""Values that an option cannot have."""

from dataclasses import replace

import pytest

from dinomed3d.runtime.errors import UserError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_size": 0.0}, "--step-size"),
        ({"step_size": 1.1}, "--step-size"),
        ({"memory_limit_gib": -1.0}, "--memory-limit"),
        ({"shard": (0, 2)}, "--shard"),
        ({"shard": (3, 2)}, "--shard"),
        ({"workers": 0}, "--workers"),
        ({"orientation": "RAX"}, "--orientation"),
        ({"orientation": "RLS"}, "--orientation"),
    ],
)
def test_impossible_requests(spec, change, message):
    with pytest.raises(UserError, match=message):
        replace(spec, **change)
