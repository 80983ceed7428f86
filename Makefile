# `make` lists what there is.

PYTHON = python3
PREFIX = /usr
SYSCONFDIR = $(if $(filter /usr,$(PREFIX)),,$(PREFIX))/etc
DESTDIR =

VENV = .venv/bin/python
PAIRS = 5
CASES =
RUNS = 3000
POINTS = 1500
SECONDS = 60
SEED = 1
EXAMPLES = 2000

.PHONY: help setup check lint test parity boot demo bench faults crash large fuzz install clean

help:
	@echo "make setup    install what is missing, make .venv"
	@echo "make lint     linters and types"
	@echo "make check    the same and the fast tests"
	@echo "make test     the same and all tests; as root"
	@echo "make demo     both services on a copy of example/, with a registry on this machine"
	@echo "make parity   $(EXAMPLES) generated descriptions against each of kiwi 10.3 and 11, twenty minutes"
	@echo "make boot     whole images by obs-build, offline, until qemu has booted one; five minutes"
	@echo "make bench    us and skopeo side by side, ten minutes: PAIRS=$(PAIRS) CASES='suite single …'"
	@echo "make faults   every fault at every request of a prefetch: RUNS=$(RUNS)"
	@echo "make crash    kill -9 at every step of a prefetch and at random moments: POINTS=$(POINTS)"
	@echo "make large    a layer of 6 GiB: time and memory; 7 GB in /var/tmp"
	@echo "make fuzz     every parser against a fuzzer, for SECONDS=$(SECONDS) each"
	@echo "make install  DESTDIR= PREFIX=$(PREFIX) PYTHON=$(PYTHON)"
	@echo "make clean    remove what these have made"

setup:
	@PYTHON="$(PYTHON)" scripts/setup

# One process more than there are cores: many of the tests wait for a server that is silent.
check:
	@PYTHON="$(PYTHON)" scripts/setup check
	@$(VENV) scripts/audit
	$(VENV) -m pytest --quiet --numprocesses $$(( $$(nproc) + 1 )) -m "not integration"

lint:
	@PYTHON="$(PYTHON)" scripts/setup check
	$(VENV) -m pytest --quiet tests/test_linters.py

test:
	@PYTHON="$(PYTHON)" scripts/setup test
	@$(VENV) scripts/audit
	scripts/own-mounts $(VENV) -m pytest --numprocesses auto --dist worksteal

parity:
	@PYTHON="$(PYTHON)" scripts/setup check
	PARITY_EXAMPLES=$(EXAMPLES) $(VENV) -m pytest --numprocesses 2 -rP tests/kiwi/test_parity.py

boot:
	@PYTHON="$(PYTHON)" scripts/setup test
	scripts/own-mounts $(VENV) -m pytest tests/e2e/test_obs_build.py

demo:
	@PYTHON="$(PYTHON)" scripts/setup demo
	@$(VENV) scripts/demo

bench:
	@PYTHON="$(PYTHON)" scripts/setup test
	@$(VENV) -m bench.run --pairs $(PAIRS) $(CASES)

faults:
	@PYTHON="$(PYTHON)" scripts/setup check
	@$(VENV) -m tests.support.sweep --seed "$(SEED)" $(RUNS)

crash:
	@PYTHON="$(PYTHON)" scripts/setup check
	@$(VENV) -m tests.support.crash --seed "$(SEED)" $(POINTS)

large:
	@PYTHON="$(PYTHON)" scripts/setup test
	@$(VENV) -m tests.support.large

fuzz:
	@PYTHON="$(PYTHON)" scripts/setup check
	@$(VENV) -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@$(VENV) -m tests.fuzz.campaign $(SECONDS)

# The library goes into a directory of its own, not among the packages of one Python version: the scripts find it from
# where they are, in DESTDIR too, whatever Python runs them, and nothing else is put on their path.
LIB = $(DESTDIR)$(PREFIX)/lib
HOME_OF_LIBRARY = $(LIB)/osc-containers
MANUAL = $(DESTDIR)$(PREFIX)/share/man/man1
INSTALLED_SCRIPTS = "$(DESTDIR)$(PREFIX)/bin/osc-containers" \
	"$(LIB)/obs/service/kiwi_containers" "$(LIB)/obs/service/kiwi_containers_inject"

install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "osc-containers needs Python 3.11; say PYTHON=…")'
	rm -rf "$(HOME_OF_LIBRARY)"
	find osc_containers -type f -not -name '*.pyc' -exec install -D -m 644 '{}' "$(HOME_OF_LIBRARY)/{}" ';'
	umask 022 && $(PYTHON) -I -m compileall -q --invalidation-mode checked-hash -s "$(DESTDIR)" -p / "$(HOME_OF_LIBRARY)"
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(LIB)/obs/service" "$(LIB)/osc-plugins"
	install -m 755 scripts/osc-containers "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 service/kiwi_containers service/kiwi_containers_inject "$(LIB)/obs/service"
	install -m 644 service/*.service "$(LIB)/obs/service"
	install -m 644 plugin/containers.py "$(LIB)/osc-plugins"
	install -d "$(MANUAL)"
	$(PYTHON) -IB scripts/manpage >"$(MANUAL)/osc-containers.1"
	chmod 644 "$(MANUAL)/osc-containers.1"
	install -D -m 644 plugin/osc-containers.bash "$(DESTDIR)$(SYSCONFDIR)/bash_completion.d/osc-containers"
	sed -i "1s|^#!.*|#!$$($(PYTHON) -c 'import sys; print(sys.executable)') -I|" $(INSTALLED_SCRIPTS)
	@[ -n "$(DESTDIR)" ] || $(PYTHON) -I scripts/say-missing urllib3 platformdirs rich

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf '{}' +
