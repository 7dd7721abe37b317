# Commands for developers. .ci/run is what CI runs.

STATICCHECK   = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# Time for each fuzz target. CI takes 20s.
FUZZTIME = 10m

# Time of the faults in 'make chaos'. CI takes 3m.
CHAOS_TIME = 1h

# Sequences of each test of a model in 'make model'. CI runs a hundred; over etcd
# it is a tenth of them.
MODEL_SEQUENCES = 100000

.PHONY: build test test-short chaos model lint vulncheck fuzz bench bench-peers bench-reaction bench-short release clean

build:
	go build -o coredns-dnslb .

# As root on Linux this includes the tests in network namespaces, and those of the
# packages.
test:
	@echo "This takes 30 minutes on two cores, and needs a C compiler. Root is for tests in network namespaces; without it they are skipped."
	@echo "'make test-short' takes some minutes and needs Go alone."
	go test -race -count=1 -timeout 50m ./...
	cd deploy && go test -count=1 -timeout 15m ./...

test-short:
	go test -short ./internal/... ./plugin/...

# As root on Linux. CHAOS_SEED=N repeats the faults of an earlier run.
chaos:
	CHAOS_TIME=$(CHAOS_TIME) go test -count=1 -timeout 0 -v -run 'TestChaos|TestKill' ./test ./test/widearea

# Random sequences against the models, until one fails. Without a finding it takes
# hours.
model:
	go test -count=1 -timeout 0 -v -run AgainstModel ./plugin/dnsb -rapid.checks=$(MODEL_SEQUENCES)

lint:
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "Run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	go mod tidy -diff
	go vet ./...
	go run $(STATICCHECK) ./...
	go run $(GOLANGCI_LINT) run ./...
	cd deploy && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./... && go run $(GOLANGCI_LINT) run ./...

# Known vulnerabilities that the code calls.
vulncheck:
	.ci/vulncheck ./...

fuzz:
	.ci/fuzz $(FUZZTIME)

bench:
	go test -run '^$$' -bench . -benchmem ./internal/... ./plugin/...

# Beside gdnsd, Knot DNS and PowerDNS, as root on a Debian machine, 45 minutes.
# PEERS='-set map-1m,readers' measures a part, see bench/README.md.
bench-peers:
	bench/peers/run.sh $(PEERS)

# From a failure to the next answer, as root on Linux with nftables, ten minutes.
bench-reaction: build
	go run ./bench/reaction

# In less than two minutes: fails if a query takes clearly more than recorded.
bench-short:
	bench/peers/run.sh -short

# Static programs for Linux, Debian packages, an OCI image, lists of components and
# checksums, the same each time for the same commit. VERSION=1.2.3 names a release.
release:
	cd deploy && go run ./release $(if $(VERSION),-version $(VERSION))

clean:
	rm -rf dist
