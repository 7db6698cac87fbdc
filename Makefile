# Everything is set up in .venv and .cache by the target that needs it; a second run starts in seconds.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
# The first that is supported; looked for only when .venv is made.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

HOST ?= 127.0.0.1
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
HEALTH_PORT ?= 8003
REPOSITORY ?= .cache/repository
FRONT_PORT ?= 8080
API_PORT ?= 8080
WEBUI_PORT ?= 7860
# FRONT is what API was called.
FRONT ?= $(API)
CASES ?= 200
SEED ?= 0
VIDEOS ?= 300
# ENGINES is what OUTPUT was called.
OUTPUT ?= $(or $(ENGINES),.cache/gpu/$(GPU))
RESULTS ?= perf/results


PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/python $(PIP_INSTALL)
# No file is installed whose hash is not in the lock, and no package runs code of its own to be installed.
LOCKED := --require-hashes --no-deps --only-binary :all: --requirement requirements/locked
TYPED := build qwen3_vl_client preprocess encoder sessions engines
# Each stage has one of this name.
ADAPTERS := $(wildcard model_repository/*/1/model.py)
# $(call given,OPTION,VALUE): nothing without a value.
given = $(if $(2),--$(1) '$(2)')
MYPY := $(BIN)/mypy --no-error-summary --cache-dir .cache/mypy

SERVE := $(BIN)/python -m build.serve --model '$(MODEL)' --repository '$(REPOSITORY)' \
	--http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --metrics-port $(METRICS_PORT) --health-port $(HEALTH_PORT)

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
BENCHMARKS := $(addprefix bench-,answers batching context engine followup ingest memory overlap quantisation sampling \
	summaries)
.PHONY: help env demo serve front api webui repository engines test lint parity accuracy fuzz-engine fuzz-media fuzz-api \
	fuzz-tensors attack $(BENCHMARKS) bench-gpu bench-gpu-vision load load-sweep load-users load-web load-batching \
	load-report load-sizing soak overload chaos lock audit clean

help: ## Show this help
	@echo 'make TARGET [VARIABLE=value ...]'
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 22
	@echo
	@echo '  PYTHON=python3            the Python, 3.11 or 3.12, that .venv is made with'
	@echo '  MODEL=                    serve, demo: a checkpoint, folder or hub name; empty: the demo checkpoint'
	@echo '  HOST=127.0.0.1            serve, front: the address to listen on; the ports behind API and page stay local'
	@echo '  HTTP_PORT=8000 GRPC_PORT=8001 METRICS_PORT=8002 HEALTH_PORT=8003'
	@echo '  FRONT_PORT=8080 FRONT="--allowed-host example.com ..."  front: where it listens; options of qwen3-vl-front'
	@echo '  API_PORT=8080 WEBUI_PORT=7860  api, webui: where these listen'
	@echo '  MEDIA_ROOT=               serve, front: the folder that video_uri is looked up in; front: .cache/media'
	@echo '  REPOSITORY=.cache/repository   serve: where the model repository is assembled'
	@echo '  SET="decoder.max_batch=8 ..."  serve: further settings, see model_repository/*/config.pbtxt'
	@echo '  GPU=rtx4090d              repository: the profile; with CONTEXT, CONCURRENCY, WEIGHTS, KV_CACHE, QUANTISED as wanted'
	@echo '  ENGINE=                   repository: pytorch instead of tensorrt_llm in stage 3'
	@echo '  OUTPUT=.cache/gpu/GPU     repository: where it is built; DRY_RUN=1 says what would be done'
	@echo '  CASES=200 SEED=0          parity, fuzz-engine, fuzz-media, fuzz-tensors (10000), fuzz-api: how many random requests, and which'
	@echo '  LOAD="--requests 500"     load-*, soak, overload, chaos: options of the run (LOAD=--help)'
	@echo '  ATTACK="--only REGEX"     attack: options of the run, those of a stack that runs too (ATTACK=--help)'
	@echo '  RESULTS=perf/results BASELINE=  load-report: folders of results'
	@echo '  TESTS=tests/build/serve   test: only these'
	@echo '  PYTEST=--no-skips         test: options of pytest'

env: $(VENV)/.serve ## Make .venv with what serving needs

demo: $(VENV)/.client ## Ask a question about a sample video: server, answer with its timings, nothing left running
	@$(BIN)/python -m build.serve.demo --model '$(MODEL)'

serve: $(VENV)/.client ## Serve MODEL in the foreground until Ctrl-C
	@$(SERVE) --host '$(HOST)' --media-root '$(MEDIA_ROOT)' --set $(SET)

front: PORT = $(FRONT_PORT)
api: PORT = $(API_PORT)
webui: PORT = $(WEBUI_PORT)
front api webui: MEDIA_ROOT := $(or $(MEDIA_ROOT),.cache/media)
front api webui: $(VENV)/.front
	@mkdir -p -m 700 '$(MEDIA_ROOT)'
	@$(SERVE) --media-root '$(MEDIA_ROOT)' --set $(SET) --front $(BIN)/qwen3-vl-front --media-root '$(MEDIA_ROOT)' \
		--host '$(HOST)' --port $(PORT) --model '$(notdir $(or $(MODEL),qwen3-vl-demo))' $(FRONT)
front: ## Serve MODEL, the OpenAI-compatible API and the web page in the foreground until Ctrl-C
api: ## The same, on the API's usual port
webui: ## The same, on the page's usual port

repository engines: $(VENV)/.serve
	@$(if $(filter engines,$@)$(ENGINES),echo '`make engines ENGINES=...` is called `make repository OUTPUT=...` now')
	@$(BIN)/python -m build.gpu --gpu '$(GPU)' --model '$(MODEL)' --output '$(OUTPUT)' \
		$(call given,context,$(CONTEXT)) $(call given,concurrency,$(CONCURRENCY)) $(call given,weights,$(WEIGHTS)) \
		$(call given,kv-cache,$(KV_CACHE)) $(call given,quantised,$(QUANTISED)) $(call given,engine,$(ENGINE)) \
		$(if $(DRY_RUN),--dry-run)
repository: ## Build the repository that serves MODEL on GPU (build/GPU.md)

test: lint ## Lint, check types, run every test
	@echo 'tests'
	@$(BIN)/python -m pytest $(PYTEST) $(TESTS)

lint: $(VENV)/.test ## Check style, types and what imports what
	@echo 'ruff'
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo 'mypy'
	@$(MYPY) $(TYPED:%=--package %)
	@for adapter in $(ADAPTERS); do $(MYPY) $$adapter || exit 1; done
	@echo 'import contracts'
	@$(BIN)/lint-imports --no-cache pyproject.toml >.cache/imports.txt || { cat .cache/imports.txt; exit 1; }

fuzz-engine fuzz-media fuzz-tensors: CASES = 10000
fuzz-engine: export TRITON_INTERPRET = 1
parity fuzz-engine fuzz-media fuzz-api: $(VENV)/.test
	@$(BIN)/python -m perf.checks.$(subst -,_,$@) --cases $(CASES) --seed $(SEED)

parity: ## Compare CASES random requests, served, with transformers
fuzz-engine: ## Run CASES random schedules through the decoder's engine
fuzz-media: ## Send CASES damaged files through stage 1
fuzz-api: ## Hold the API against its own OpenAPI description, CASES requests per operation

fuzz-tensors: $(VENV)/.test ## Send CASES wrong requests to every tensor of every model
	@$(BIN)/python -m perf.attack.fuzz_tensors --cases $(CASES) --seed $(SEED) $(call given,model,$(MODEL))

attack: $(VENV)/.test ## Attack the whole stack in every known way, with honest clients beside it
	@$(BIN)/python -m perf.attack $(call given,model,$(MODEL)) $(ATTACK)

accuracy: $(VENV)/.test ## Ask the served demo checkpoint about VIDEOS fresh videos, against its bars
	@$(BIN)/python -m perf.checks.accuracy --seed $(SEED) --videos $(VIDEOS)

bench-sampling bench-ingest: .cache/peers/.installed
$(BENCHMARKS): $(VENV)/.test
	@$(BIN)/python -m perf.bench.$(@:bench-%=%)

bench-answers: ## Count right answers with the adaptive sampler at half the frames, and uniform sampling
bench-batching: ## Time eight requests at once, and transformers one after the other
bench-context: ## Ask one request of 262,144 tokens; plot the decoder's memory
bench-engine: ## Time the decoder's engine on prompts and answers of mixed lengths, and transformers
bench-followup: ## Time a second question about a ten-minute video
bench-ingest: ## Time stage 1 on two hours of video, and other readers
bench-memory: ## Watch the server's memory over a thousand requests
bench-overlap: ## Time the first token of the stages together, paced like a device
bench-quantisation: ## Ask what weights and a KV cache of fewer bits cost in right answers
bench-sampling: ## Count the known events that samplers see
bench-summaries: ## Summarise a video eight times longer than the context, parts together and one by one

bench-gpu: $(VENV)/.test ## Time the engine on a GPU at the published shapes, against the card's own limits
	@$(BIN)/python -m perf.gpu.engine

bench-gpu-vision: $(VENV)/.test ## Time the vision tower on a GPU in PyTorch, compiled and in ONNX Runtime
	@$(BIN)/python -m perf.gpu.vision

load: $(VENV)/.test ## Put load on the server in every way, for some minutes; leaves .cache/load/results/report.html
	@$(BIN)/python -m perf.load $(call given,model,$(MODEL)) $(LOAD)

load-sweep load-users load-batching soak overload chaos: $(VENV)/.test
	@$(BIN)/python -m perf.load.$(@:load-%=%) $(call given,model,$(MODEL)) $(LOAD)

load-sweep: ## perf_analyzer: concurrency, Poisson arrivals, each stage alone
load-users: ## locust: users who behave like users
load-batching: ## Long answers, one at a time and more at once
soak: ## Thousands of requests; memory, handles and KV blocks must stay flat
overload: ## Offer twenty times what the server can do
chaos: ## Kill stages under load, again and again

load-sizing: $(VENV)/.test ## How many GPUs a load needs, by the sweep in RESULTS and the planner
	@$(BIN)/python -m perf.load.sizing --results '$(RESULTS)' $(LOAD)

load-web: $(VENV)/.test ## locust's page, for the server of `make serve`: set up load there, watch it
	@QWEN3_VL_URL=$(HOST):$(GRPC_PORT) $(BIN)/python -m locust --locustfile perf/load/traffic/locustfile.py \
		--host http://$(HOST):$(HTTP_PORT) --web-host 127.0.0.1 $(LOAD)

load-report: $(VENV)/.test ## One page of the RESULTS, beside those in BASELINE if given: .cache/load/report.html
	@$(BIN)/python -m perf.load.page --results '$(RESULTS)' $(call given,baseline,$(BASELINE)) \
		--output .cache/load/report.html

lock: .cache/lock/.installed ## Write requirements/locked again: every package with the hashes of its files; UPGRADE=--upgrade for newer ones
	@UV=$(CURDIR)/$(<D)/bin/uv UPGRADE=$(UPGRADE) requirements/lock.sh

audit: .cache/audit/.installed ## Ask databases for the known holes of what is locked; exit status 3: they could not be asked
	@$(<D)/bin/python requirements/audit.py --pip-audit $(<D)/bin/pip-audit

clean: ## Remove what was set up: .venv and .cache
	rm -rf $(VENV) .cache

# One stamp per set of packages: a target installs no more than it needs, once.

$(VENV)/bin/python:
	@test -n '$(PYTHON)' || { echo 'error: no Python 3.11 or 3.12 is on the PATH. Install one' \
		'(Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@command -v '$(PYTHON)' >/dev/null || { echo 'error: PYTHON=$(PYTHON) is not a program' >&2; exit 1; }
	@$(PYTHON) -m build.serve.server.prerequisites
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'error: $(PYTHON) cannot make virtual environments.' \
		'Debian, Ubuntu: apt install python3-venv (of the same version, e.g. python3.11-venv)' >&2; exit 1; }
	@echo 'making $(VENV) with $(PYTHON)'
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.serve: requirements/locked/serve.txt requirements/torch.txt pyproject.toml | $(VENV)/bin/python
	@echo 'installing what serving needs: PyTorch and transformers are large, the first time takes minutes'
	@$(PIP) $(LOCKED)/serve.txt
	@$(PIP) --requirement requirements/torch.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.client: requirements/locked/client.txt client/pyproject.toml $(VENV)/.serve
	@echo 'installing the client'
	@$(PIP) $(LOCKED)/client.txt
	@$(PIP) --no-deps --no-build-isolation --editable client
	@touch $@

$(VENV)/.front: requirements/locked/front.txt $(VENV)/.client
	@echo 'installing what API and page import'
	@$(PIP) $(LOCKED)/front.txt
	@touch $@

$(VENV)/.test: requirements/locked/test.txt $(VENV)/.front
	@echo 'installing what tests need'
	@$(PIP) $(LOCKED)/test.txt
	@touch $@

$(VENV)/.speech: requirements/locked/speech.txt $(VENV)/.serve
	@echo 'installing what makes lines of speech'
	@$(PIP) $(LOCKED)/speech.txt
	@touch $@

# Environments of their own: for the readers that stage 1 is compared with, and for tools for packages.
.cache/peers/.installed .cache/lock/.installed .cache/audit/.installed: .cache/%/.installed: \
		requirements/locked/%.txt requirements/torch.txt | $(VENV)/bin/python
	@echo 'making $(@D)'
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) $(LOCKED)/$*.txt
	@$(if $(filter peers,$*),$(@D)/bin/python $(PIP_INSTALL) --requirement requirements/torch.txt)
	@touch $@
