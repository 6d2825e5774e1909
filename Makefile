# Each target does one thing; continuous integration calls only these.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 60s
SOAK     ?= 60s
BULK     ?= 1000
STORM    ?= 3m
CHAOS    ?= 10m
IMAGE    ?= sallyport:dev
ROUNDS   ?= 5
TESTS    ?=
SUBJECTS ?=
BENCH    ?=
TOOLS    := -modfile=.ci/tools/go.mod

# Base images of the Dockerfile; empty means its own defaults. .ci/localbase
# makes a BUILD_IMAGE where no registry answers.
BUILD_IMAGE ?=
RUN_IMAGE   ?=

# The version comes from above, so a build need not look into the repository
# (it could not in a clone that belongs to another user).
export GOFLAGS := -buildvcs=false $(GOFLAGS)
# Unasked, the race detector has each process sleep for a second before it
# exits, and the tests start several hundred.
export GORACE := atexit_sleep_ms=20 $(GORACE)

.PHONY: help build run test soak storm bulk chaos lint fuzz bench bench-peers image clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## build the static binary ./sallyport
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o sallyport ./cmd/sallyport

run: build ## build, and serve with the embedded configuration
	./sallyport run

test: ## run every test with the race detector; as root, install what they need first
	@.ci/prepare
	go test -race -count=1 -parallel 4 -timeout 45m ./...

soak: ## press on a gateway with 200 runners of three pools for SOAK (60s), as root
	@.ci/prepare
	SALLYPORT_SOAK=$(SOAK) go test -race -timeout 20m -run '^TestGatewayLoad$$' -v ./test

storm: ## give alerting 1,000,000 records a minute for STORM (3m), and hold what becomes of them
	SALLYPORT_STORM=$(STORM) go test -timeout 30m -run '^TestStorm$$' -v ./alerting

bulk: ## join BULK (1000) MB of logs, and hold the memory it takes
	SALLYPORT_BULK=$(BULK) go test -timeout 30m -run '^TestCorrelateBulk$$' -v ./test

chaos: ## refuse names for CHAOS (10m) while Slack fails and the daemon ends at random; SALLYPORT_SEED=N throws the same dice
	SALLYPORT_CHAOS=$(CHAOS) go test -race -timeout 0 -run '^TestNothingIsLostThoughSlackAndWeFailAtRandom$$' -v ./test

lint: ## gofmt, golangci-lint, and known vulnerabilities where their database can be had
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	@asleep=$$(grep -rl --include='*_test.go' 'time\.Sleep(' . | xargs -r grep -L '"testing/synctest"' || true); \
		[ -z "$$asleep" ] || { echo "time.Sleep without testing/synctest; wait for an event with a deadline:"; echo "$$asleep"; exit 1; }
	go tool $(TOOLS) golangci-lint run ./...
	@.ci/vulnerabilities

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@for package in $$(go list ./...); do \
		targets=$$(go test -list '^Fuzz' $$package); \
		for target in $$(grep '^Fuzz' <<<"$$targets" || true); do \
			echo "== $$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$package; \
		done; \
	done

bench: build ## run every benchmark, and print the figures of an idle daemon
	go test -run '^$$' -bench . -benchmem ./...
	@.ci/figures ./sallyport

# Whoever wants the list only, gets it: no peer is installed for that.
ASKED := $(filter -h -help --help,$(BENCH))
bench-peers: $(if $(ASKED),,build) ## measure beside Squid, Unbound and other peers; TESTS=setup,dns SUBJECTS=sallyport,relay,squid ROUNDS=5 choose, BENCH=-help lists
	@$(if $(ASKED),,.ci/peers)
	@go build -o bin/bench ./test/bench
	bin/bench -rounds $(ROUNDS) -tests '$(TESTS)' -subjects '$(SUBJECTS)' $(BENCH)

image: ## build the container image IMAGE
	docker build -t $(IMAGE) --build-arg VERSION=$(VERSION) \
		$(if $(BUILD_IMAGE),--build-arg BUILD_IMAGE=$(BUILD_IMAGE)) $(if $(RUN_IMAGE),--build-arg RUN_IMAGE=$(RUN_IMAGE)) \
		$(if $(GOPROXY),--build-arg GOPROXY=$(GOPROXY)) $(IMAGE_FLAGS) .

clean: ## remove what was built
	rm -rf sallyport bin
