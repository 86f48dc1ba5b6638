# `make` builds bin/fdkit; `make help` says what else there is.

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
FUZZTIME ?= 10s
SHELL    := /bin/bash

# Without the tag the command line library carries a documentation generator
# that fdkit does not use.
TAGS := -tags=urfave_cli_no_docs
# VERSION=1.2.3 is what fdkit --version will say.
LDFLAGS := $(if $(VERSION),-ldflags="-X main.version=$(VERSION)")
# The shell scripts, in whatever directory of these, by their first line.
SCRIPTS = $(shell grep -rlE '^\#!.*[/ ](ba)?sh$$' scripts .ci)

# Modules of their own, each with what fdkit itself shall not depend on.
MODULES := . scripts/bench
each = @for module in $(MODULES); do (cd $$module && $(1)) || exit; done

.PHONY: build
build: ## build bin/fdkit (VERSION=1.2.3)
	CGO_ENABLED=0 $(GO) build -trimpath $(TAGS) $(LDFLAGS) -o bin/fdkit .

.PHONY: test
test: ## run all tests; those that lack a program are skipped
	$(call each,$(GO) test $(TAGS) ./...)

.PHONY: demo
demo: ## build fdkit and show it at work
	@scripts/demo

# Not after build: root, who installs, often has no Go.
INSTALL = scripts/install --prefix '$(PREFIX)' $(if $(DESTDIR),--destdir '$(DESTDIR)')
.PHONY: install uninstall
install: ## install what make has built, with manual pages and completions (PREFIX=/usr/local, DESTDIR=)
	$(INSTALL)
uninstall: ## remove what install has installed
	$(INSTALL) --uninstall

# What CI runs, and you before you send a change. .ci/run installs what it needs.
.PHONY: check
check: check-format check-code check-modules check-scripts check-tests ## run everything that a change must pass

.PHONY: check-format check-code check-modules check-scripts check-tests
check-format:
	@unformatted=$$($(GO) tool gofumpt -l .) && test -z "$$unformatted" || \
		{ echo "gofumpt -w is wanted by:" $$unformatted; exit 1; }
check-code:
	$(call each,$(GO) vet $(TAGS) ./...)
	@staticcheck=$$($(GO) tool -n staticcheck) && \
		for module in $(MODULES); do (cd $$module && $$staticcheck $(TAGS) ./...) || exit; done
check-modules:
	$(call each,$(GO) mod tidy -diff)
check-scripts:
	@if command -v shellcheck >/dev/null; then echo shellcheck $(SCRIPTS); shellcheck $(SCRIPTS); \
	else echo 'skipped: shellcheck is not installed; scripts/install-test-programs has it'; test -z "$$CI"; fi
# Among them are those that lint the manual pages, compare the completions, run
# the examples of README and manual, and hold the rule of who imports whom.
check-tests:
	$(call each,$(GO) test -race $(TAGS) ./...)

COMPLETIONS := $(addprefix scripts/completion/,fdkit.bash _fdkit fdkit.fish)
complete = $(GO) run $(TAGS) . completion $$(case $(1) in *.bash) echo bash;; *.fish) echo fish;; *) echo zsh;; esac)

.PHONY: completion
completion: ## write scripts/completion anew from the command tree
	@mkdir -p scripts/completion
	@for f in $(COMPLETIONS); do $(call complete,$$f) >$$f || exit; echo $$f; done

SUITES ?= all
.PHONY: bench
bench: build ## compare fdkit with others, into scripts/bench/results (SUITES="spawn start", BENCHFLAGS=--quick)
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/epollworker ./scripts/examples/epollworker
	cd scripts/bench && $(GO) build -trimpath -o ../../bin/bench .
	bin/bench $(BENCHFLAGS) $(SUITES)

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME=10s
	@scripts/fuzz $(FUZZTIME)

# scripts/chaos/README.md says how to run one case.
.PHONY: chaos chaos-short
chaos: build ## inject faults under load for some 40 minutes, and write scripts/chaos/results.md (CHAOS=short takes 3 minutes and CASES="kill stop" are some, without the file)
	$(GO) run ./scripts/chaos -fdkit bin/fdkit $(if $(filter short,$(CHAOS)),-short $(CASES),$(or $(CASES),-results scripts/chaos/results.md))
chaos-short:
	@$(MAKE) --no-print-directory chaos CHAOS=short

.PHONY: clean
clean: ## remove bin
	rm -rf bin

.PHONY: help
help:
	@sed -n 's/^\([a-z]*\)[a-z ]*:.*## /\1:/p' Makefile | awk -F: '{ printf "make %-12s %s\n", $$1, $$2 }'
