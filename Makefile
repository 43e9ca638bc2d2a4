# make demo · make test · make check · make bench: the commands to remember.

SHELL := /bin/bash
SIMD128 := -C target-feature=+simd128
CARGO ?= cargo
export ADAPTER CARGO PEERS QUICK
DEMO := demo

# libtorch comes with PyTorch's wheel; only train/ uses it.
TORCH := LIBTORCH_USE_PYTORCH=1 LD_LIBRARY_PATH="$$(python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')"
CONFIG ?= train/configs/n-finetune.toml
ABLATE ?= ablate
RUN ?= runs/n-finetune
OUTPUT ?= runs/average
ARGUMENTS ?= # more of the trainer: --init FILE, --teacher FILE
DATA ?= data
JOBS ?= 2

.PHONY: accuracy check-features check-kernels check-macos check-wasm demo dist miri sanitize test test-aarch64 test-camera test-dist test-onnx test-threads test-windows soak screenshots check bench bench-cpu bench-attention bench-gpu bench-peers bench-peers-times calibrate fuzz train train-plot ablate average test-train lm-confirm lm-corpus lm-fair lm-paper lm-quick lm-recall wheel test-wheel test-cluster bench-wheel test-wasm test-web web web-serve clean setup

demo: setup ## Detect objects on the sample photographs
	$(CARGO) build --release
	$${CARGO_TARGET_DIR:-target}/release/yolo-lat detect -m s assets -o $(DEMO) --save-images --format text --format json
	@echo "Annotated photographs are in $(DEMO)/images, results in $(DEMO)/results.json."
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then target=$${CARGO_TARGET_DIR:-target}; $$target/release/yolo-lat live -m s; \
	else echo "No display here: \`yolo-lat live\` opens a window where there is one, \`yolo-lat live --headless\` prints lines."; fi

test: ## Every test that needs nothing but this folder
	@scripts/setup --test
	scripts/cargo-all test --doc --quiet
	scripts/tests

check: ## Format, directions of crates and modules, licences, lints, shaders, documentation, kernels; the trainer where libtorch is
	@scripts/setup --check
	$(CARGO) fmt --all --check
	scripts/directions
	$(CARGO) deny --workspace --log-level error check --hide-inclusion-graph bans licenses sources
	$(CARGO) shear
	scripts/cargo-all clippy --all-targets -- -D warnings
	$(CARGO) nextest run -p yolo-lat-shaders
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet
	$(MAKE) check-kernels

check-kernels: setup ## No sum of a CPU kernel lies on the stack, no instruction is a function: disassembles our libraries as they are in the release program
	$(CARGO) build --release -p yolo-lat-attention -p yolo-lat-cpu -p yolo-lat-simd
	if [ "$$(uname -m)" = x86_64 ]; then scripts/check-kernels $${CARGO_TARGET_DIR:-target}/release; fi

check-features: ## Each crate with each of its features alone, and the program without window and camera (many minutes)
	@scripts/setup --check
	$(CARGO) hack check --each-feature --no-dev-deps --workspace --exclude yolo-lat-train
	$(CARGO) hack check --no-dev-deps -p yolo-lat-cli --no-default-features --features gpu,ort,video,plot

check-wasm: export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS := $(SIMD128)
check-wasm: setup ## Lints of what runs in a browser, for wasm32
	@rustup target list --installed | grep -qx wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown
	$(CARGO) clippy --target wasm32-unknown-unknown -p yolo-lat-web -p yolo-lat -p yolo-lat-attention -p yolo-lat-core -p yolo-lat-cpu -p yolo-lat-gpu \
	  -p yolo-lat-shaders -p yolo-lat-simd --no-default-features --features yolo-lat/cpu,yolo-lat/gpu -- -D warnings

web: setup ## The page and the npm package, into web/dist
	@scripts/setup --web
	scripts/web

PORT ?= 8000
web-serve: ## web/dist on this machine alone, at http://localhost:$(PORT)/
	node crates/web/serve.mjs web/dist $(PORT)

