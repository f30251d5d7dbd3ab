"What a parser has seen of damage, read from the records of its training"

import pandas as pd
import pytest

from fairparse.core.runs import write_json
from fairparse.data.damage import PERTURBATIONS
from fairparse.parsing.train import TrainConfig
from fairparse.robustness.exposure import exposure, families_shown
from fairparse.robustness.severity import exposure_column, swept_exposure


@pytest.mark.parametrize(
    "settings, shown",
    [
        ({"objective": "single"}, set()),
        ({"objective": "linear"}, set()),  # noise on logits shows no damaged picture
        ({"objective": "turned"}, set()),
        ({"objective": "linear_inputs"}, {"noise"}),
        ({"objective": "linear_inputs", "perturbation": "blur"}, {"blur"}),
        ({"objective": "linear_contrast"}, {"light"}),
        ({"objective": "single_augmented"}, {"light"}),
        ({"objective": "single", "augment": {"tint": 0.1}}, {"light"}),
        ({"objective": "single", "loss": {"perturb": "drop"}}, {"noise"}),
        ({"objective": "guided_pictures"}, {"noise", "light"}),
        ({"objective": "fair"}, {"noise", "light"}),
        (
            {"objective": "fair", "harden": {"families": ["cover"], "damage": 0.1}},
            {"noise", "light", "cover"},
        ),
    ],
)
def test_families_are_those_of_the_whole_configuration(settings, shown):
    assert families_shown(vars(TrainConfig(**settings))) == shown


def record(folder, parameters, **network):
    write_json(folder / "run.json", {"parameters": parameters})
    write_json(folder / "model.json", network)
    return exposure(folder)


def test_what_the_network_takes_out_is_handled(tmp_path):
    cleaned = record(tmp_path / "a", vars(TrainConfig("cleaned")), clean=True, standardise=True)
    assert cleaned == {
        name: "handled" if kind.family in ("noise", "light") else "held out"
        for name, kind in PERTURBATIONS.items()
    }
    fair = record(tmp_path / "b", vars(TrainConfig("fair")), clean=True, standardise=True)
    assert fair["shot_noise"] == fair["shadow"] == "seen"


def test_a_recipe_keeps_its_training_one_level_deeper(tmp_path):
    training = vars(TrainConfig("single", augment={"contrast": 0.3}))
    assert record(tmp_path, {"recipe": "strong", "training": training})["contrast"] == "seen"


def test_without_a_record_nothing_is_known(tmp_path):
    assert exposure(tmp_path) is None
    assert record(tmp_path, {"size": 64}) is None


def test_tables_say_it_of_each_kind(tmp_path):
    known = record(tmp_path / "parser", vars(TrainConfig("fair")), clean=True)
    write_json(tmp_path / "sweep" / "fair" / "seed0" / "run.json", {"exposure": known})
    write_json(tmp_path / "sweep" / "other" / "seed0" / "run.json", {})
    exposures = swept_exposure(tmp_path / "sweep", ["fair", "other", "gone"], 0)
    assert exposures == {"fair": known, "other": None, "gone": None}
    table = pd.DataFrame(
        {
            "parser": ["fair", "fair", "fair", "fair", "other", "gone"],
            "perturbation": ["shadow", "hand", "none", "mean", "hand", "hand"],
        }
    )
    words = ["seen", "held out", "", "", "not known", "not known"]
    assert exposure_column(table, exposures) == words
