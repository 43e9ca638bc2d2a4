//! yolo-lat in a browser: the part that is Rust. `js/index.js` makes of it what programs use, and its declarations
//! (`js/index.d.ts`) are the documentation; names here are for that file alone.
#![cfg(target_arch = "wasm32")]

mod notices;

use image::RgbImage;
use js_sys::Uint8ClampedArray;
use wasm_bindgen::prelude::*;
// What `#[wasm_bindgen]` makes of `async`.
use wasm_bindgen_futures as _;
use yolo_lat::attention::mean_of_heads;
use yolo_lat::detector::{AttentionOptions, DetectorOptions};
use yolo_lat::engine::EngineKind;
use yolo_lat::engine::gpu::GpuOptions;
use yolo_lat::geometry::BBox;
use yolo_lat::model::config::KernelKind;
use yolo_lat::model::graph::Mixing;
use yolo_lat::model::{Model, ModelConfig, Precision, Weights};
use yolo_lat::postprocess::PostprocessOptions;
use yolo_lat::{AttentionLayer, AttentionView, Detector, Runtime, RuntimeOptions};
use yolo_lat_simd::rgb_of_rgba;

/// Called once, when the module is loaded: tells the console and the page what there is to tell.
#[wasm_bindgen(start)]
pub fn start() {
    notices::install();
}

fn error(error: impl std::fmt::Display) -> JsError {
    JsError::new(&error.to_string())
}

/// What can run in the layers of attention; nothing stands for the model's own.
const KERNELS: [(&str, Option<Mixing>); 6] = [
    ("own", None),
    ("hadamard", Some(Mixing::Linear(KernelKind::HadamardExp))),
    ("sum", Some(Mixing::Linear(KernelKind::SumDistance))),
    ("difference", Some(Mixing::Linear(KernelKind::DiffDistance))),
    ("modulated", Some(Mixing::Linear(KernelKind::ModulatedDot))),
    ("softmax", Some(Mixing::Softmax)),
];

/// A model on an engine.
#[wasm_bindgen]
pub struct Network {
    model: Model,
    runtime: Runtime,
    options: DetectorOptions,
    detector: Detector,
    layers: Vec<AttentionLayer>,
    reason: String,
    /// The last image's bytes as they come, and as the detector sees them: memory for the next one.
    rgba: Vec<u8>,
    image: RgbImage,
    /// Width and height of the last image.
    seen: Option<(u32, u32)>,
}

#[wasm_bindgen]
impl Network {
    /// Of the contents of NAME.toml and NAME.safetensors, which `origin` names in errors. `engine` is "auto", "gpu" or "cpu".
    pub async fn make(
        config: String,
        weights: Vec<u8>,
        origin: String,
        engine: String,
        confidence: Option<f32>,
    ) -> Result<Network, JsError> {
        let config = ModelConfig::parse(&config, &format!("{origin}.toml")).map_err(error)?;
        let origin = format!("{origin}.safetensors");
        let weights = Weights::parse(&weights, &origin).map_err(error)?;
        let model = Model::new(config, weights, &origin).map_err(error)?;
        let (runtime, engine, reason) = choose(&engine).await?;
        let own = model.config.confidence.unwrap_or(yolo_lat::model::config::CONFIDENCE);
        let postprocess = PostprocessOptions { confidence: confidence.unwrap_or(own), ..PostprocessOptions::default() };
        // What WebGPU finds is found without it, too.
        let precision = Some(Precision::F32);
        let options = DetectorOptions { engine, precision, postprocess, ..DetectorOptions::default() };
        let detector = Detector::of_model_async(&model, &runtime, &options).await.map_err(error)?;
        let layers = AttentionLayer::all(&model, &options.attention).map_err(error)?;
        Ok(Self {
            model,
            runtime,
            options,
            detector,
            layers,
            reason,
            rgba: Vec::new(),
            image: RgbImage::default(),
            seen: None,
        })
    }

    /// What runs, for people.
    #[wasm_bindgen(getter)]
    pub fn engine(&self) -> String {
        self.detector.description()
    }

    /// Why it is that engine, for people.
    #[wasm_bindgen(getter)]
    pub fn reason(&self) -> String {
        self.reason.clone()
    }

    /// Names of the classes.
    #[wasm_bindgen(getter)]
    pub fn classes(&self) -> Vec<String> {
        self.detector.classes().to_vec()
    }

    /// Names of the attention's layers, in the order of execution.
    #[wasm_bindgen(getter)]
    pub fn layers(&self) -> Vec<String> {
        self.layers.iter().map(|layer| layer.name.clone()).collect()
    }

    /// Least confidence of what is reported, 0..1.
    #[wasm_bindgen(getter)]
    pub fn confidence(&self) -> f32 {
        self.options.postprocess.confidence
    }

    /// Sets it.
    #[wasm_bindgen(setter)]
    pub fn set_confidence(&mut self, confidence: f32) {
        self.options.postprocess.confidence = confidence;
        self.detector.set_postprocess(self.options.postprocess.clone());
    }