test-web: web ## The page in headless Chromium, on WebGPU and simd128: against the CPU engine, and when something is wrong (minutes)
	@scripts/setup --test
	crates/web/node_modules/.bin/tsc --noEmit --strict --target es2022 --module esnext --moduleResolution bundler --lib es2022,dom crates/web/tests/types.ts
	YOLO_LAT_WEB=full scripts/cargo-all nextest run --test web --run-ignored all --success-output final

# The kernels against their safe twin, every operation against the reference, and detection on the samples, with simd128 and with relaxed-simd. What
# is left out wants what WebAssembly has not: a folder for temporary files, more than 4 GiB of memory, panics that can be caught. Without the flag
# node 20.20 crashes in most runs when it goes on with the script after the program's end: a fault of its fast calls into WASI.
test-wasm: export CARGO_TARGET_WASM32_WASIP1_RUNNER := node --no-warnings --no-turbo-fast-api-calls $(CURDIR)/crates/web/tests/wasi.mjs
test-wasm: setup ## The CPU engine's tests in WebAssembly, executed by node (minutes)
	@rustup target list --installed | grep -qx wasm32-wasip1 || rustup target add wasm32-wasip1
	for form in simd128 simd128,+relaxed-simd; do \
	  CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="-C target-feature=+$$form" $(CARGO) nextest run --target wasm32-wasip1 --target-dir $${CARGO_TARGET_DIR:-target}/wasi-$${form##*+} $(KERNELS) \
	    -E 'not test(the_extension_decides) - test(any_graph_is_refused) - test(a_panic_in_a_kernel) - test(every_job_is_done_by_all)' || exit 1; \
	done

bench: setup ## Speed of the CPU engine on this machine, and where it goes
	$(CARGO) build --release
	$${CARGO_TARGET_DIR:-target}/release/yolo-lat bench -m n,s --engine cpu --threads 1,2
	$${CARGO_TARGET_DIR:-target}/release/yolo-lat bench --profile

bench-cpu: setup ## The table of docs/CPU.md: our CPU engine beside ONNX Runtime, minutes on a quiet machine; raw results in benches/runs
	@scripts/setup --ort
	$(CARGO) build --release
	benches/cpu/run $${CARGO_TARGET_DIR:-target}/release/yolo-lat

bench-attention: setup ## Attention alone: time, decoding, gradients, entropy; raw results in benches/runs, charts in docs
	$(CARGO) build --release
	benches/attention

bench-gpu: setup ## A machine with a GPU in ten minutes, with YOLO26n beside us, benches/gpu/run; QUICK=1 is short, ADAPTER=NAME picks one, PEERS adds ONNX files
	@scripts/setup --bench-gpu || echo "bench-gpu: what exports YOLO26n or computes on CUDA cannot be installed here, see above" >&2
	$(CARGO) build --release
	benches/gpu/run

PEERS ?=
# Without sizes, each once.
files = $(sort $(foreach peer,$(1),$(firstword $(subst @, ,$(peer)))))
OUR_PEERS = $(addprefix target/peers/,$(addsuffix .onnx,$(foreach name,yolo26n yolo11n yolov8n,$(name)-320 $(name)-640)))
bench-peers: setup ## Our models beside the ONNX files in PEERS (FILE or FILE@SIZE): accuracy on DATA, each in its own preprocessing, then times
	@scripts/setup --peers
	$(CARGO) build --release
	python3 benches/peers/accuracy.py $${CARGO_TARGET_DIR:-target}/release/yolo-lat $(DATA) $(PEERS)
	$(MAKE) bench-peers-times

bench-peers-times: ## The times alone, beside YOLO26n, 11n, v8n with random weights; the machine must be quiet
	@mkdir -p benches/runs docs/comparison
	python3 benches/peers/export.py target/peers
	$${CARGO_TARGET_DIR:-target}/release/yolo-lat bench -m n,s $(addprefix -m ,$(call files,$(PEERS)) $(OUR_PEERS)) --threads 1 --seconds 60 \
	  --accuracy benches/accuracy.json --plot docs/comparison/accuracy.png --json > benches/runs/.peers
	mv benches/runs/.peers benches/runs/peers-$$(date -u +%Y-%m-%d).json
	$${CARGO_TARGET_DIR:-target}/release/yolo-lat bench -m n,s $(addprefix -m ,$(call files,$(PEERS)) $(OUR_PEERS)) --engine ort --seconds 10 \
	  --plot docs/comparison/parameters.png

test-onnx: setup ## Every form of the export through ONNX's checker and ONNX Runtime (needs Python)
	@scripts/setup --onnx
	$(CARGO) build --release
	python3 tests/onnx/check.py $${CARGO_TARGET_DIR:-target}/release/yolo-lat

dist: ## An archive and a Debian package in target/packages (many minutes)
	@scripts/setup --dist
	$(CARGO) build --release
	scripts/dist $${CARGO_TARGET_DIR:-target}/release/yolo-lat

test-dist: ## What make dist made, installed and run in a bare Debian without a network
	@scripts/setup --dist
	tests/dist/run $${CARGO_TARGET_DIR:-target}/release/yolo-lat

# What the CPU engine's kernels and their tests are.
KERNELS := -p yolo-lat -p yolo-lat-cpu -p yolo-lat-attention -p yolo-lat-simd --no-default-features --features builtin-models,cpu
# Two packages compile C for macOS, which needs Apple's SDK; what only checks Rust needs no result of it, so `true` may compile it.
check-macos: ## Code for macOS, all of it in Rust; nothing is linked and nothing run
	@scripts/setup --macos
	CC_aarch64_apple_darwin=true AR_aarch64_apple_darwin=true SDKROOT=/ $(CARGO) check --target aarch64-apple-darwin -p yolo-lat-cli

# Interpreted are safe twins, which are all that Miri has of the instruction sets, in tests that end within minutes; without rayon,
# whose crossbeam breaks the rules of Miri's older model of borrows.
INTERPRETED := test(rows::tests::a_row) | (package(yolo-lat-core) & test(/geometry::|views_resolve|broken_graphs/)) \
  | (package(yolo-lat-attention) - test(/the_f(16|32)_form|the_cost_is_linear|the_four_rules|weights_times/))
miri: setup ## Miri over safe twins of the kernels, attention, graphs (many minutes)
	@scripts/setup --miri
	MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri nextest run --no-default-features \
	  -p yolo-lat-simd -p yolo-lat-attention -p yolo-lat-core -E '$(INTERPRETED)'

# The toolchain for everything else has the sanitizer too; the variable lets it be asked for.
sanitize: setup ## The unsafe kernels' tests under AddressSanitizer, on every instruction set of this machine (minutes)
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address $(CARGO) nextest run --target x86_64-unknown-linux-gnu $(KERNELS)

# ThreadSanitizer must see std's own locks too, so std is built with it.
test-threads: setup ## The CPU engine under ThreadSanitizer: 1 to 256 threads, a panic, helpers that come late (minutes)
	@rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
	rustup component add rust-src --toolchain nightly
	RUSTFLAGS=-Zsanitizer=thread $(CARGO) +nightly nextest run -Zbuild-std --target x86_64-unknown-linux-gnu --target-dir $${CARGO_TARGET_DIR:-target}/threads \
	  -p yolo-lat -p yolo-lat-cpu --no-default-features --features builtin-models,cpu -E 'test(any_number_of_threads) + test(every_job_is_done) + test(a_panic_in_a_kernel)'

# The kernels against their safe twin, every operation against the reference, any graph, whole networks, with NEON; then the program.
test-aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
test-aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := qemu-aarch64 -L /usr/aarch64-linux-gnu
test-aarch64: setup ## The CPU engine's tests on 64-bit Arm, and the program without window and camera beside this machine's, by qemu (many minutes)
	@scripts/setup --aarch64
	$(CARGO) nextest run --target aarch64-unknown-linux-gnu $(KERNELS)
	$(CARGO) build --release
	$(CARGO) build --release --target aarch64-unknown-linux-gnu -p yolo-lat-cli --no-default-features --features gpu,ort,video,plot
	tests/cross/run $${CARGO_TARGET_DIR:-target}/release/yolo-lat 0.01,0.0001 $$CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER \
	  $${CARGO_TARGET_DIR:-target}/aarch64-unknown-linux-gnu/release/yolo-lat

test-windows: setup ## The whole program for Windows, cross-built, beside this machine's, by wine (many minutes)
	@scripts/setup --windows
	$(CARGO) build --release
	$(CARGO) build --release --target x86_64-pc-windows-gnu -p yolo-lat-cli
	x86_64-w64-mingw32-gcc -O2 -shared -o $${CARGO_TARGET_DIR:-target}/x86_64-pc-windows-gnu/release/bcryptprimitives.dll \
	  tests/cross/bcryptprimitives.c -ladvapi32
	WINEDEBUG=-all WINEPREFIX=$${CARGO_TARGET_DIR:-$$PWD/target}/wine tests/cross/run $${CARGO_TARGET_DIR:-target}/release/yolo-lat 0,0 \
	  $$(command -v wine64 || command -v wine || echo /usr/lib/wine/wine64) $${CARGO_TARGET_DIR:-target}/x86_64-pc-windows-gnu/release/yolo-lat.exe

accuracy: setup ## The accuracy tables of the model cards, measured on the photographs in DATA
	$(CARGO) build --release
	scripts/accuracy $${CARGO_TARGET_DIR:-target}/release/yolo-lat $(DATA)

test-camera: setup ## Cameras, in a virtual machine with the kernel's own virtual ones (minutes)
	@scripts/setup --camera
	$(CARGO) build --release
	tests/camera/run $${CARGO_TARGET_DIR:-target}/release/yolo-lat

soak: setup ## Ten minutes of live detection with tracks, zones, events and all who are told of them: memory, order, ages
	@scripts/setup --test
	$(CARGO) build --release
	scripts/soak $${CARGO_TARGET_DIR:-target}/release/yolo-lat

screenshots: setup ## Pictures of the window in docs/, on a display without a screen
	@scripts/setup --screenshots
	$(CARGO) build --release
	scripts/screenshots

INPUTS ?=
# Files are written for each input: in memory that is quick.
SHM = $(firstword $(wildcard /dev/shm) /tmp)
fuzz: setup ## Fuzz targets for ten minutes each instead of seconds; or INPUTS=1000000 of each, with overflow checks (docs/TRUST.md)
	TMPDIR=$(SHM) $(if $(INPUTS),YOLO_LAT_FUZZ_INPUTS=$(INPUTS) $(CARGO) nextest run --success-output final,YOLO_LAT_FUZZ_SECONDS=600 $(CARGO) nextest run --release) --no-fail-fast fuzz

train: setup ## Train as CONFIG says on the photographs in DATA
	@scripts/setup --train
	$(TORCH) $(CARGO) run -p yolo-lat-train --release -- train $(CONFIG) --data $(DATA) --resume $(ARGUMENTS)

train-plot: setup ## Curves of RUN (a folder with metrics.jsonl; several are compared) as PNG
	@scripts/setup --train
	$(TORCH) $(CARGO) run -p yolo-lat-train --release -- plot $(RUN)

# JOBS processes share an experiment's runs: what is finished is not made again. Hours; the same command goes on. $(1): its words.
shared = seq $(JOBS) | $(TORCH) xargs -P $(JOBS) -I{} nice $${CARGO_TARGET_DIR:-target}/release/yolo-lat-train $(1)

ablate: setup ## What each part of the network brings, in short runs with seeds: hours, by JOBS processes; into benches/runs/ABLATE
	@scripts/setup --train
	$(TORCH) $(CARGO) build -p yolo-lat-train --release
	$(call shared,ablate train/configs/$(ABLATE).toml --data $(DATA) --no-report $(ARGUMENTS))
	$(TORCH) $${CARGO_TARGET_DIR:-target}/release/yolo-lat-train ablate train/configs/$(ABLATE).toml --report

CALIBRATE ?= --keep stage2.0
calibrate: setup ## Steps for int8 of MODEL, measured on photographs of DATA; the model with them in the folder OUTPUT
	@scripts/setup --train
	$(TORCH) $(CARGO) run -p yolo-lat-train --release -- calibrate $(DATA) -m $(or $(MODEL),n) $(CALIBRATE) --output $(or $(OUTPUT),runs/calibrate)

average: setup ## Mean of the weights of MODELS (runs that went on from one another), in the folder OUTPUT
	@scripts/setup --train
	$(TORCH) $(CARGO) run -p yolo-lat-train --release -- average $(MODELS) --output $(OUTPUT)

lm-corpus: setup ## Texts of the language model out of Debian packages, into DATA/lm
	@scripts/setup --train
	$(TORCH) $(CARGO) run -p yolo-lat-train --release -- lm corpus --data $(DATA)/lm

lm_suite = $(call shared,lm suite train/configs/lm/$(1).toml --data $(DATA)/lm) && \
	$(TORCH) $${CARGO_TARGET_DIR:-target}/release/yolo-lat-train lm report train/configs/lm/$(1).toml

lm-fair: lm-corpus ## What each part brings to a language model, with seeds: hours, by JOBS processes; table and picture in benches/runs/lm-fair
	$(call lm_suite,fair)

lm-paper: lm-corpus ## The paper's experiment as its program has it, faults and all: hours; into benches/runs/lm-paper
	$(call lm_suite,paper)

lm-confirm: lm-corpus ## Some of lm-fair at the paper's size: many hours; into benches/runs/lm-confirm
	$(call lm_suite,confirm)

lm-recall: lm-corpus ## How many pairs of keys and values two layers can hold: an hour; into benches/runs/lm-recall
	$(call shared,lm recall train/configs/lm/recall.toml)

lm-quick: setup ## The whole path of lm-fair in minutes on an excerpt
	@scripts/setup --train
	$(TORCH) $(CARGO) run -p yolo-lat-train --release -- lm suite train/configs/lm/quick.toml --data $(DATA)/lm

test-train: setup ## Tests of the trainer
	@scripts/setup --train
	scripts/cargo-all nextest run -E 'package(yolo-lat-train)'

# A Python of its own, for what is built and tested with it.
VENV := target/venv
wheel: setup ## The Python wheel: module yolo_lat, script yolo-lat; into target/wheels
	@scripts/setup --wheel
	rm -rf target/wheels
	$(VENV)/bin/maturin build --locked --manifest-path crates/python/Cargo.toml --out target/wheels

test-wheel: wheel ## The wheel, installed: against the program, with supervision and trackers, its types
	$(VENV)/bin/pip install --quiet "$$(echo target/wheels/*.whl)[test]"
	$(VENV)/bin/pip install --quiet --force-reinstall --no-deps target/wheels/*.whl
	$(VENV)/bin/pytest crates/python/tests

test-cluster: wheel ## Spark and Ray with the wheel on 2,000 photographs (of DATA, if it is given), workers killed: minutes
	@scripts/setup --cluster
	$(VENV)/bin/pip install --quiet --force-reinstall --no-deps target/wheels/*.whl
	$(VENV)/bin/python tests/cluster/check.py $(if $(filter command line,$(origin DATA)),$(DATA))

bench-wheel: wheel ## Speed of the wheel beside the program's on the photographs of DATA; the machine must be quiet
	$(CARGO) build --release
	$(VENV)/bin/pip install --quiet --force-reinstall target/wheels/*.whl
	$(VENV)/bin/python benches/wheel.py $${CARGO_TARGET_DIR:-target}/release/yolo-lat $(DATA)

setup:
	@scripts/setup

clean:
	$(CARGO) clean
	rm -rf $(DEMO)
