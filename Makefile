# Everything a developer types. Results go to target/ and nowhere else.

MINICLOUD := tests/minicloud/minicloud
PYTHON_TOOLS := target/python-tools/bin
CHECKS := PYTHONPATH=tests python3 -m minicloud.checks
FAILOVER := PYTHONPATH=tests python3 -m failover
RELEASE := cargo build --release --quiet -p tandem-ha -p tandem
export CARGO_TERM_PROGRESS_WHEN ?= never

.DEFAULT_GOAL := help
.PHONY: help demo drills sim sim-volume model fuzz test check cloud-test torture-volume guests conformance-iscsi bench-failover bench-client bench-iscsi bench-volume recordings tools fmt

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## a host dies and its instances come back; FAULT=off|hang|crash|cut|reboot|bmc-lies|two-hosts, KEEP=1
	$(RELEASE)
	@$(FAILOVER) demo

sim: ## simulated clouds on bad days, judged; SEEDS=1000 of them, or the story of one: SEED=n
	@SEEDS=$(SEEDS) SEED=$(SEED) cargo run --release --quiet -p failover --example simulate

sim-volume: ## simulated volumes on bad days, judged; SEEDS=20000 of them, or the story of one: SEED=n
	@SEEDS=$(SEEDS) FROM=$(FROM) SEED=$(SEED) KEEP=$(KEEP) ALL=$(ALL) cargo run --release --quiet -p replication --example simulate-volume

model: ## the membership rules, state by state: SETTING=name, LIMIT=20 minutes at most; without, the names
	@SETTING=$(SETTING) LIMIT=$(LIMIT) cargo run --release --quiet -p replication --example check-model

fuzz: ## bytes of strangers, bent by libFuzzer (needs g++): TARGET=peer|nbd|metadata|login|session|cdb, MINUTES=60 each
	@drbd-backend/fuzz/run "$(TARGET)" "$(MINUTES)"

torture-volume: ## real nodes on disks that lose their caches, killed, cut off, paused (root): CYCLES=200, SEED=n, FROM=cycle -> target/torture/volume.json
	@cargo build --release --quiet -p system-tests --bin torture-volume --bin tandem-node-under-test --bin tandem-disk-under-test
	@target/release/torture-volume

test: tools check cloud-test drills guests ## everything: installs what it needs (root, apt, pip, cargo)

check: $(PYTHON_TOOLS)/ruff ## the short subset: formatting, lints, licences, every test that needs no cloud
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings
	cargo deny --log-level error check bans licenses sources
	cargo nextest run --workspace --no-fail-fast --status-level fail --cargo-quiet
	$(PYTHON_TOOLS)/ruff check --quiet .
	$(PYTHON_TOOLS)/ruff format --quiet --check .
	$(CHECKS) record

cloud-test: ## what needs a real OpenStack: one cloud is brought up, used by all, ended
	cargo nextest run -p system-tests --features minicloud --no-run --cargo-quiet
	$(CHECKS) life
	$(MINICLOUD) exec cargo nextest run --offline -p system-tests --features minicloud --test client-cloud \
	    --no-fail-fast --cargo-quiet --profile cloud
	$(CHECKS) down

drills: ## every story of the demo and kill -9 of tandem-ha, on a real OpenStack of five hosts
	$(RELEASE)
	@$(FAILOVER) drills

guests: target/guests/root.ext4 ## a machine with Linux's initiator, multipathd and os-brick keeps its disk while nodes die (root): KILLS=1, FREEZE=120 -> target/guests/guests.json
	@cargo build --quiet -p system-tests --bin guests --bin tandem-node-under-test --bin tandem-under-test
	@target/debug/guests

target/guests/root.ext4: tests/guests/build tests/guests/inside/init
	tests/guests/build target/guests

conformance-iscsi: tools ## libiscsi's iscsi-test-cu against a replicated volume -> target/conformance/iscsi.json
	@cargo build --release --quiet -p system-tests --bin conformance-iscsi --bin tandem-node-under-test --bin tandem-under-test
	@target/release/conformance-iscsi

bench-failover: ## by hand, Tandem, Masakari: 75 minutes -> target/bench/failover.json; BENCH=--quick is shorter
	$(RELEASE)
	@$(FAILOVER) bench $(BENCH)

bench-client: ## 1,000 servers listed and parsed -> target/bench/client.json
	TANDEM_BENCH_PYTHON="$(lastword $(wildcard $(CURDIR)/target/minicloud/venv-*/bin/python))" \
	    cargo bench --quiet -p system-tests --bench bench-client

