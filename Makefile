# Each target does one thing; continuous integration calls only these.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 60s
IMAGE    ?= sallyport:dev
TOOLS    := -modfile=.ci/tools/go.mod

# Base images of the Dockerfile; empty means its own defaults.
BUILD_IMAGE ?=
RUN_IMAGE   ?=

.PHONY: help build run test lint fuzz bench image clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## build the static binary ./sallyport
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o sallyport ./cmd/sallyport

run: build ## build, and serve with the embedded configuration
	./sallyport run

test: ## run every test with the race detector; as root, install what they need first
	@.ci/prepare
	go test -race -timeout 20m ./...

lint: ## formatting, vet, golangci-lint, and known vulnerabilities where their database can be had
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet ./...
	go tool $(TOOLS) golangci-lint run ./...
	@go tool $(TOOLS) govulncheck ./... || { \
		status=$$?; [ $$status -ne 3 ] && echo "govulncheck could not run: is its database reachable?" || exit $$status; }

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "== $$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

bench: build ## run every benchmark, and print the figures of an idle daemon
	go test -run '^$$' -bench . -benchmem ./allowlists ./dnsfilter ./proxy ./alerting
	@.ci/figures ./sallyport

image: ## build the container image IMAGE
	docker build -t $(IMAGE) --build-arg VERSION=$(VERSION) \
		$(if $(BUILD_IMAGE),--build-arg BUILD_IMAGE=$(BUILD_IMAGE)) $(if $(RUN_IMAGE),--build-arg RUN_IMAGE=$(RUN_IMAGE)) \
		$(IMAGE_FLAGS) .

clean: ## remove what was built
	rm -f sallyport
