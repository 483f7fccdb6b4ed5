# Walden: build, install, test, show.
#
# Everything here is a thin layer over cargo. Servers of the tests run as the user "postgres" when make
# is run by root, else as the user who runs make. The tests of the conformance suite, of slow storage and of full disks,
# and the soak, have to be run by root: they hold a process where it opens a file, or mount a small disk (CAP_SYS_ADMIN).

PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
PREFIX    ?= /usr/local
DESTDIR   ?=
CARGO     ?= cargo

# Asked only when needed: most targets, help among them, work without PostgreSQL.
pkglibdir      = $(shell $(PG_CONFIG) --pkglibdir)
pg_bindir      = $(shell $(PG_CONFIG) --bindir)
sharedir       = $(shell $(PG_CONFIG) --sharedir)
includedir     = $(shell $(PG_CONFIG) --includedir-server)
target         = $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
release        = $(target)/release
product        = --package walden-server --package walden-cli
# The bench is a workspace of its own, built into the same place.
bench          = --release --locked --manifest-path bench/Cargo.toml --target-dir "$(target)"
extension       = crates/server/extension
# For modules in C: the recovery module interface, and the server's own for base backup targets, which it does not install.
headers         = $(wildcard crates/abi/include/walden/*.h)

# Servers wait more than they compute, and a test that waits holds nobody else up. On two processors eight at once took
# half as long as three, and none ever failed for lack of time; three a processor keep a distance from that.
TEST_THREADS ?= $(shell expr 3 \* $$(nproc))

# What "make test" runs the tests of real servers on: majors, or directories of a server's programs.
SERVERS     ?= 15 18
ALL_SERVERS  = 15 16 17 18 19

# Empty, and so the default of the tests, while there is no server yet.
export WALDEN_PG_BINDIR ?= $(shell $(PG_CONFIG) --bindir 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help prerequisites servers stores build everything install uninstall lint deny check test test-all demo fuzz simulate planted soak bench conformance book files clean

help: ## list the targets
	@echo "Walden archives PostgreSQL's WAL and recovers from the archive. Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

prerequisites: ## install PostgreSQL 15 and what the build needs when missing (Debian, as root)
	@scripts/prerequisites

servers: prerequisites ## fetch PostgreSQL 16, 17, 18 and 19 into .cache/servers when missing
	@scripts/servers

stores: prerequisites ## fetch the object stores of the tests into .cache/stores when missing
	@CARGO="$(CARGO)" scripts/stores

build: ## build libwalden.so, walden and walden-conformance, optimised
	$(CARGO) build --release --locked

# With what the tests are made of, and their modules. In one command with the tests themselves, whose libraries want
# features of others: else most of Walden would be compiled twice.
everything:
	$(CARGO) build --release --locked --workspace --all-targets

install: build ## install walden.so, walden, walden-conformance and the views for the server of PG_CONFIG (DESTDIR is honoured)
	@test -n "$(pkglibdir)" || { echo "no server found with PG_CONFIG=$(PG_CONFIG)" >&2; exit 1; }
	install -d "$(DESTDIR)$(pkglibdir)" "$(DESTDIR)$(pg_bindir)" "$(DESTDIR)$(PREFIX)/bin" \
	    "$(DESTDIR)$(sharedir)/extension"
	@# install(1) writes a new file and renames nothing over the old one, so a library that a running
	@# server has mapped is removed first and never written into.
	rm -f "$(DESTDIR)$(pkglibdir)/walden.so" "$(DESTDIR)$(pg_bindir)/walden"
	install -m 755 $(release)/libwalden.so "$(DESTDIR)$(pkglibdir)/walden.so"
	install -m 755 $(release)/walden "$(DESTDIR)$(pg_bindir)/walden"
	ln -sfn "$(pg_bindir)/walden" "$(DESTDIR)$(PREFIX)/bin/walden"
	install -m 755 $(release)/walden-conformance "$(DESTDIR)$(PREFIX)/bin/walden-conformance"
	install -m 644 $(extension)/walden.control $(extension)/walden--*.sql "$(DESTDIR)$(sharedir)/extension"
	install -d "$(DESTDIR)$(includedir)/walden"
	install -m 644 $(headers) "$(DESTDIR)$(includedir)/walden/"

uninstall: ## remove what install put there
	@test -n "$(pkglibdir)" || { echo "no server found with PG_CONFIG=$(PG_CONFIG)" >&2; exit 1; }
	rm -f "$(DESTDIR)$(pkglibdir)/walden.so" "$(DESTDIR)$(pg_bindir)/walden"
	rm -f "$(DESTDIR)$(PREFIX)/bin/walden-conformance"
	rm -f "$(DESTDIR)$(sharedir)/extension/walden.control" "$(DESTDIR)$(sharedir)"/extension/walden--*.sql
	rm -f $(foreach header,$(notdir $(headers)),"$(DESTDIR)$(includedir)/walden/$(header)")
	-rmdir "$(DESTDIR)$(includedir)/walden" 2>/dev/null
	@# Only our own link: somebody else's program of that name stays.
	@if [ "$$(readlink "$(DESTDIR)$(PREFIX)/bin/walden")" = "$(pg_bindir)/walden" ]; then set -x; \
	    rm -f "$(DESTDIR)$(PREFIX)/bin/walden"; \
	fi

lint: ## check the formatting, and clippy with warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path bench/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets --release --locked -- -D warnings
	$(CARGO) clippy --all-targets $(bench) -- -D warnings

deny: ## check licences, versions and sources of dependencies (installs cargo-deny into .cache when missing)
	@CARGO="$(CARGO)" scripts/deny

check: prerequisites everything ## a verdict in minutes: lints, tests without a server, a scenario for each invariant
	@CARGO="$(CARGO)" TEST_THREADS=$(TEST_THREADS) WALDEN_LIB_DIR="$(abspath $(release))" scripts/check

test: prerequisites everything ## run every test with PostgreSQL 15, scenarios that depend on the server with 18 too (SERVERS="15 18" JOBS=…)
	@CARGO="$(CARGO)" JOBS="$(JOBS)" TEST_THREADS=$(TEST_THREADS) WALDEN_LIB_DIR="$(abspath $(release))" scripts/test $(SERVERS)

test-all: ## the same at full length, with 15, 16, 17, 18 and 19
	@WALDEN_TEST_WHOLE=1 $(MAKE) --no-print-directory test SERVERS="$(ALL_SERVERS)"

demo: prerequisites ## lose a server and get it back, told step by step
	$(CARGO) build --release --locked $(product) --package walden-demo
	@$(release)/walden-demo

fuzz: prerequisites ## fuzz what reads bytes from outside (SECONDS=60 for each target)
	@CARGO="$(CARGO)" scripts/fuzz $(or $(SECONDS),60)

# Its segments are smaller than any server's, so it is not built with the rest.
simulate: prerequisites ## play made-up histories of servers and their archive, and judge each answer (MINUTES=60 SEED=…)
	$(CARGO) run --release --locked --package walden-simulate --features small-segments -- $(or $(MINUTES),60) $(SEED)

planted: prerequisites ## plant eleven faults in what the simulation tests: each must be found within a minute (SEED=…)
	$(CARGO) run --release --locked --package walden-simulate --features small-segments -- faults $(SEED)

soak: prerequisites ## let everything go wrong for a while, as root (MINUTES=15 SEED=…)
	$(CARGO) build --release --locked $(product) --package walden-soak
	@WALDEN_LIB_DIR="$(abspath $(release))" $(release)/walden-soak $(or $(MINUTES),15) $(SEED)

bench: prerequisites build ## measure Walden beside its peers, as root, on a quiet machine (ONLY=drain RUNS=5 SEGMENTS=200)
	$(CARGO) build $(bench)
	@CARGO="$(CARGO)" scripts/peers
	@scripts/stores seaweedfs
	@WALDEN_LIB_DIR="$(abspath $(release))" $(release)/walden-bench run $(if $(ONLY),--only $(ONLY)) \
	    $(if $(RUNS),--runs $(RUNS)) $(if $(SEGMENTS),--segments $(SEGMENTS))
	@$(release)/walden-bench page

conformance: prerequisites ## put four modules through the conformance suite, for the tables of the book
	$(CARGO) build --release --locked $(product) --package walden-conformance --package basic_archive_rs
	@WALDEN_LIB_DIR="$(abspath $(release))" scripts/conformance $(MODULES)

book: ## make pages of the book in docs/ (installs mdbook into .cache when missing, which takes minutes)
	@CARGO="$(CARGO)" scripts/book

files: ## write the table of files, FILES.md, from the headers of the files
	@scripts/files >FILES.md

clean: ## remove what cargo built
	$(CARGO) clean
