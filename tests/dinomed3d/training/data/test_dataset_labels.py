"""Labels of dataset.json that nnU-Net v2 reads, and those that it would refuse with a riddle."""

import pytest

from dinomed3d.runtime.errors import UserError
from dinomed3d.training.data.dataset_labels import check_labels


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "tumour": 1},
        {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
        {"background": "0", "1": "2"},  # numbers as text, and a label that is called 1
    ],
)
def test_labels_that_are_read(labels):
    check_labels({"labels": labels})


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"0": "background", "1": "tumour"}, 'write "labels": {"background": 0, "tumour": 1}'),
        ({"1": "Müller-cells", "0": "background"}, '"Müller-cells": 1'),
        ({"Background": 0, "tumour": 1}, "'Background'"),
        ({"air": 0, "tumour": 1}, "'air'"),
        ({"background": 1, "tumour": 0}, '"background": 0, got 1'),
        ({"background": 0, "tumour": 1.5}, '"tumour"'),
        ({"background": 0, "tumour": -1}, '"tumour"'),
        ({"background": 0, "tumour": True}, '"tumour"'),
        ({"background": 0, "tumour": []}, '"tumour"'),
        ({}, "names to numbers"),
        (["background", "tumour"], "names to numbers"),
        (None, "names to numbers"),
    ],
)
def test_labels_that_are_refused_by_name(labels, names):
    with pytest.raises(UserError, match="^dataset.json: ") as refused:
        check_labels({"labels": labels})
    assert names in str(refused.value) and "\n" not in str(refused.value)
