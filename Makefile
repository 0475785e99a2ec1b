# Each target sets up .venv by itself; the second time that costs nothing.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: distill test report gate setup clean

distill: setup
	$(RUN) -m compress.distill --student dsc500
	$(RUN) -m compress.report

test: setup
	$(RUN) -m ruff check .
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --dist loadfile

report: setup
	$(RUN) -m compress.report

gate: setup
	$(RUN) -m compress.gate

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; give another: make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once, some minutes)"
	@$(RUN) -m pip install --quiet --quiet --disable-pip-version-check --editable '.[test]'
	@touch $(READY)

clean:
	rm -rf $(VENV) runs
