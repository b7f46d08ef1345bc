# Lockstep: `make` alone lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HELM ?= $(or $(shell command -v helm),.cache/tools/helm)
BUILD ?= buildah build --layers --format docker
MANIFEST ?= deploy/lockstep.yaml

# With byte-code kept, a worker of the tests collects them in half of the time, and whatever is started starts sooner.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test e2e coverage bench serve lint client images manifests lock clean

help: ## list what make can do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(READY): pyproject.toml deploy/requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lockstep needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## two replicas of one workload, from the real index, on the embedded default
	@$(BIN)/python -m tests.e2e.demo

# More workers than cores: many a test waits, for a fault to be noticed or for a time to pass.
PYTEST := $(BIN)/python -m pytest --numprocesses 6 --dist loadfile --no-loadscope-reorder

test: $(READY) ## the suite
	@$(PYTEST) --ignore tests/e2e

e2e: $(READY) ## images, and Pods that run them: as root, with podman, and what else .ci/run installs
	@$(PYTEST) tests/e2e

coverage: $(READY) ## what of the code tests/{unit,contracts,integration} run
	@$(PYTEST) --cov --cov-report=term tests/unit tests/contracts tests/integration

bench: $(READY) ## beside pip and uv; ARGS="--quick" takes minutes, "--only cold --set web" a part of it
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/requirements/bench.txt
	@$(BIN)/python -m tests.benchmarks $(ARGS)

serve: $(READY) ## the service on 127.0.0.1:8080, data under .lockstep
	@$(BIN)/lockstep serve

lint: $(READY) ## ruff, mypy strict, the doors between rooms
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

client: $(READY) ## dist/lockstep.pyz, the client that needs nothing but Python
	@$(BIN)/python -m resolver.client.build dist/lockstep.pyz

images: ## the container images, from the bases that the Dockerfile names
	@for target in service client; do \
	  $(BUILD) --target $$target --build-arg REVISION=$$(git rev-parse HEAD) --tag localhost/lockstep/$$target . || exit; done

manifests: ## deploy/lockstep.yaml, rendered from the chart
	@{ cat deploy/namespace.yaml && $(HELM) template lockstep deploy/chart --namespace lockstep --kube-version 1.33; } > $(MANIFEST).new
	@mv $(MANIFEST).new $(MANIFEST)

lock: ## renew the hashed locks under deploy/requirements
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade pyproject.toml -o deploy/requirements/service.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade pyproject.toml --group dev -o deploy/requirements/dev.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade pyproject.toml --group dev --group parts -o deploy/requirements/parts.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade --group build -o deploy/requirements/build.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade --group checkov -o deploy/requirements/checkov.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade pyproject.toml --group dev --group bench -o deploy/requirements/bench.txt

clean: ## remove what the other targets made
	@rm -rf $(VENV) .lockstep dist .pytest_cache .mypy_cache .ruff_cache
