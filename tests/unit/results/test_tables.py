"Tables and figures: gathering counts, hand-checked numbers, reported values"

import matplotlib
import numpy as np
import pandas as pd
import pytest
from helpers import random_counts

from fairparse.core.records import COUNTS, HISTORY, write_table
from fairparse.core.runs import InputError, write_json
from fairparse.measure.counts import (
    counts_table,
    describe_data,
    gather,
    read_counts,
)
from fairparse.parsing.homotopy import find_objective
from fairparse.results.objectives import REPORTED_TABLE1, REPORTED_TABLE3, table1, table3
from fairparse.results.parser_styles import parser_title
from fairparse.results.readers import study_for_readers, table1_for_readers

matplotlib.use("Agg")


def save(folder, objective, seed, ids, counts=None, perturbation="none"):
    counts = random_counts(len(ids), 19, seed=seed) if counts is None else counts
    write_table(
        counts_table(counts, ids, objective, seed, perturbation),
        folder / objective / f"seed{seed}" / "counts.parquet",
        COUNTS,
    )
    return counts


def test_gather_seeds_on_the_same_faces(tmp_path):
    saved = {
        o: [save(tmp_path, o, s, ["b", "a", "c"]) for s in (0, 1)] for o in ("single", "linear")
    }
    gathered = gather(tmp_path, ["single", "linear"], [0, 1])
    for name, counts in gathered.items():
        assert (counts == np.stack(saved[name])[:, [1, 0, 2]]).all()  # sorted by id


def test_gather_folds_into_one_repetition(tmp_path):
    ids = {0: ["a", "b"], 1: ["c"], 2: ["d", "e"], 3: ["d", "c"], 4: ["e"], 5: ["a", "b"]}
    saved = {s: save(tmp_path, "single", s, names) for s, names in ids.items()}
    assert gather(tmp_path, ["single"], [0, 1, 2])["single"].shape == (1, 5, 19, 3)
    twice = gather(tmp_path, ["single"], range(6))["single"]
    assert twice.shape == (2, 5, 19, 3)
    assert (twice[0, 2] == saved[1][0]).all()
    assert (twice[1, 3] == saved[3][0]).all()


def test_missing_seeds_folds_and_objectives_are_named(tmp_path):
    save(tmp_path, "single", 0, ["a", "b"])
    with pytest.raises(InputError, match="seed1/counts.parquet is missing"):
        gather(tmp_path, ["single"], [0, 1])
    save(tmp_path, "single", 1, ["b", "c"])
    with pytest.raises(InputError, match="partly overlap"):
        gather(tmp_path, ["single"], [0, 1])
    save(tmp_path, "linear", 0, ["a", "c"])
    with pytest.raises(InputError, match="linear was tested on other faces"):
        gather(tmp_path, ["single", "linear"], [0])
    with pytest.raises(InputError, match="no parser 'nothing': it has .'linear', 'single'"):
        gather(tmp_path, ["nothing"], [0])


def test_only_clean_faces_are_read(tmp_path):
    save(tmp_path, "single", 0, ["a"], perturbation="blur")
    with pytest.raises(InputError, match="no counts"):
        read_counts(tmp_path / "single" / "seed0")


def test_data_is_described_by_the_run(tmp_path):
    write_json(tmp_path / "single" / "seed3" / "run.json", {"faces": "procedural faces"})
    assert describe_data(tmp_path, ["single"], [3]) == "procedural faces"
    with pytest.raises(InputError, match="run.json is missing"):
        describe_data(tmp_path, ["linear"], [3])


def constant(*seed_scores, images=40):
    "Counts of 19 classes whose IoU is a given percentage, for each seed"
    return np.stack([np.tile([score, 100 - score, 0], (images, 19, 1)) for score in seed_scores])


def test_table1_by_hand():
    table = table1(
        {"single": constant(60, 70), "linear": constant(75, 85)}, "made up", resamples=200
    ).set_index("objective")
    assert table.miou.tolist() == pytest.approx([65, 80])
    assert table.miou_seed_std.tolist() == pytest.approx([50**0.5] * 2)
    assert (
        table.loc["single", "dice_macro"]
        == pytest.approx(100 * (1.2 / 1.6 + 1.4 / 1.7) / 2)
        == table.loc["single", "dice_micro"]
    )
    # two trainings, 60 and 70: Student's interval with one degree of freedom, 63.5 to each side
    assert (table.miou_low["single"], table.miou_high["single"]) == (
        pytest.approx(1.469, abs=0.001),
        100,
    )
    assert table.loc[
        "linear", ["difference", "difference_low", "difference_high"]
    ].tolist() == pytest.approx([15, 15, 15])  # paired: the seeds' luck is the same
    assert table.verdict.tolist() == ["baseline", "better"]
    assert (table.images == 40).all()
    assert (table.repetitions == 2).all()
    assert (table.data == "made up").all()
    assert table.loc["linear", ["reported_miou", "reported_dice"]].tolist() == [74.21, 94.28]


@pytest.mark.parametrize(
    "score,verdict", [(50, "worse"), (60, "equal within 1 point"), (61, "better")]
)
def test_verdicts(score, verdict):
    assert (
        table1({"single": constant(60), "linear": constant(score)}, "", resamples=50).verdict[1]
        == verdict
    )


