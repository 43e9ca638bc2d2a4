# make demo · make test · make check · make bench: the commands to remember.

SHELL := /bin/bash
CARGO ?= cargo
export ADAPTER PEERS QUICK
DEMO := demo

# libtorch comes with PyTorch's wheel; only train/ uses it.
TORCH := LIBTORCH_USE_PYTORCH=1 LD_LIBRARY_PATH="$$(python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')"
CONFIG ?= train/configs/n-finetune.toml
ABLATE ?= train/configs/ablate.toml
RUN ?= runs/n-finetune
OUTPUT ?= runs/average
ARGUMENTS ?= # more of the trainer: --init FILE, --teacher FILE
DATA ?= data

.PHONY: check-kernels demo test test-camera test-onnx soak screenshots check bench bench-attention bench-gpu bench-peers bench-peers-times fuzz train train-plot ablate average test-train clean setup

demo: setup ## Detect objects on the sample photographs
	$(CARGO) build --release
	$${CARGO_TARGET_DIR:-target}/release/yolo-lat detect assets -o $(DEMO) --save-images --format text --format json
	@echo "Annotated photographs are in $(DEMO)/images, results in $(DEMO)/results.json."
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then target=$${CARGO_TARGET_DIR:-target}; $$target/release/yolo-lat live; \
	else echo "No display here: \`yolo-lat live\` opens a window where there is one, \`yolo-lat live --headless\` prints lines."; fi

test: ## Every test that needs nothing but this folder
	@scripts/setup --test
	$(CARGO) test --doc --quiet
	$(CARGO) nextest run

check: setup ## Format, directions of crates and modules, lints, shaders, documentation, kernels
	$(CARGO) fmt --all --check
	scripts/directions
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) nextest run -p yolo-lat-shaders
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet
	$(MAKE) check-kernels

check-kernels: setup ## No sum of a CPU kernel lies on the stack: disassembles the release program
	$(CARGO) build --release
	if [ "$$(uname -m)" = x86_64 ]; then scripts/check-kernels $${CARGO_TARGET_DIR:-target}/release/yolo-lat; fi

bench: setup ## Speed of the CPU engine on this machine
	$(CARGO) bench -p yolo-lat --bench engines

bench-attention: setup ## Attention alone: time, decoding, gradients, entropy; raw results in benches/runs, charts in docs
	$(CARGO) build --release
	benches/attention

bench-gpu: setup ## A machine with a GPU in ten minutes, benches/gpu/run; QUICK=1 is short, ADAPTER=NAME picks one, PEERS adds ONNX files
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

test-camera: setup ## Cameras, in a virtual machine with the kernel's own virtual ones (minutes)
	@scripts/setup --camera
	$(CARGO) build --release
	tests/camera/run $${CARGO_TARGET_DIR:-target}/release/yolo-lat

soak: setup ## Ten minutes of live detection: memory, order, ages
	$(CARGO) build --release
	$${CARGO_TARGET_DIR:-target}/release/yolo-lat live --headless --source synthetic --frames 18000 --statistics > /dev/null

screenshots: setup ## Pictures of the window in docs/, on a display without a screen
	@scripts/setup --screenshots
	$(CARGO) build --release
	scripts/screenshots

fuzz: setup ## Fuzz targets for ten minutes each instead of seconds
	YOLO_LAT_FUZZ_SECONDS=600 $(CARGO) nextest run --release fuzz

train: setup ## Train as CONFIG says on the photographs in DATA
	@scripts/setup --train
	$(TORCH) $(CARGO) run -p yolo-lat-train --release -- train $(CONFIG) --data $(DATA) --resume $(ARGUMENTS)

train-plot: setup ## Curves of RUN (a folder with metrics.jsonl; several are compared) as PNG
	@scripts/setup --train
	$(TORCH) $(CARGO) run -p yolo-lat-train --release -- plot $(RUN)

ablate: setup ## Short runs with parts of the network changed, and their table
	@scripts/setup --train
	$(TORCH) $(CARGO) run -p yolo-lat-train --release -- ablate $(ABLATE) --data $(DATA) --resume $(ARGUMENTS)

average: setup ## Mean of the weights of MODELS (runs that went on from one another), in the folder OUTPUT
	@scripts/setup --train
	$(TORCH) $(CARGO) run -p yolo-lat-train --release -- average $(MODELS) --output $(OUTPUT)

test-train: setup ## Tests of the trainer
	@scripts/setup --train
	$(TORCH) $(CARGO) nextest run -p yolo-lat-train

setup:
	@scripts/setup

clean:
	$(CARGO) clean
	rm -rf $(DEMO)