bench-volume: $(if $(filter ceph,$(PEERS)),target/ceph/root) ## volumes against disk, qemu-nbd and floor: 15 minutes -> target/bench/volume.json; BENCH=--quick; ONLY=write,read,...; PEERS=ceph
	@cargo build --release --quiet -p tandem-node
	@ONLY=$(ONLY) PEERS=$(PEERS) cargo bench --quiet -p system-tests --bench bench-volume -- $(BENCH)

bench-iscsi: tools target/tgt target/guests/root.ext4 ## volumes over iSCSI against tgtd: 25 minutes, root -> target/bench/iscsi.json; BENCH=--quick; ONLY=loads,idle,fairness,failover,write_qd1,...
	@cargo build --release --quiet -p tandem-node -p system-tests --bin tandem-node --bin guests --bin tandem-node-under-test --bin tandem-under-test
	@ONLY=$(ONLY) cargo bench --quiet -p system-tests --bench bench-volume -- --iscsi $(BENCH)

# Debian's tgtd: unpacked, not installed, since installing would start it.
target/tgt:
	apt-get install -y -qq --no-install-recommends libaio1 librdmacm1
	mkdir -p $@.new && cd $@.new && apt-get download -qq tgt && dpkg -x tgt_*.deb .
	mv $@.new $@

# Debian's Ceph, and the qemu-nbd of the same Debian that can serve its images: unpacked, not installed.
target/ceph/root:
	mkdir -p $@.new target/ceph/debs/partial
	apt-get install -y -qq --no-install-recommends --download-only -o Dir::Cache::archives=$(CURDIR)/target/ceph/debs ceph-osd ceph-mon ceph-common
	cd target/ceph/debs && apt-get download -qq qemu-block-extra qemu-utils=$$(apt-cache show --no-all-versions qemu-block-extra | awk '/^Version:/ {print $$2}')
	for deb in target/ceph/debs/*.deb; do dpkg -x $$deb $@.new || exit; done
	mv $@.new $@

tools: $(PYTHON_TOOLS)/ruff ## what lints and runs tests, where it is missing
	@command -v cargo-nextest >/dev/null || cargo install --locked --quiet cargo-nextest
	@command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
	@test -x target/etcd/usr/bin/etcd || { mkdir -p target/etcd && cd target/etcd && apt-get download -qq etcd-server && dpkg -x etcd-server_*.deb . ; }
	@command -v qemu-io >/dev/null || apt-get install -y -qq --no-install-recommends qemu-utils
	@command -v nbdsh >/dev/null || apt-get install -y -qq --no-install-recommends libnbd-bin python3-libnbd
	@command -v iscsi-test-cu >/dev/null || apt-get install -y -qq --no-install-recommends libiscsi-bin
	@test -x target/qemu/usr/bin/qemu-io || $(MAKE) --no-print-directory target/qemu/usr/bin/qemu-io
	@command -v mkfs.xfs >/dev/null || apt-get install -y -qq --no-install-recommends xfsprogs
	@command -v nft >/dev/null || apt-get install -y -qq --no-install-recommends nftables

# QEMU's tools with its driver for iSCSI, of one version: unpacked, not installed.
target/qemu/usr/bin/qemu-io:
	mkdir -p target/qemu
	cd target/qemu && apt-get download -qq qemu-block-extra qemu-utils=$$(apt-cache show --no-all-versions qemu-block-extra | awk '/^Version:/ {print $$2}')
	cd target/qemu && for deb in *.deb; do dpkg -x $$deb . || exit; done

$(PYTHON_TOOLS)/ruff:
	@python3 -c 'import ensurepip' 2>/dev/null || apt-get install -y -qq --no-install-recommends python3-venv
	python3 -m venv target/python-tools
	$(PYTHON_TOOLS)/pip install --quiet --disable-pip-version-check ruff==0.17.6

recordings: ## what a real cloud answers -> openstack-client/tests/wire (needs `minicloud up`, bends that cloud)
	PYTHONPATH=$(CURDIR)/tests $(MINICLOUD) exec python3 -m minicloud.recordings openstack-client/tests/wire

fmt: $(PYTHON_TOOLS)/ruff ## format in place
	cargo fmt --all
	$(PYTHON_TOOLS)/ruff check --quiet --fix .
	$(PYTHON_TOOLS)/ruff format --quiet .
