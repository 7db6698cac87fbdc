# Everything is set up in .venv and .cache by the target that needs it; a second run starts in seconds.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
# The first that is supported; looked for only when .venv is made.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PEERS := .cache/peers

HOST ?= 127.0.0.1
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
HEALTH_PORT ?= 8003
MODEL ?=
REPOSITORY ?= .cache/repository
API_PORT ?= 8080
WEBUI_PORT ?= 7860
API ?=
MEDIA_ROOT ?=
SET ?=
CASES ?= 200
SEED ?= 0
VIDEOS ?= 300
TESTS ?=
GPU ?=
CONTEXT ?=
CONCURRENCY ?=
WEIGHTS ?=
ENGINE ?=
KV_CACHE ?=
QUANTISED ?=
ENGINES ?= .cache/engines/$(GPU)
DRY_RUN ?=
LOAD ?=
ATTACK ?=
RESULTS ?= perf/results
BASELINE ?=

LOCK := .cache/lock
AUDIT := .cache/audit
UPGRADE ?=

PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/python $(PIP_INSTALL)
# No file is installed whose hash is not in the lock, and no package runs code of its own to be installed.
LOCKED := --require-hashes --no-deps --only-binary :all: --requirement requirements/locked
TYPED := build qwen3_vl_client preprocess encoder sessions engines
# Each stage has one of this name.
ADAPTERS := $(wildcard model_repository/*/1/model.py)
MYPY := $(BIN)/mypy --no-error-summary --cache-dir .cache/mypy

SERVE := $(BIN)/python -m build.serve --model '$(MODEL)' --repository '$(REPOSITORY)' \
	--http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --metrics-port $(METRICS_PORT) --health-port $(HEALTH_PORT)

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help env demo serve api webui engines test lint parity accuracy fuzz-engine fuzz-media fuzz-api \
	bench-batching bench-engine bench-followup bench-memory bench-sampling bench-answers bench-ingest \
	bench-summaries bench-context bench-overlap bench-quantisation bench-gpu bench-gpu-vision load load-sweep \
	load-users load-web load-batching load-report load-sizing soak overload chaos attack fuzz-tensors lock audit clean

help: ## Show this help
	@echo 'make TARGET [VARIABLE=value ...]'
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 20
	@echo
	@echo '  PYTHON=python3            the Python, 3.11 or 3.12, that .venv is made with'
	@echo '  MODEL=                    serve, demo: a checkpoint, folder or hub name; empty: the demo checkpoint'
	@echo '  HOST=127.0.0.1            serve, api, webui: the address to listen on; the ports behind API and page stay local'
	@echo '  HTTP_PORT=8000 GRPC_PORT=8001 METRICS_PORT=8002 HEALTH_PORT=8003'
	@echo '  API_PORT=8080 API="--allowed-host example.com ..."  api: where it listens; options of qwen3-vl-api'
	@echo '  WEBUI_PORT=7860           webui: where the page listens'
	@echo '  MEDIA_ROOT=               serve, api, webui: the folder that video_uri is looked up in; api, webui: .cache/media'
	@echo '  REPOSITORY=.cache/repository   serve: where the model repository is assembled'
	@echo '  SET="decoder.max_batch=8 ..."  serve: further settings, see model_repository/*/config.pbtxt'
	@echo '  GPU=rtx4090d              engines: the profile; with CONTEXT, CONCURRENCY, WEIGHTS, KV_CACHE, QUANTISED as wanted'
	@echo '  ENGINE=                   engines: pytorch instead of tensorrt_llm in stage 3'
	@echo '  ENGINES=.cache/engines/GPU  engines: where the repository is built; DRY_RUN=1 says what would be done'
	@echo '  CASES=200 SEED=0          parity, fuzz-engine, fuzz-media, fuzz-tensors (10000), fuzz-api: how many random requests, and which'
	@echo '  LOAD="--requests 500"     load-*, soak, overload, chaos: options of the run (LOAD=--help)'
	@echo '  ATTACK="--only REGEX"     attack: options of the run, those of a stack that runs too (ATTACK=--help)'
	@echo '  RESULTS=perf/results BASELINE=  load-report: folders of results'
	@echo '  TESTS=tests/server        test: only these'

env: $(VENV)/.serve ## Make .venv with what serving needs

demo: $(VENV)/.client ## Ask a question about a sample video: server, answer with its timings, nothing left running
	@$(BIN)/python -m build.serve.demo --model '$(MODEL)'

serve: $(VENV)/.client ## Serve MODEL in the foreground until Ctrl-C
	@$(SERVE) --host '$(HOST)' --media-root '$(MEDIA_ROOT)' --set $(SET)

api webui: MEDIA_ROOT := $(or $(MEDIA_ROOT),.cache/media)
api: $(VENV)/.api ## Serve MODEL and the OpenAI-compatible API in the foreground until Ctrl-C
	@mkdir -p -m 700 '$(MEDIA_ROOT)'
	@$(SERVE) --media-root '$(MEDIA_ROOT)' --set $(SET) --front $(BIN)/qwen3-vl-api --media-root '$(MEDIA_ROOT)' \
		--host '$(HOST)' --port $(API_PORT) --model '$(notdir $(or $(MODEL),qwen3-vl-demo))' $(API)

webui: $(VENV)/.web ## Serve MODEL and the web page in the foreground until Ctrl-C
	@mkdir -p -m 700 '$(MEDIA_ROOT)'
	@$(SERVE) --media-root '$(MEDIA_ROOT)' --set $(SET) --front $(BIN)/qwen3-vl-web --media-root '$(MEDIA_ROOT)' \
		--host '$(HOST)' --port $(WEBUI_PORT)

engines: $(VENV)/.serve ## Build the repository that serves MODEL on GPU (build/GPU.md)
	@$(BIN)/python -m build.gpu --gpu '$(GPU)' --model '$(MODEL)' --output '$(ENGINES)' \
		$(if $(CONTEXT),--context '$(CONTEXT)') $(if $(CONCURRENCY),--concurrency '$(CONCURRENCY)') \
		$(if $(WEIGHTS),--weights '$(WEIGHTS)') $(if $(KV_CACHE),--kv-cache '$(KV_CACHE)') \
		$(if $(QUANTISED),--quantised '$(QUANTISED)') $(if $(ENGINE),--engine '$(ENGINE)') $(if $(DRY_RUN),--dry-run)

test: lint ## Lint, check types, run every test
	@echo 'tests'
	@$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/.test ## Check style and types
	@echo 'ruff'
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo 'mypy'
	@$(MYPY) $(TYPED:%=--package %)
	@for adapter in $(ADAPTERS); do $(MYPY) $$adapter || exit 1; done

parity: $(VENV)/.test ## Compare CASES random requests, served, with transformers
	@$(BIN)/python -m perf.checks.parity --cases $(CASES) --seed $(SEED)

fuzz-engine: CASES = 10000
fuzz-engine: $(VENV)/.test ## Run CASES random schedules through the decoder's engine
	@TRITON_INTERPRET=1 $(BIN)/python -m perf.checks.fuzz_engine --cases $(CASES) --seed $(SEED)

fuzz-media: CASES = 10000
fuzz-media: $(VENV)/.test ## Send CASES damaged files through stage 1
	@$(BIN)/python -m perf.checks.fuzz_media --cases $(CASES) --seed $(SEED)

fuzz-api: $(VENV)/.test ## Hold the API against its own OpenAPI description, CASES requests per operation
	@$(BIN)/python -m perf.checks.fuzz_api --cases $(CASES) --seed $(SEED)

accuracy: $(VENV)/.test ## Ask the served demo checkpoint about VIDEOS fresh videos, against its bars
	@$(BIN)/python -m perf.checks.accuracy --seed $(SEED) --videos $(VIDEOS)

bench-batching: $(VENV)/.test ## Time eight requests at once, and transformers one after the other
	@$(BIN)/python -m perf.bench_batching

bench-engine: $(VENV)/.test ## Time the decoder's engine on prompts and answers of mixed lengths, and transformers
	@$(BIN)/python -m perf.bench_engine

bench-followup: $(VENV)/.test ## Time a second question about a ten-minute video
	@$(BIN)/python -m perf.bench_followup

bench-memory: $(VENV)/.test ## Watch the server's memory over a thousand requests
	@$(BIN)/python -m perf.bench_memory

bench-sampling: $(VENV)/.test $(PEERS)/.installed ## Count the known events that samplers see
	@$(BIN)/python -m perf.bench_sampling

bench-answers: $(VENV)/.test ## Count right answers with the adaptive sampler at half the frames, and uniform sampling
	@$(BIN)/python -m perf.bench_answers

bench-ingest: $(VENV)/.test $(PEERS)/.installed ## Time stage 1 on two hours of video, and other readers
	@$(BIN)/python -m perf.bench_ingest

bench-summaries: $(VENV)/.test ## Summarise a video eight times longer than the context, parts together and one by one
	@$(BIN)/python -m perf.bench_summaries

load: $(VENV)/.test ## Put load on the server in every way, for some minutes; leaves .cache/load/results/report.html
	@$(BIN)/python -m perf.load $(if $(MODEL),--model '$(MODEL)') $(LOAD)

load-sweep load-users load-batching soak overload chaos: $(VENV)/.test
	@$(BIN)/python -m perf.load.$(@:load-%=%) $(if $(MODEL),--model '$(MODEL)') $(LOAD)

load-sweep: ## perf_analyzer: concurrency, Poisson arrivals, each stage alone
load-users: ## locust: users who behave like users
load-batching: ## Long answers, one at a time and more at once
soak: ## Thousands of requests; memory, handles and KV blocks must stay flat
overload: ## Offer twenty times what the server can do
chaos: ## Kill stages under load, again and again

attack: $(VENV)/.test ## Attack the whole stack in every known way, with honest clients beside it
	@$(BIN)/python -m perf.attack $(if $(MODEL),--model '$(MODEL)') $(ATTACK)

fuzz-tensors: CASES = 10000
fuzz-tensors: $(VENV)/.test ## Send CASES wrong requests to every tensor of every model
	@$(BIN)/python -m perf.attack.fuzz_tensors --cases $(CASES) --seed $(SEED) $(if $(MODEL),--model '$(MODEL)')

load-sizing: $(VENV)/.test ## How many GPUs a load needs, by the sweep in RESULTS and the planner
	@$(BIN)/python -m perf.load.sizing --results '$(RESULTS)' $(LOAD)

load-web: $(VENV)/.test ## locust's page, for the server of `make serve`: set up load there, watch it
	@QWEN3_VL_URL=$(HOST):$(GRPC_PORT) $(BIN)/python -m locust --locustfile perf/load/locustfile.py \
		--host http://$(HOST):$(HTTP_PORT) --web-host 127.0.0.1 $(LOAD)

load-report: $(VENV)/.test ## One page of the RESULTS, beside those in BASELINE if given: .cache/load/report.html
	@$(BIN)/python -m perf.load.page --results '$(RESULTS)' $(if $(BASELINE),--baseline '$(BASELINE)') --output .cache/load/report.html

bench-context: $(VENV)/.test ## Ask one request of 262,144 tokens; plot the decoder's memory
	@$(BIN)/python -m perf.bench_context

bench-overlap: $(VENV)/.test ## Time the first token of the stages together, paced like a device
	@$(BIN)/python -m perf.bench_overlap

bench-quantisation: $(VENV)/.test ## Ask what weights and a KV cache of fewer bits cost in right answers
	@$(BIN)/python -m perf.bench_quantisation

bench-gpu: $(VENV)/.test ## Time the engine on a GPU at the published shapes, against the card's own limits
	@$(BIN)/python -m perf.gpu_engine

bench-gpu-vision: $(VENV)/.test ## Time the vision tower on a GPU in PyTorch, compiled and in ONNX Runtime
	@$(BIN)/python -m perf.gpu_vision

lock: $(LOCK)/bin/uv ## Write requirements/locked again: every package with the hashes of its files; UPGRADE=--upgrade for newer ones
	@UV=$(CURDIR)/$(LOCK)/bin/uv UPGRADE=$(UPGRADE) requirements/lock.sh

audit: $(AUDIT)/bin/pip-audit ## Ask databases for the known holes of what is locked; exit status 3: they could not be asked
	@$(AUDIT)/bin/python requirements/audit.py --pip-audit $(AUDIT)/bin/pip-audit

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

$(VENV)/.api: requirements/locked/api.txt $(VENV)/.client
	@echo 'installing what the API imports'
	@$(PIP) $(LOCKED)/api.txt
	@touch $@

$(VENV)/.web: requirements/locked/web.txt $(VENV)/.client
	@echo 'installing what the page imports'
	@$(PIP) $(LOCKED)/web.txt
	@touch $@

$(VENV)/.test: requirements/locked/test.txt $(VENV)/.api $(VENV)/.web
	@echo 'installing what tests need'
	@$(PIP) $(LOCKED)/test.txt
	@touch $@

$(PEERS)/.installed: requirements/locked/peers.txt requirements/torch.txt | $(VENV)/bin/python
	@echo 'installing the readers that stage 1 is compared with'
	@$(BIN)/python -m venv $(PEERS)
	@$(PEERS)/bin/python $(PIP_INSTALL) $(LOCKED)/peers.txt
	@$(PEERS)/bin/python $(PIP_INSTALL) --requirement requirements/torch.txt
	@touch $@

$(LOCK)/bin/uv: requirements/locked/lock.txt | $(VENV)/bin/python
	@$(BIN)/python -m venv $(LOCK)
	@$(LOCK)/bin/python $(PIP_INSTALL) $(LOCKED)/lock.txt
	@touch $@

$(AUDIT)/bin/pip-audit: requirements/locked/audit.txt | $(VENV)/bin/python
	@echo 'installing pip-audit'
	@$(BIN)/python -m venv $(AUDIT)
	@$(AUDIT)/bin/python $(PIP_INSTALL) $(LOCKED)/audit.txt
	@touch $@
