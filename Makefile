# The front door: `make` alone lists what there is.

BROKER ?= nats

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast fmt lint doc deny count bench bench-guard bench-full bench-peers

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what tests and demo need (PostgreSQL, NATS, Kafka, ElasticMQ, jq, build tools)
	@scripts/install-servers.sh

demo: ## Show the promise under fire: BROKER=nats (default), kafka or sqs
	@scripts/demo.sh $(BROKER)

test: ## Everything that must hold before a change lands
	@scripts/test.sh

test-fast: ## The tests beside the code; some of them start a server
	@cargo test --workspace --lib --exclude onceward-testkit

fmt: ## Format the code
	@cargo fmt --all

lint: ## Format check and clippy, warnings are errors
	@cargo fmt --all -- --check
	@cargo clippy --workspace --all-targets --all-features -- -D warnings

doc: ## Build the API documentation into target/doc, warnings are errors
	@RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

deny: ## Check licences and banned crates (needs cargo-deny)
	@cargo deny check licenses bans

count: ## Count instructions of the hot functions (ARGS=--renew writes bench/instructions.json)
	@scripts/count-instructions.sh $(ARGS)

bench: ## Measure in about 15 minutes; writes bench/results.json and docs/performance.md (ARGS=… instead of its own)
	@scripts/bench.sh $(ARGS)

bench-guard: ## Look in two minutes whether anything got much slower than bench/results.json says
	@scripts/bench.sh guard

bench-full: ## Measure everything, in the background; wants 60 GB of free disk
	@scripts/bench.sh full

bench-peers: ## Measure other relays beside ours on Kafka (Debezium, outbox-core; Go peers by variables)
	@scripts/bench.sh peers $(ARGS)