def test_luck_is_learnt_from_all_objectives_and_questions_are_counted():
    counts = {
        "single": constant(60, 60, 60),
        "lucky": constant(59, 65, 60),
        "linear": constant(70, 71, 72),
    }
    table = table1(counts, "", resamples=200).set_index("objective")
    assert table.verdict.tolist() == ["baseline", "undecided", "better"]
    assert table["first"]["linear"] > 0.99 and table["first"].sum() == pytest.approx(1)
    pair = {name: counts[name] for name in ("single", "linear")}
    alone = table1(pair, "", resamples=200).set_index("objective")
    # without the lucky one, trainings seem to vary less
    width = [t.difference_high["linear"] - t.difference_low["linear"] for t in (table, alone)]
    assert width[0] > width[1] and alone.p_adjusted["linear"] == alone.p["linear"]
    assert np.isnan(table.p_adjusted["single"]) and np.isnan(table.difference["single"])


def test_the_margin_is_named_and_decides():
    counts = {"single": constant(60, 61, 62), "linear": constant(61, 60, 63)}
    words = [table1(counts, "", resamples=50, margin=margin).verdict[1] for margin in (1, 9)]
    assert words == ["undecided", "equal within 9 points"]


def test_table1_without_baseline_and_with_a_control():
    table = table1({"linear": constant(60), "no_noise": constant(60)}, "", resamples=50)
    assert set(table.verdict) == {"single was not run"}
    assert table.difference.isna().all()
    assert np.isnan(table.reported_miou[1])
    assert np.isnan(table.miou_seed_std[0])


def test_reported_values_are_the_papers():
    assert REPORTED_TABLE1 == {
        "single": (73.87, 94.46),
        "linear": (74.21, 94.28),
        "sigmoid": (73.50, 94.35),
        "piecewise": (73.80, 94.47),
        "linear_alt": (73.81, 94.49),
    }
    assert all(len(row) == 19 for row in REPORTED_TABLE3.values())
    assert np.mean(REPORTED_TABLE3["linear_alt"]) == pytest.approx(74.27, abs=0.005)
    for name in REPORTED_TABLE1:
        find_objective(name)


def test_table3_by_hand():
    counts = np.zeros((1, 2, 19, 3), int)
    counts[0, :, :, 0], counts[0, :, :, 1] = 50, np.arange(19)
    counts[0, 1, 5], counts[0, :, 7] = 0, 0
    table = table3({"single": counts}, [f"class {i}" for i in range(19)], "made up", resamples=50)
    assert len(table) == 20 and table["class"].iloc[-1] == "mean" and table.class_id.iloc[-1] == -1
    assert table.single[3] == pytest.approx(100 * 50 / 53) and np.isnan(table.single[7])
    assert table.single.iloc[-1] == pytest.approx(table.single[:-1].mean())
    assert table.images_with_class.tolist() == [2] * 5 + [1, 2, 0] + [2] * 12
    assert table.reported_single[6] == 75.02
    assert (table.single_low[:5] <= table.single[:5] + 1e-9).all()
    assert "reported_single" not in table3(
        {"single": counts[:, :, :3]}, list("abc"), "", resamples=10
    )


def test_recorded_weights_meet_the_schedule(tmp_path):
    from fairparse.data.show import draw_predictions, line_style
    from fairparse.results.objectives import draw_schedules, recorded_weights, schedule_table

    names = ["linear", "piecewise"]
    for name in names:
        rows = [
            dict.fromkeys(HISTORY.columns, 0.0)
            | {"epoch": e}
            | dict(zip(("alpha", "beta", "gamma"), find_objective(name).homotopy(e, 7)))
            for e in range(7)
        ]
        write_table(pd.DataFrame(rows), tmp_path / name / "seed2" / "history.parquet", HISTORY)
    ideal, recorded = schedule_table(names, 7), recorded_weights(tmp_path, names, 2, 7)
    pd.testing.assert_frame_equal(recorded.reset_index(drop=True), ideal, check_dtype=False)
    assert recorded_weights(tmp_path, names, 2, 31).epoch.max() == 31
    figure = draw_schedules(ideal, recorded)
    assert [len(ax.lines) for ax in figure.axes] == [4, 4, 4]
    assert line_style("unheard") == {
        "color": "#777777",
        "linestyle": "-",
    }
    pictures = draw_predictions(
        np.zeros((3, 8, 8, 3), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        {"single": np.ones((3, 8, 8), np.uint8)},
    )
    assert len(pictures.axes) == 9


def test_a_second_block_changes_nothing_about_the_papers_rows():
    paper = {"single": constant(60, 60, 60), "linear": constant(61, 60, 62)}
    both = table1({**paper, "fair": constant(70, 69, 71)}, "", resamples=200, beyond=("fair",))
    alone = table1(paper, "", resamples=200)
    pd.testing.assert_frame_equal(both[both.block == "paper"], alone)
    assert both.objective.tolist() == ["single", "linear", "fair"]
    assert both.verdict.iloc[-1] == "better" and np.isnan(both.reported_miou.iloc[-1])
    assert both.p_adjusted.iloc[-1] == both.p.iloc[-1]  # one question in its block
    assert "block" not in table1_for_readers(alone)
    assert table1_for_readers(both).block.tolist() == ["paper", "paper", "beyond the paper"]


def test_the_readers_of_the_study_see_what_changes_the_rare_group():
    rows = [
        (parser, quantity, 70.0, 1.0, 0.5, 1.5, p)
        for parser, p in [("single", np.nan), ("linear", 0.9), ("turned", 0.9), ("cleaned", 0.01)]
        for quantity in ("overall", "rare group", "variance over groups")
    ]
    names = ["parser", "quantity", "value", "difference", "low", "high", "p_adjusted"]
    shown = study_for_readers(pd.DataFrame(rows, columns=names))
    assert list(shown) == ["objective", "overall", "rare group"]
    assert shown.objective.tolist() == [parser_title(p) for p in ("single", "linear", "cleaned")]
    assert shown["rare group"].tolist()[1:] == ["+1.0 (+0.5 to +1.5)", "+1.0 (+0.5 to +1.5)*"]
