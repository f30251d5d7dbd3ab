# make reproduce                       parsers, generators, tables and figures from procedural faces, on any laptop
# make reproduce DATA=/path/to/faces   the same from a real CelebAMask-HQ folder, whole or partial
# make study                           does the method work? all objectives and methods in a world with a planted unfairness, five seeds (two and a half hours on two cores)
# make docs                            the notebooks as a site to read, with search and a reference of every module
# make bench                           is it fast? everything beside what one would write or install instead (on a quiet machine; half an hour on two cores with bfloat16 matrix units, up to 2.3 times as long without)
# make bench-commits BASE=ff63799      is it faster than it was? the demo's jobs with the code and the profile of that commit and of this working tree, in turns; MINUTES=20 ends it earlier (an hour and more on one core otherwise), TURNS=1 measures all stages but training with one seed, ISA=AVX2 measures with oneDNN limited to AVX2 as well
# make quick                           what a change needs, in under three minutes on two cores without bfloat16 matrix units: what is not committed, or the last commit; SINCE=revision
# make lint, make format               notebooks, tests and scripts as ruff.toml says: look, mend
# make test                            everything that must hold before a change is merged
# PROFILE=ci|demo|sample|paper, CORES=n and OUT=folder are passed on to reproduce (CORES to study too); PYTHON names the interpreter that .venv is made from.
PYTHON ?= python3
PROFILE ?=
DATA ?=
CORES ?=
OUT ?=
RUN ?=
DEVICE ?=
SINCE ?=
BASE ?=
MINUTES ?=
TURNS ?=
ISA ?=
BIN := .venv/bin

.PHONY: reproduce study quick lint format test docs faults publish bench bench-commits install
.DELETE_ON_ERROR:

reproduce: .venv/.installed
	$(BIN)/fairparse reproduce $(if $(PROFILE),--profile "$(PROFILE)") $(if $(DATA),--data "$(DATA)") $(if $(CORES),--cores $(CORES)) $(if $(OUT),--out "$(OUT)")

# the controls first: the study compares itself with them
study: .venv/.installed
	$(BIN)/fairparse reproduce --profile study_even --stages train $(if $(CORES),--cores $(CORES))
	$(BIN)/fairparse reproduce --profile study_plenty --stages train $(if $(CORES),--cores $(CORES))
	$(BIN)/fairparse reproduce --profile study --stages study $(if $(CORES),--cores $(CORES))

# ruff, the export, the changed notebooks, their tests and those of modules that import them, and the structure; says what it leaves out
quick: .venv/.installed
	$(BIN)/python tests/quick.py $(if $(SINCE),--since "$(SINCE)")

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/python tests/check_export.py
	$(BIN)/nbdev_test --path nbs/lib --n_workers 2
	$(BIN)/python -m pytest -q -n 2 --dist loadscope tests

# the notebooks as a site with search and a reference: _docs/site/index.html; RUN=outputs/demo shows that run's executed notebooks
docs: .venv/.installed
	$(BIN)/fairparse docs $(if $(RUN),--run "$(RUN)")

# kills the ci profile twenty times at bad moments, and compares what comes out with an undisturbed run (an hour or so on two cores with bfloat16 matrix units, up to 2.3 times as long without)
faults: .venv/.installed
	$(BIN)/python tests/faults.py --kills 20 --runs 4 --out outputs/faults

# copy the small results of the demo, and of the study and the benchmarks if they were made, to outputs/published and refresh the README's tables
publish: .venv/.installed
	$(BIN)/fairparse publish
	test ! -f outputs/study/study/run.json || $(BIN)/fairparse publish --out outputs/study
	for folder in outputs/bench outputs/bench_cuda outputs/bench_commits; do test ! -f $$folder/run.json || $(BIN)/fairparse publish --out $$folder || exit 1; done

# everything that is said to be fast, beside what one would write or install instead: outputs/bench; on a quiet machine, see nbs/paper/95_bench.ipynb
BENCH := outputs/bench$(if $(DEVICE),_$(DEVICE))
bench: .venv/.installed
	$(BIN)/fairparse run 95_bench $(BENCH)/95_bench.ipynb -p out $(BENCH) $(if $(DEVICE),-p device $(DEVICE)) $(if $(DATA),-p celebamask "$(abspath $(DATA))") $(if $(RUN),-p demo "$(RUN)")

# this working tree beside an older commit: outputs/bench_commits, see nbs/paper/96_bench_commits.ipynb; CORES turns run at a time
ISAS := ["", "$(ISA)"]
bench-commits: .venv/.installed
	$(BIN)/fairparse run 96_bench_commits outputs/bench_commits/96_bench_commits.ipynb $(if $(BASE),-p base "$(BASE)") $(if $(MINUTES),-p minutes $(MINUTES)) $(if $(TURNS),-p turns $(TURNS)) $(if $(ISA),-p isa '$(ISAS)') $(if $(CORES),-p at_once $(CORES))

install: .venv/.installed

# the exact versions of requirements.lock, then this folder itself, so that `fairparse` runs the code in it; of gan-face-generate
# only the weights are read, and what its own code would need (wandb with its media extras, an older Pillow) stays away; facenet-pytorch
# asks for a PyTorch and a numpy of 2024 and works with today's
.venv/.installed: requirements.lock settings.ini setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || { \
	  echo "fairparse needs Python 3.11 or 3.12, and $(PYTHON) is $$($(PYTHON) --version 2>&1): install one and name it, as in: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -e . gan-face-generate==1.1.1 facenet-pytorch==2.6.0
	@touch $@
