# `make` alone lists the targets.

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
SIGNED = 120
SUITE = sid

.PHONY: help setup check lint test pythons engines matrix parity boot store obs demo pictures bench bench-boot bench-update faults \
	crash large fuzz redteam signatures scale soak install uninstall clean

help:
	@echo "make demo       try it: both services on a copy of example/, and a boot of what they make"
	@echo "make test       linters, types and all tests; run it as root"
	@echo "make check      linters, types and the fast tests, in under a minute"
	@echo "make pythons    the fast tests under the Pythons of Debian 12, 13 and sid; run it as root"
	@echo "make lint       linters and types only"
	@echo "make setup      install missing programs and create .venv; the targets that need them do this, too"
	@echo "make pictures   redraw the terminal pictures in docs/ from a real run; run it as root"
	@echo "make parity     compare with kiwi 10.3 and 11 on $(EXAMPLES) generated descriptions each, 20 minutes"
	@echo "make engines    try what the engines of three Debian releases load, as root, 15 minutes"
	@echo "make matrix     boot with every version of podman, and make engines, as root, 30 minutes"
	@echo "make boot       build whole images offline with obs-build and boot them, 5 minutes"
	@echo "make store      compare the read-only store with what podman of SUITE=$(SUITE) writes, and boot with it, 2 minutes"
	@echo "make obs        run packages through a complete OBS back end on this machine, 7 minutes"
	@echo "make bench      compare speed and memory with skopeo, 15 minutes: PAIRS=$(PAIRS) CASES='suite single'"
	@echo "make bench-boot compare the first boot with that of plain kiwi, as root, 5 minutes"
	@echo "make bench-update  both, and renew plot and tables of bench/README.md, as root, 25 minutes"
	@echo "make faults     inject every fault into every request of a prefetch: RUNS=$(RUNS)"
	@echo "make crash      kill a prefetch at every step and at random moments: POINTS=$(POINTS)"
	@echo "make large      fetch a layer of 6 GiB and measure time and memory; needs 7 GB in /var/tmp"
	@echo "make fuzz       fuzz every parser, SECONDS=$(SECONDS) each"
	@echo "make redteam    attack packages, registries, images and trees, and print which attacks succeed, 2 minutes"
	@echo "make signatures compare judgements of signatures with skopeo and podman of Debian 13, $(SIGNED) random ones; as root"
	@echo "make scale      measure how each command grows from 1 to 4,000 containers, 10 minutes"
	@echo "make soak       run and kill prefetches in parallel while tags move, 15 minutes; SECONDS=900"
	@echo "make install    DESTDIR= PREFIX=$(PREFIX) PYTHON=$(PYTHON)"
	@echo "make uninstall  remove what make install installed; use the same DESTDIR and PREFIX"
	@echo "make clean      remove .venv, caches and build results"

setup:
	@PYTHON="$(PYTHON)" scripts/setup

# One process more than there are cores, because many tests spend their time waiting for a silent server. The audit
# runs at the same time, because it waits for the internet.
# Many tests start programs: their modules are compiled once, also where Python is told not to keep that.
check:
	@PYTHON="$(PYTHON)" scripts/setup check
	@mkdir -p build
	@$(VENV) scripts/audit >build/audit & \
		PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/build/pycache \
		$(VENV) -m pytest --quiet --numprocesses $$(( $$(nproc) + 1 )) -m "not integration"; \
		tested=$$?; wait $$!; audited=$$?; cat build/audit; exit $$(( tested + audited ))

lint:
	@PYTHON="$(PYTHON)" scripts/setup check
	$(VENV) -m pytest --quiet tests/test_linters.py

# Two more than cores: systems that boot and packages that are built spend much of their time waiting.
test:
	@PYTHON="$(PYTHON)" scripts/setup test
	@$(VENV) scripts/audit
	scripts/own-mounts $(VENV) -m pytest --numprocesses $$(( $$(nproc) + 2 )) --dist worksteal

pythons:
	@scripts/pythons

engines:
	@PYTHON="$(PYTHON)" scripts/setup test
	@$(VENV) scripts/engines

# Quadlets and stores are tried with both versions of podman in make test, too.
matrix: engines
	for suite in bookworm trixie; do \
		E2E_SUITE=$$suite scripts/own-mounts $(VENV) -m pytest --numprocesses $$(nproc) -m integration \
			tests/e2e/test_boot.py tests/e2e/test_store_boot.py || exit; \
	done

parity:
	@PYTHON="$(PYTHON)" scripts/setup check
	PARITY_EXAMPLES=$(EXAMPLES) $(VENV) -m pytest --numprocesses 2 -rP tests/kiwi/test_parity.py

boot:
	@PYTHON="$(PYTHON)" scripts/setup test
	scripts/own-mounts $(VENV) -m pytest -m integration tests/e2e/test_obs_build.py

# systemd of sid does not boot with cgroup v1, which systemd-nspawn of Debian 12 would give it on some machines.
store:
	@PYTHON="$(PYTHON)" scripts/setup test
	SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 E2E_SUITE=$(SUITE) scripts/own-mounts $(VENV) -m pytest \
		tests/inject/store/test_podman.py tests/e2e/test_store_boot.py

obs:
	@PYTHON="$(PYTHON)" scripts/setup test
	scripts/own-mounts $(VENV) -m pytest tests/e2e/obs

demo:
	@PYTHON="$(PYTHON)" scripts/setup demo
	@scripts/own-mounts $(VENV) scripts/demo

pictures:
	@PYTHON="$(PYTHON)" scripts/setup demo
	@$(VENV) scripts/pictures

