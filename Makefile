# Each target sets up .venv by itself; the second time that costs nothing.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
LOCK := .ci/requirements.lock
READY := $(VENV)/.ready$(if $(LOCKED),-locked)

.PHONY: distill test coverage types fuzz report gate setup lock licences audit chip-tools clean

distill: setup
	$(RUN) -m compress.distill --student dsc500
	$(RUN) -m compress.report

test: setup
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --dist loadfile

types: setup
	$(RUN) -m mypy

# The ordinary tests, and which lines of the packages they run.
coverage: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --dist loadfile \
		$(foreach package,compress students teachers reports,--cov=$(package)) \
		--cov-report=term:skip-covered

# Damaged files for every reader, some minutes.
fuzz: setup
	$(RUN) -m tests.fuzz --inputs 4000

report: setup
	$(RUN) -m compress.report

gate: setup
	$(RUN) -m compress.gate

# The versions and hashes of today, for continuous integration.
lock: setup
	$(RUN) .ci/lock.py

# docs/licences.md describes the locked versions: make licences LOCKED=1 on a fresh machine.
licences: setup
	$(RUN) .ci/licences.py

# Known holes in the locked versions; ADVISORIES=FILE takes a file of OSV records, without a network.
# make calls it "Error 1" where something is known, "Error 3" where nothing was checked.
audit: setup
	@$(if $(ADVISORIES),,$(RUN) -m pip install --quiet --quiet --editable '.[audit]' || true)
	$(RUN) .ci/audit.py $(if $(ADVISORIES),--advisories $(ADVISORIES))

setup: $(READY)

# LOCKED=1 installs the versions and hashes of .ci/requirements.lock, as continuous integration does;
# what is left to pip's own choice after that is the CUDA libraries of an ordinary build of torch.
$(READY): pyproject.toml $(if $(LOCKED),$(LOCK))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; give another: make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once, some minutes)"
	@$(if $(LOCKED),.ci/install_locked $(RUN) $(LOCK))
	@$(RUN) -m pip install --quiet --quiet --disable-pip-version-check --editable '.[test]'
	@touch $(VENV)/.ready $(READY)

# Cross-compiler and emulator for python -m compress.export --target, on Debian and Ubuntu.
CHIP_PACKAGES := gcc libc6-dev gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
APT := $(if $(filter 0,$(shell id -u)),,sudo )apt-get

chip-tools:
	@command -v apt-get >/dev/null || \
		{ echo "error: no apt-get here; install yourself: $(CHIP_PACKAGES)" >&2; exit 2; }
	@dpkg -s $(CHIP_PACKAGES) >/dev/null 2>&1 || \
		{ $(APT) update -qq && $(APT) install -y -qq --no-install-recommends $(CHIP_PACKAGES); }

clean:
	rm -rf $(VENV) runs
