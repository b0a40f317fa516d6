# A thin list of the habits; each target is one command that can be typed as well.

GO ?= go
GOVULNCHECK = $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0
GOLANGCI_LINT = $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME ?= 30s
MUTANTS ?= 150
PACKAGES ?= ./wire ./authz ./bus ./server ./server/loop
GOALS ?=

.PHONY: help run test lint vulnerabilities bench bench-idle bench-auth bench-peers bench-goals abuse fuzz model kill web-rounds mutate e2e console

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "%-16s %s\n", $$1, $$2 }' Makefile

run: ## a server that needs nothing, with tokens and lines to paste
	$(GO) run ./cmd/notifyd serve --dev

test: ## every test; says at the end what was left out
	$(GO) run ./tools/test

lint: ## format and lint, as CI does
	$(GOLANGCI_LINT) fmt --diff
	$(GOLANGCI_LINT) run ./...

vulnerabilities: ## what is known to be vulnerable in what we use and call; asks vuln.go.dev
	$(GOVULNCHECK) ./...

bench: ## Go benchmarks of each station of the path, against the last tag if there is one; half an hour
	$(GO) run ./bench stations

bench-idle: ## bytes of RSS per idle subscribed connection
	$(GO) run ./bench load idle

bench-auth: ## what each way to authenticate costs, for each algorithm
	$(GO) run ./bench auth

bench-peers: ## the same loads on notifyd and on other servers, as table and plots in bin/; two hours
	mkdir -p bin
	$(GO) run ./bench peers --json bin/peers.json --svg bin/peers.svg --plot bin/peers-fanout.svg > bin/peers.md
	cat bin/peers.md

bench-goals: ## whether notifyd reaches its goals, as table and plots in bin/; a quarter of an hour. GOALS=--check: fail if not
	mkdir -p bin
	$(GO) run ./bench goals $(GOALS) --json bin/goals.json --svg bin/goals.svg --plot bin/goals-fanout.svg > bin/goals.md
	cat bin/goals.md

abuse: ## attack a server in forty ways, and see that honest clients do not notice; a quarter of an hour
	$(GO) run ./bench load abuse

fuzz: ## each fuzz target for FUZZTIME
	.ci/fuzz $(FUZZTIME)

model: ## random runs of a node against a model of what it promises; half an hour
	$(GO) test -race -count=1 -timeout 2h -run TestModel ./node -model.seed=$$(date +%s) -model.seeds=200 -model.steps=200

kill: ## kill, stop and cut off servers under durable topics, 20 rounds each, and see that nothing is lost; half an hour
	$(GO) test -race -count=1 -timeout 3h -v -run 'TestKill|TestStopNATS|TestCutNATS' ./e2e -kill.rounds=20

web-rounds: ## restart servers under the JavaScript client and cut its network, 20 rounds each, in Node, Chromium and Firefox, with and without proxies; half an hour
	cd e2e/js && npm ci --ignore-scripts --no-audit --no-fund
	cd web/client && npm ci --ignore-scripts --no-audit --no-fund
	E2E_ROUNDS=20 NOTIFYD_E2E=required $(GO) test -count=1 -timeout 1h -v -run 'TestWebClient.*(Rounds|Restarts)' ./e2e

mutate: ## plant MUTANTS mistakes in each of PACKAGES (0: all there are) and see which the tests notice; hours
	$(GO) run ./tools/mutate --n $(MUTANTS) --min 95 $(PACKAGES)

console: ## build the page of the console, which is committed
	cd web/console && npm ci --ignore-scripts --no-audit --no-fund && npm run build

e2e: ## only the end-to-end tests, and none may be left out
	cd e2e/js && npm ci --ignore-scripts --no-audit --no-fund
	cd e2e/js/runtimes && npm ci --ignore-scripts --no-audit --no-fund
	cd web/client && npm ci --ignore-scripts --no-audit --no-fund
	cd web/console && npm ci --ignore-scripts --no-audit --no-fund
	NOTIFYD_E2E=required $(GO) test -race -count=1 ./e2e