bench:
	@PYTHON="$(PYTHON)" scripts/setup test
	@$(VENV) -m bench.run --pairs $(PAIRS) $(CASES)

bench-boot:
	@PYTHON="$(PYTHON)" scripts/setup test
	@$(VENV) -m bench.boot

bench-update:
	@PYTHON="$(PYTHON)" scripts/setup test
	@status=0; for part in run boot; do $(VENV) -m bench.$$part --update || status=1; done; exit $$status

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

redteam:
	@PYTHON="$(PYTHON)" scripts/setup test
	@scripts/own-mounts $(VENV) -m tests.redteam.test_attacks --numprocesses auto

signatures:
	@PYTHON="$(PYTHON)" scripts/setup test
	RUNS=$(SIGNED) SEED="$(SEED)" scripts/own-mounts $(VENV) -m pytest -q tests/evidence/test_oracle.py

scale:
	@PYTHON="$(PYTHON)" scripts/setup check
	@$(VENV) -m tests.support.scale

soak: SECONDS = 900
soak:
	@PYTHON="$(PYTHON)" scripts/setup check
	@scripts/own-mounts $(VENV) -m tests.support.soak --seed "$(SEED)" $(SECONDS)

# The library gets a directory of its own instead of one Python version's site-packages. The scripts find it relative to
# their own location, also in DESTDIR and with any Python, and nothing else gets onto their import path.
LIB = $(DESTDIR)$(PREFIX)/lib
HOME_OF_LIBRARY = $(LIB)/osc-containers
MANUAL = $(DESTDIR)$(PREFIX)/share/man/man1
COMPLETION = $(DESTDIR)$(SYSCONFDIR)/bash_completion.d
ZSH = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISH = $(DESTDIR)$(PREFIX)/share/fish/vendor_conf.d
# SIGINT waits until the scripts can handle it: Python prints a traceback if it arrives while Python itself starts. Only
# GNU's env can block it.
BLOCKING = $$(env --block-signal=INT printf '/usr/bin/env -S --block-signal=INT ' 2>/dev/null)
INSTALL_DIRECTORIES = "$(DESTDIR)$(PREFIX)/bin" "$(LIB)/obs/service" "$(LIB)/osc-plugins" "$(MANUAL)" "$(COMPLETION)" \
	"$(ZSH)" "$(FISH)"
INSTALLED_SCRIPTS = "$(DESTDIR)$(PREFIX)/bin/osc-containers" \
	"$(LIB)/obs/service/kiwi_containers" "$(LIB)/obs/service/kiwi_containers_inject"

install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "osc-containers needs Python 3.11 or newer; use PYTHON=/path/to/python3.11")'
	@for directory in $(INSTALL_DIRECTORIES); do \
		{ [ -d "$$directory" ] || install -d "$$directory" 2>/dev/null; } && [ -w "$$directory" ] || { \
		echo "make install: cannot write to $$directory: run 'sudo make install', or install for yourself:" \
			"make install PREFIX=$$HOME/.local" >&2; exit 1; }; done
	rm -rf "$(HOME_OF_LIBRARY)"
	find osc_containers -type f -not -name '*.pyc' -exec install -D -m 644 '{}' "$(HOME_OF_LIBRARY)/{}" ';'
	find "$(HOME_OF_LIBRARY)" -name '*.sh' -exec chmod 755 '{}' +
	umask 022 && $(PYTHON) -I -m compileall -q --invalidation-mode checked-hash -s "$(DESTDIR)" -p / "$(HOME_OF_LIBRARY)"
	install -m 755 scripts/osc-containers "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 service/kiwi_containers service/kiwi_containers_inject "$(LIB)/obs/service"
	install -m 644 service/*.service "$(LIB)/obs/service"
	install -m 644 plugin/containers.py "$(LIB)/osc-plugins"
	$(PYTHON) -IB scripts/manpage >"$(MANUAL)/osc-containers.1"
	chmod 644 "$(MANUAL)/osc-containers.1"
	install -m 644 plugin/osc-containers.bash "$(COMPLETION)/osc-containers"
	install -m 644 plugin/_osc-containers "$(ZSH)"
	install -m 644 plugin/osc-containers.fish "$(FISH)"
	sed -i "1s|^#!.*|#!$(BLOCKING)$$($(PYTHON) -c 'import sys; print(sys.executable)') -I|" $(INSTALLED_SCRIPTS)
	@[ -n "$(DESTDIR)" ] || $(PYTHON) -I scripts/say-missing lxml requests urllib3 platformdirs rich
	@[ "$(PREFIX)" = /usr ] || echo "note: osc looks for services in /usr/lib/obs/service only, so" \
		"'osc service manualrun' does not find those in $(PREFIX): use 'osc-containers prefetch', see docs/install.md"

uninstall:
	rm -rf "$(HOME_OF_LIBRARY)"
	rm -f $(INSTALLED_SCRIPTS) "$(LIB)/obs/service/kiwi_containers.service" \
		"$(LIB)/obs/service/kiwi_containers_inject.service" "$(LIB)/osc-plugins/containers.py" \
		"$(LIB)"/osc-plugins/__pycache__/containers.*.pyc "$(MANUAL)/osc-containers.1" \
		"$(COMPLETION)/osc-containers" "$(ZSH)/_osc-containers" "$(FISH)/osc-containers.fish"
	@for directory in osc-plugins/__pycache__ osc-plugins obs/service obs; do \
		rmdir "$(LIB)/$$directory" 2>/dev/null || true; done

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf '{}' +
