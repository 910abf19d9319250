# make demo    sets everything up and does the main job in the local lab: three machines, one healthy etcd cluster, and
#              requests through HAProxy and nginx
# make test    every check and every test, the lab end to end included
# make check   ruff, mypy, import-linter, yamllint, ansible-lint, shellcheck
# make bench   benchmarks, as ratios
# make registrator  the load-balancer registrator for machines without Python, into dist/
# make fuzz    24,000 new documents against the cloud-config engine: some ten minutes
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

# What the lab needs on a bare Debian or Ubuntu machine, and what the tests need on top.
LAB_PACKAGES := python3-venv git openssh-client iproute2 systemd-container mmdebstrap squashfs-tools debian-archive-keyring binutils
TEST_PACKAGES := shellcheck vagrant vagrant-libvirt libfaketime haproxy nginx libnginx-mod-stream etcd-server etcd-client \
	iputils-ping iptables
VAGRANT_PACKAGES := libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system libvirt-clients qemu-system-x86 \
	qemu-utils dnsmasq-base iptables

.PHONY: demo test check bench fuzz registrator test-vagrant schema golden clean

demo: $(VENV)/lab.installed
	@mkdir -p $(DEMO)
	cd $(DEMO) && ../$(BIN)/cluster init --lab
	cd $(DEMO) && ../$(BIN)/cluster lab exec node-1 -- sh -lc 'etcdctl endpoint health --cluster'
	cd $(DEMO) && ../$(BIN)/cluster status
	$(BIN)/python -m tests.demo $(DEMO)
	@echo "look around: cd $(DEMO) && ../$(BIN)/cluster lab ssh node-1; when you are done: ../$(BIN)/cluster lab down --forget"

# Side by side: what boots machines waits most of its time, and a module has labs of its own.
test: check
	$(BIN)/python -m pytest --numprocesses 3 tests/unit tests/golden tests/contract
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile tests/e2e

check: $(VENV)/dev.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	ANSIBLE_ACTION_PLUGINS=$(CURDIR)/playbooks/action_plugins $(BIN)/ansible-lint --offline --profile production playbooks roles
	shellcheck --shell=sh cloud-config/scripts/* playbooks/*/*.sh roles/*/files/*.sh cli/coupler/*/scripts/*.sh cli/coupler/lab/root/usr/bin/* tests/*.sh

bench: $(VENV)/bench.installed
	$(BIN)/python -m tests.bench

# As many documents for each of the six properties; `make fuzz FUZZ_EXAMPLES=20000` takes a long lunch.
FUZZ_EXAMPLES ?= 4000
fuzz: $(VENV)/dev.installed
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest --timeout=0 -W ignore tests/unit/cloudinit/test_properties.py

# A real `vagrant up` of three machines under software emulation: some ten minutes.
test-vagrant: $(VENV)/dev.installed
	@tests/packages.sh $(TEST_PACKAGES) $(VAGRANT_PACKAGES)
	$(BIN)/python tests/e2e/vagrant/up.py 3

# Linked to this machine's C library: it runs where that is as new, as on Flatcar.
registrator: $(VENV)/lab.installed
	$(BIN)/python -m coupler.lab.registrator dist
	sha256sum dist/registrator.tar.gz

# What is checked in and made from the code: the JSON Schema, and the golden documents (read the diff).
schema: $(VENV)/dev.installed
	$(BIN)/python -m coupler.model.schema

golden: $(VENV)/dev.installed
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest --quiet tests/golden

$(VENV)/lab.installed: pyproject.toml | system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[lab]'
	@touch $@

$(VENV)/dev.installed: pyproject.toml $(VENV)/lab.installed | test-packages
	$(BIN)/pip install --quiet 'pip>=25.1'
	$(BIN)/pip install --quiet --group dev
	@touch $@

$(VENV)/bench.installed: $(VENV)/dev.installed
	$(BIN)/pip install --quiet --group bench
	@touch $@

.PHONY: system-packages test-packages
system-packages:
	@tests/packages.sh $(LAB_PACKAGES)
test-packages:
	@tests/packages.sh --no-services $(TEST_PACKAGES)

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
