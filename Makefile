# The commands of a working day. `make` alone lists them; each prints what it does before it does it.
# Two installs share one virtual environment: serving (no torch) and everything. A stamp file in .venv, made after
# pyproject.toml and constraints.txt, says that an install is current, so that a second start installs nothing.

PYTHON ?= python3
ARGS ?=
RECIPE ?= lenet5
SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input --constraint constraints.txt
SERVING := $(VENV)/.serving-installed
EVERYTHING := $(VENV)/.everything-installed
TEST_PACKAGES := chromium-headless-shell libb64-0d nghttp2-client unpack:nginx unpack:prometheus unpack:redis-server
# What the HTTP/2 extension is built from and with. Without these packages the install succeeds, and serves with grpcio.
EXTENSION := setup.py $(wildcard server/frontends/grpc/http2_build.py server/frontends/grpc/http2_shim.*)
BUILD_PACKAGES = gcc libc6-dev libnghttp2-dev $(shell $(BIN)/python tools/needs_python_dev.py)
UNPACKED := $(CURDIR)/.cache/debian/usr
BUILD_PATHS = CPATH="$(UNPACKED)/include" LIBRARY_PATH="$(wildcard $(UNPACKED)/lib/*-linux-gnu)"
# Where the environment says that bytecode is not to be kept, each of the tests' hundreds of servers compiles the source.
unexport PYTHONDONTWRITEBYTECODE
# mutmut writes all mutants and finds the tests of each, then runs those that are named.
ONE_MUTANT := server.access.tokens.x_new_token__mutmut_1
announce = @sed -n 's/^$@:.*\#\# /== make $@: /p' $(firstword $(MAKEFILE_LIST))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help serve install-dev test check format proto dashboards playground playground-screenshots train model fuzz fuzz-ci proofs mutants sanitize load soak bench bench-check deploy-check sbom audit system-packages clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo '  ARGS="..." is passed on to the command of serve, test, fuzz, fuzz-ci, proofs, sanitize, playground, train, model, load, soak, bench, bench-check, deploy-check, sbom and audit; PYTHON=... picks the interpreter.'

# All models, and others on request; ARGS may say otherwise.
LOADING = $(if $(findstring --model-control-mode,$(ARGS)),,--model-control-mode explicit \
	$(if $(findstring --load-model,$(ARGS)),,--load-model '*'))

serve: $(SERVING) ## install what serving needs (no torch) and serve model_repository/ on 127.0.0.1, ports 8001, 8000 and 8002, with a page to draw on
	$(announce)
	$(BIN)/python -m server --model-repository model_repository $(LOADING) \
		--grpc-address 127.0.0.1 --http-address 127.0.0.1 $(ARGS)

install-dev: $(EVERYTHING) ## install the rest: torch (CPU), training, load tests and the tools of development

test: install-dev system-packages check ## make check, then the whole test suite
	$(announce)
	$(BIN)/python -m pytest -ra --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(EVERYTHING) ## lint, format, types, layers of imports, generated protobuf and dashboards
	$(announce)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict server training loadtest deploy proto/generate.py
	$(BIN)/lint-imports
	$(BIN)/python -m proto.generate --check
	$(BIN)/python -m deploy.grafana.generate --check

format: $(EVERYTHING) ## put the source into the one format, and fix what ruff can fix
	$(announce)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(EVERYTHING) ## fuzz every parser of strangers' bytes with atheris: SECONDS=60 a target, ARGS="infer http1" for some
	$(announce)
	$(BIN)/python -m tests.fuzz --seconds=$(SECONDS) $(ARGS)

fuzz-ci: $(EVERYTHING) ## fuzz with the same inputs each time, a minute of one core for each of 22 targets, two at a time
	$(announce)
	PYTHONHASHSEED=0 $(BIN)/python -m tests.fuzz --ci --jobs=2 $(ARGS)

proofs: $(EVERYTHING) ## put small systems of ours through every order of events, in sizes that the tests have no time for: 10 minutes
	$(announce)
	$(BIN)/python -m tests.proofs $(ARGS)

mutants: $(EVERYTHING) ## plant every small bug that mutmut knows into the pure rooms, and count those that the tests find: half an hour
	$(announce)
	$(PIP) --quiet --editable .[mutation]
	$(BIN)/mutmut run '$(ONE_MUTANT)'
	cd mutants && PYTHONPATH=. ../$(BIN)/python -m tests.mutants $(ARGS)
	$(BIN)/mutmut results

