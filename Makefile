# Recipes are short: the logic is in Rust (operator, workloads, e2e) and Go (e2e/cluster).
# One cargo profile and one target folder for tests, images and demo: dependencies are compiled a single time.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash

# CLUSTER=current takes the current kubectl context for the demo; otherwise a local cluster is started.
export CLUSTER
# The same flags for every Go build, or its cache is of no use.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath
# Tests of the data plane run the Valkey of the images, unless told otherwise.
export FORTIA_TEST_REDIS ?= $(CURDIR)/build/valkey-server

# One behaviour or bench, by file name: make e2e ONLY=scale
ONLY ?= *
# How many shards make demo-reshard goes to.
N ?= 3
TEST_CLUSTER := build/fortia-cluster --name test
GO_FILES := $(shell find e2e/cluster -name '*.go' -o -path 'e2e/cluster/config/*') e2e/cluster/go.mod e2e/cluster/go.sum
VERSION := k8s.io/component-base/version
HELM := helm.sh/helm/v4
# Without these, Kubernetes says it is v0.0.0, and helm renders for a Kubernetes of 2020.
LDFLAGS := -s -w -X $(VERSION).gitVersion=v1.34.4 -X $(VERSION).gitMajor=1 -X $(VERSION).gitMinor=34 \
	-X $(HELM)/internal/version.version=v4.0.4 -X $(HELM)/pkg/chart/common.k8sVersionMajor=1 -X $(HELM)/pkg/chart/common.k8sVersionMinor=34
# Runs a command and prints how long it took, as a line `time STEP SECONDS s`.
timed = @start=$$SECONDS; echo "== $@"; $(1) && echo "time $@ $$((SECONDS - start)) s"

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# For the figures demo.cold_s and demo.warm_s: when it began, and whether anything had been built before.
demo: export FORTIA_DEMO_BEGAN := $(shell date +%s)
demo: export FORTIA_DEMO_KIND := $(if $(wildcard target/debug/fortia-operator),warm,cold)
demo: deps build images ## from nothing to a living world on a local Kubernetes (CLUSTER=current: on the kubectl context)
	target/debug/fortia-demo up

demo-reshard: ## re-shard the demo's world to N=3 shards while it is played, with a progress bar
	target/debug/fortia-demo reshard $(N)

demo-idle: ## end the demo's players and measure the processor time of the idle world (figure demo.idle_cores)
	target/debug/fortia-demo idle

demo-down: ## remove every trace of the demo
	@if [ -x target/debug/fortia-demo ]; then target/debug/fortia-demo down; else echo "no demo here"; fi

test: deps check build doc charts integration e2e ## everything, from nothing

check: fmt lint unit ## fast: format, lints, unit tests

fmt: # formatting of Rust and Go
	$(call timed,cargo fmt --all --check && test -z "$$(gofmt -l e2e/cluster | tee /dev/stderr)")

lint: # warnings are errors
	$(call timed,cargo clippy --workspace --all-targets --locked -- --deny warnings && $(MAKE) deny)

# Optional, since building cargo-deny takes longer than building Fortia; the tidy test checks the bans without it.
deny:
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check bans licenses sources; else echo "cargo-deny is not installed: its checks are skipped"; fi

unit: # unit tests, and the tidy test of the repository itself
	$(call timed,cargo test --workspace --lib --locked && cargo test --package fortia-e2e --test tidy --locked && go -C e2e/cluster test ./images ./deps)

build: programs cluster ## all programs

programs: # the Rust programs
	$(call timed,cargo build --workspace --bins --locked)

cluster: build/fortia-cluster # the local Kubernetes, kubectl and helm in one Go program

build/fortia-cluster: $(GO_FILES)
	$(call timed,go build -C e2e/cluster -ldflags '-s -w' -o pause/pause.bin ./pause && go build -C e2e/cluster -ldflags '$(LDFLAGS)' -o '$(CURDIR)/$@' .)

build/fortia-images: $(wildcard e2e/cluster/images/*.go)
	@go build -C e2e/cluster -o '$(CURDIR)/$@' ./images

build/valkey-server: build/fortia-images
	@build/fortia-images valkey

deps: ## install the Debian packages that are missing
	@go run -C e2e/cluster ./deps

integration: build/valkey-server cluster ## tests of every crate on real Valkey servers, and of the local Kubernetes' parts
	$(call timed,cargo test --workspace --exclude fortia-e2e --test '*' --locked && go -C e2e/cluster test -ldflags '-s -w' ./...)

images: programs build/fortia-images ## all container images into build/images.tar, without docker or registry
	$(call timed,build/fortia-images)

e2e: cluster images ## behaviours on a local Kubernetes (ONLY=name: one of them)
	$(call timed,trap '$(TEST_CLUSTER) down' EXIT; trap 'exit 130' INT TERM; $(TEST_CLUSTER) down && $(TEST_CLUSTER) up && $(TEST_CLUSTER) load build/images.tar \
		&& cargo test --package fortia-e2e --test '$(ONLY)' --locked -- --test-threads 1 --nocapture)

# A bench is an ignored test named bench_*: the same profile as all the rest, and nothing is compiled twice.
bench: build/valkey-server ## measure, printing `figure NAME VALUE UNIT` (ONLY=name: one bench)
	$(call timed,cargo test --workspace --lib --tests --locked -- --ignored --nocapture --test-threads 1 'bench_$(subst *,,$(ONLY))')

crds: ## generate crds/, the chart's copy and the schema of its values from the operator's Rust types
	@mkdir -p build
	cargo run --quiet --package fortia-operator --locked -- crd > build/crd.yaml
	cp build/crd.yaml crds/fortiacluster.yaml
	cp build/crd.yaml charts/fortia-operator/files/fortiacluster.yaml
	WRITE=1 cargo test --quiet --package fortia-e2e --test charts --locked -- the_cluster_charts_schema_follows_the_type

charts: cluster ## lint and render the charts, and test what they render
	$(call timed,cargo test --package fortia-e2e --test charts --locked)

doc: ## API documentation; warnings are errors
	$(call timed,RUSTDOCFLAGS='--deny warnings' cargo doc --workspace --no-deps --locked --quiet)

.PHONY: help demo demo-reshard demo-idle demo-down test check fmt lint deny unit build programs cluster deps integration images e2e bench crds charts doc
