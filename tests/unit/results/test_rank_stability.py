"Rank stability: every table of a run, what is left out, and what readers see"

import numpy as np
import pandas as pd
import pytest
from helpers import run_notebook
from painting_helpers import DISTANCES, LPIPS, save

from fairparse.core.records import COUNTS, INDEX, write_table
from fairparse.measure.counts import counts_table
from fairparse.results.evidence import Evidence
from fairparse.results.rank_stability import (
    COLUMNS,
    damage_blocks,
    group_blocks,
    painting_blocks,
    parser_blocks,
    rank_stability,
)
from fairparse.results.readers import ranks_for_readers

NAMES, FACES = ["single", "linear", "sigmoid"], 60


def save_counts(folder, rng, skill, objective, seed):
    "Counts of one training on all faces"
    tp = rng.binomial(200, skill, (FACES, 4))
    counts = np.stack([tp, (200 - tp) // 2, (200 - tp) // 2], -1)
    ids = [f"{i:03d}" for i in range(FACES)]
    name = "counts.parquet" if folder.name == "20_parsers" else "settings/blur_0.3.parquet"
    setting = ("none", 0.0) if folder.name == "20_parsers" else ("blur", 0.3)
    path = folder / objective / f"seed{seed}" / name
    write_table(counts_table(counts, ids, objective, seed, *setting), path, COUNTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "The linear parser is better by three points, and its painted faces are closer"
    out, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    for objective in NAMES:
        for seed in range(3):
            for stage, skill in (("20_parsers", 0.85), ("30_sweep", 0.7)):
                gain = 0.03 * (objective == "linear") + rng.normal(0, 0.001)
                save_counts(out / stage, rng, skill + gain, objective, seed)
        effects = dict.fromkeys(DISTANCES, -5.0) if objective == "linear" else None
        save(out / "70_score", objective, effects=effects, seeds=0.02)
    index = {"id": [f"{i:03d}" for i in range(FACES)], "split": "test", "fold": None, "source": ""}
    index = pd.DataFrame(index).assign(Male=np.arange(FACES) < 25, Young=np.arange(FACES) >= 20)
    index[["Male", "Young"]] = index[["Male", "Young"]].astype("Int8")
    write_table(index, out / "10_faces" / "index.parquet", INDEX)
    return Evidence(out, NAMES, [0, 1, 2])


def test_each_block_has_the_best_first(run):
    blocks = [
        *parser_blocks(run),
        *damage_blocks(run, ["blur"], 0.3),
        *painting_blocks(run),
        *group_blocks(run)[:1],
    ]
    for block in blocks:
        assert list(block) == COLUMNS and block.method.tolist() == NAMES
        best = block.set_index("method").loc["linear"]
        assert best["first"] > 0.99 and (best.rank_low, best.rank_high) == (1, 1), block
        assert best.separable_from == "single sigmoid"
        assert block["first"].sum() == pytest.approx(1)


def test_a_lower_distance_is_better_and_each_table_has_its_own(run):
    blocks = painting_blocks(run)
    assert [block.table[0] for block in blocks].count("Table IV") == 4  # two kinds, two models
    assert [block.table[0] for block in blocks].count("Table II") == 8  # four kinds of damage
    assert sum(block.quantity[0].startswith(LPIPS) for block in blocks) == 2
    for block in blocks:
        assert block.score.idxmin() == block["rank"].idxmin()


def test_how_unequal_groups_are_is_ranked_by_the_lowest(run):
    blocks = {block.quantity[0]: block for block in group_blocks(run)}
    gap = blocks["gap between groups, points"]
    assert gap.score.idxmin() == gap["rank"].idxmin() and (gap.images == 25).all()


def test_what_a_run_does_not_have_is_named(run):
    table, left_out = rank_stability(run, ["blur"], 0.3)
    assert set(table.table) == {"Table I", "Groups", "Damage", "Table II", "Table IV"}
    assert left_out == ["not run: retrained parsers (audit_parser)"]
    assert (table.tested_over.str.endswith("and 3 trainings") == (table.trainings == 3)).all()
    _, without = rank_stability(run, ["jpeg"], 0.3)
    assert len(without) == 2 and "the sweep with jpeg_0.3" in without[0]


def test_one_training_says_that_it_is_one(run):
    block = parser_blocks(Evidence(run.out, NAMES, [0]))[0]
    assert (block.tested_over == "60 faces").all() and (block.trainings == 1).all()


def test_the_notebook_writes_what_readers_see(run, tmp_path):
    out = tmp_path / "rank_stability.csv"
    run_notebook(
        "80_rank_stability",
        out=str(out),
        run=str(run.out),
        objectives=NAMES,
        seeds=[0, 1, 2],
        perturbations=["blur"],
        severities=[0.3],
    )
    shown = ranks_for_readers(pd.read_csv(out, keep_default_na=False, na_values=[""]))
    first = shown.iloc[0]
    assert (first.table, first.by) == ("Table I", "mIoU, %") and first["first"] == ">0.99"
    assert first["row"] == "Multi-Objective (Linear)" and first["rank (95 %)"] == "1.0 (1 to 1)"
    assert first["can be told apart from"].startswith("Single Objective")
    assert shown.groupby(["table", "by"]).size().eq(3).all()