    /// Names of the kernels of attention, the model's own first.
    #[wasm_bindgen(getter)]
    pub fn kernels(&self) -> Vec<String> {
        KERNELS.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    /// Gives all layers of attention the kernel of that name; the weights stay those of the model's own.
    pub async fn replace(&mut self, kernel: String) -> Result<(), JsError> {
        let Some((_, mixing)) = KERNELS.iter().find(|(name, _)| *name == kernel) else {
            let names = KERNELS.map(|(name, _)| name).join(", ");
            return Err(JsError::new(&format!("there is no kernel {kernel:?}: {names}")));
        };
        let replaced =
            mixing.map_or(Vec::new(), |mixing| (0..self.layers.len()).map(|layer| (layer, Some(mixing))).collect());
        let attention = AttentionOptions { replaced, ..self.options.attention.clone() };
        self.layers = AttentionLayer::all(&self.model, &attention).map_err(error)?;
        self.options.attention = attention;
        self.make_anew().await
    }

    async fn make_anew(&mut self) -> Result<(), JsError> {
        self.detector = Detector::of_model_async(&self.model, &self.runtime, &self.options).await.map_err(error)?;
        self.seen = None;
        Ok(())
    }

    /// Reads the queries, keys and values of a layer from now on, which [`Network::look`] needs; of none without a number.
    pub async fn watch(&mut self, layer: Option<usize>) -> Result<(), JsError> {
        if layer.is_some_and(|layer| layer >= self.layers.len()) {
            return Err(JsError::new(&format!("there are {} layers of attention, from 0", self.layers.len())));
        }
        if self.options.attention.watched != layer {
            self.options.attention.watched = layer;
            self.make_anew().await?;
        }
        Ok(())
    }

    /// What is in an image of rows of red, green, blue, anything: six numbers for each object, by falling confidence: class,
    /// confidence, left, top, right and bottom edge in pixels.
    pub async fn detect(&mut self, rgba: Uint8ClampedArray, width: u32, height: u32) -> Result<Vec<f32>, JsError> {
        self.seen = None;
        // Not in the 32 bits of an address: what is too large would wrap around.
        let (length, found) = (4 * u64::from(width) * u64::from(height), rgba.length());
        if u64::from(found) != length {
            return Err(error(format!("an image of {width}x{height} pixels has {length} bytes, not {found}")));
        }
        self.rgba.resize(found as usize, 0);
        rgba.copy_to(&mut self.rgba);
        if self.image.dimensions() != (width, height) {
            self.image = RgbImage::new(width, height);
        }
        rgb_of_rgba(self.rgba.as_chunks().0, self.image.as_chunks_mut().0);
        let (found, _) = self.detector.detect_async(&self.image).await.map_err(error)?;
        self.seen = Some((width, height));
        Ok(found
            .iter()
            .flat_map(|object| {
                let BBox { x1, y1, x2, y2 } = object.bbox;
                [object.class as f32, object.confidence, x1, y1, x2, y2]
            })
            .collect())
    }

    /// What a point of the last image looks at in the watched layer. Nothing where no layer is watched, or no image was seen since.
    pub fn look(&self, x: f32, y: f32) -> Option<Look> {
        let (image, layer) = (self.seen?, self.options.attention.watched?);
        let view = self.detector.look((layer, &self.layers[layer]), image, (x, y))?;
        let letterbox = self.detector.letterbox(image);
        let (width, height) = (letterbox.input.0 as f32, letterbox.input.1 as f32);
        let whole = letterbox.image_from_letterbox(&BBox { x1: 0.0, y1: 0.0, x2: width, y2: height });
        let weights: Vec<f32> = mean_of_heads(&view.weights).into_iter().map(|weight| weight as f32).collect();
        Some(Look { view, area: whole.corners().to_vec(), weights })
    }
}

/// What a point looks at.
#[wasm_bindgen]
pub struct Look {
    view: AttentionView,
    area: Vec<f32>,
    weights: Vec<f32>,
}

#[wasm_bindgen]
impl Look {
    /// Rows and columns of positions, then row and column of the point.
    #[wasm_bindgen(getter)]
    pub fn places(&self) -> Vec<usize> {
        let AttentionView { query, grid, .. } = self.view;
        vec![grid.0, grid.1, query.0, query.1]
    }

    /// Left, top, right and bottom edge of what the positions cover, in pixels of the image: more than the image, since it has a
    /// border in the network's input.
    #[wasm_bindgen(getter)]
    pub fn area(&self) -> Vec<f32> {
        self.area.clone()
    }

    /// The weight of each position, rows first, the mean of all heads; the sum is 1.
    #[wasm_bindgen(getter)]
    pub fn weights(&self) -> Vec<f32> {
        self.weights.clone()
    }

    /// The weights as colours, red, green, blue and opacity of each: the largest is the brightest.
    #[wasm_bindgen(getter)]
    pub fn colours(&self) -> Vec<u8> {
        let most = self.weights.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let colour = |weight: &f32| {
            let share = weight / most;
            let colour = colorous::INFERNO.eval_continuous(f64::from(share));
            [colour.r, colour.g, colour.b, (70.0 + 130.0 * share) as u8]
        };
        self.weights.iter().flat_map(colour).collect()
    }
}

/// What was told since the last time: that a device was lost, for example.
#[wasm_bindgen]
pub fn notices() -> Vec<String> {
    notices::take()
}

/// The engine that is meant, what it runs on, and why.
async fn choose(engine: &str) -> Result<(Runtime, EngineKind, String), JsError> {
    let on = |adapter: Option<&str>| {
        let gpu = GpuOptions { adapter: adapter.map(str::to_owned), ..GpuOptions::default() };
        Runtime::new(RuntimeOptions { gpu, ..RuntimeOptions::default() })
    };
    match engine {
        "cpu" => Ok((on(None), EngineKind::Cpu, "the processor was asked for".into())),
        // Any adapter has a name that contains nothing: a software one will do.
        "gpu" => Ok((on(Some("")), EngineKind::Gpu, "WebGPU was asked for".into())),
        "auto" => {
            let runtime = on(None);
            Ok(match runtime.gpu_async().await {
                Ok(_) => (runtime, EngineKind::Gpu, "this browser has WebGPU".into()),
                Err(why) => (runtime, EngineKind::Cpu, why.to_string()),
            })
        }
        other => Err(JsError::new(&format!("there is no engine {other:?}: auto, gpu or cpu"))),
    }
}
