//! What the library logs: on the console, and warnings for the page as well.

use std::cell::RefCell;

use log::{Level, LevelFilter, Log, Metadata, Record};
use wasm_bindgen::JsValue;
use web_sys::console;

/// A page that never asks keeps no more.
const MOST: usize = 20;

thread_local! {
    static NOTICES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Console;

impl Log for Console {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= Level::Info && metadata.target().starts_with("yolo_lat")
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        match record.level() {
            Level::Error => console::error_1(&JsValue::from_str(&text)),
            Level::Warn => console::warn_1(&JsValue::from_str(&text)),
            _ => console::debug_1(&JsValue::from_str(&text)),
        }
        if record.level() <= Level::Warn {
            NOTICES.with_borrow_mut(|notices| {
                notices.truncate(MOST - 1);
                notices.push(text);
            });
        }
    }

    fn flush(&self) {}
}

/// Takes what is logged, and says of a panic where it was before the module stops.
pub(crate) fn install() {
    if log::set_logger(&Console).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    std::panic::set_hook(Box::new(|panic| console::error_1(&JsValue::from_str(&panic.to_string()))));
}

/// Warnings since the last call, the oldest first.
pub(crate) fn take() -> Vec<String> {
    NOTICES.take()
}
