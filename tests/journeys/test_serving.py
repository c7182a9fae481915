"""A real appliance over real connections: what a caller sees, and what is on record afterwards."""

from collections.abc import Iterator

import numpy as np
import pytest

from appliance.client import Client
from tests import forge
from tests.forge import Forge
from tests.running import Running, records, running


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Forge()
    with running(made.site(tmp_path_factory.mktemp("serving"), [made.bundle()])) as found:
        yield found


def test_an_answer_is_the_models_and_on_record(appliance: Running) -> None:
    picture = forge.image(100)
    with appliance.client("reader") as client:
        answer = client.classify("forged", [forge.png(picture)], client_reference="case-17")
    wanted = forge.logits(picture[None])[0]
    assert answer.results[0].label.name == ("one", "two", "three")[int(wanted.argmax())]
    record = records(appliance.site)[answer.log_index]
    assert record["outcome"] == "answered"
    assert record["caller"]["name"] == "DNS:reader"
    assert record["client_reference"] == "case-17"
    assert record["model"]["digest"] == answer.model_digest
    assert record["output"]["top"] == [int(wanted.argmax())]
