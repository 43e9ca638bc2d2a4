# make demo · make test · make check · make bench: the commands to remember.

SHELL := /bin/bash
CARGO ?= cargo
DEMO := demo

.PHONY: demo test check bench fuzz clean setup

demo: setup ## Detect objects on the sample photographs
	$(CARGO) build --release
	target/release/yolo-lat detect assets -o $(DEMO) --save-images --format text --format json
	@echo "Annotated photographs are in $(DEMO)/images, results in $(DEMO)/results.json."

test: setup ## Every test that needs nothing but this folder
	$(CARGO) test --doc --quiet
	$(CARGO) nextest run

check: setup ## Format, lints, documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet

bench: setup ## Speed of the CPU engine on this machine
	$(CARGO) bench --bench engines

fuzz: setup ## Fuzz targets for ten minutes each instead of seconds
	YOLO_LAT_FUZZ_SECONDS=600 $(CARGO) nextest run --release fuzz

setup:
	@scripts/setup

clean:
	$(CARGO) clean
	rm -rf $(DEMO)
