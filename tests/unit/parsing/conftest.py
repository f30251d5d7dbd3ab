"Faces that several tests of parsers train on"

import pytest
from helpers import make_faces


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    "Eighteen small faces, twelve of them for training; for reading only"
    return make_faces(tmp_path_factory.mktemp("faces"), 18, train=12)