sanitize: $(EVERYTHING) ## play seeds and mutations into the HTTP/2 shim under ASan and UBSan, or ARGS=--runs=5000000
	$(announce)
	$(BIN)/python -m tests.fuzz.sanitize $(ARGS)

proto: $(EVERYTHING) ## generate the Python of proto/*.proto
	$(announce)
	$(BIN)/python -m proto.generate

dashboards: $(EVERYTHING) ## generate deploy/grafana/dashboards/*.json
	$(announce)
	$(BIN)/python -m deploy.grafana.generate

playground: ## build the page in playground/ into server/playground/static/ (needs Node.js): npm ci, test, build, size; ARGS=--check without Node.js
	$(announce)
	$(PYTHON) tools/playground.py $(ARGS)

playground-screenshots: $(EVERYTHING) ## take the pictures of docs/playground.md and docs/loadtest.md anew, in headless Chromium
	$(announce)
	$(BIN)/python -m tests.browser.screenshots

train: $(EVERYTHING) ## train LeNet-5 on real handwritten digits
	$(announce)
	$(BIN)/python -m training train $(ARGS)

model: $(EVERYTHING) ## train, evaluate, export and serve a recipe: RECIPE=letters26; what is done is not done again
	$(announce)
	$(BIN)/python tools/model.py $(RECIPE) $(ARGS)

load: $(EVERYTHING) ## put 64 Locust users on a fresh server for 60 s: report, CSV, percentiles in µs, a verdict
	$(announce)
	$(BIN)/python -m loadtest run $(ARGS)

soak: $(EVERYTHING) ## do all that clients do to a fresh server for 30 minutes: is it flat, and are all answers right? ARGS="--seconds 60"
	$(announce)
	$(BIN)/python -m loadtest soak $(ARGS)

bench: $(EVERYTHING) ## our server beside its peers, 25 minutes, writes docs/benchmarks.md; ARGS=--quick: short; ARGS=small, idle, … : ours alone
	$(announce)
	@bash tools/system_packages.sh $(TEST_PACKAGES) || true
	$(BIN)/python -m loadtest bench $(ARGS)

bench-check: $(EVERYTHING) ## our server beside the floors, 3 minutes: is it slower than loadtest/baseline.json says? ARGS=--update writes that
	$(announce)
	@bash tools/system_packages.sh $(TEST_PACKAGES) || true
	$(BIN)/python -m loadtest bench-check $(ARGS)

deploy-check: $(EVERYTHING) ## lint docker-compose.yml and the Dockerfile, build the images and run them; ARGS=--static for lint alone
	$(announce)
	bash deploy/check.sh $(ARGS)

sbom: $(EVERYTHING) ## write dist/convoy.cdx.json: what a server consists of, as CycloneDX 1.6
	$(announce)
	$(BIN)/python tools/sbom.py $(ARGS)

audit: $(EVERYTHING) ## look all pinned packages up among known vulnerabilities (asks pypi.org; without it, it fails)
	$(announce)
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --desc $(ARGS)

system-packages: ## get the Debian packages that the tests use: installed for root, else unpacked into .cache/
	$(announce)
	@bash tools/system_packages.sh $(TEST_PACKAGES) || true

clean: ## remove caches and build output; .venv, .cache and runs/ stay
	$(announce)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@bash tools/make_venv.sh "$(PYTHON)" $(VENV)

$(SERVING): pyproject.toml constraints.txt $(EXTENSION) | $(BIN)/python
	@echo "== installing what serving needs into $(VENV) (once)"
	@bash tools/system_packages.sh $(BUILD_PACKAGES) || true
	$(BUILD_PATHS) $(PIP) --editable '.[cpu,client]'
	@touch $@

$(EVERYTHING): pyproject.toml constraints.txt $(EXTENSION) | $(BIN)/python
	@echo "== installing everything into $(VENV), torch included (once, some minutes)"
	@bash tools/system_packages.sh $(BUILD_PACKAGES) || true
	$(BUILD_PATHS) $(PIP) --editable '.[cpu,client,train,load,dev]'
	@touch $(SERVING) $@
