//! Frames on the window's GPU: uploaded once, shown and looked at.

use std::sync::Arc;

use eframe::egui;
use eframe::egui_wgpu::Renderer;
use image::RgbImage;

use yolo_lat::engine::gpu::Gpu;

/// A texture that egui knows.
struct Slot {
    texture: Arc<wgpu::Texture>,
    id: egui::TextureId,
    size: (u32, u32),
}

/// Textures that take turns: none is written while the worker still reads it.
pub(super) struct ImagePool {
    gpu: Arc<Gpu>,
    renderer: Arc<egui::mutex::RwLock<Renderer>>,
    slots: Vec<Slot>,
    shown: Option<usize>,
    /// Room for the conversion, kept from frame to frame.
    rgba: Vec<u8>,
}

impl ImagePool {
    pub(super) fn new(gpu: Arc<Gpu>, renderer: Arc<egui::mutex::RwLock<Renderer>>) -> Self {
        Self { gpu, renderer, slots: Vec::new(), shown: None, rgba: Vec::new() }
    }

    /// Brings an image to the GPU; if `shows`, it is the one that is shown from now on.
    pub(super) fn upload(&mut self, image: &RgbImage, shows: bool) -> Arc<wgpu::Texture> {
        let size = image.dimensions();
        if self.slots.first().is_some_and(|slot| slot.size != size) {
            let mut renderer = self.renderer.write();
            self.slots.drain(..).for_each(|slot| renderer.free_texture(&slot.id));
            self.shown = None;
        }
        self.rgba.clear();
        self.rgba
            .extend(image.as_raw().as_chunks::<3>().0.iter().flat_map(|&[red, green, blue]| [red, green, blue, 255]));
        let free = |(index, slot): (usize, &Slot)| {
            (Some(index) != self.shown && Arc::strong_count(&slot.texture) == 1).then_some(index)
        };
        let index = self.slots.iter().enumerate().find_map(free).unwrap_or_else(|| {
            let texture = Arc::new(self.gpu.image_texture(size));
            let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
            let id = self.renderer.write().register_native_texture(self.gpu.device(), &view, wgpu::FilterMode::Linear);
            self.slots.push(Slot { texture, id, size });
            self.slots.len() - 1
        });
        self.gpu.write_texture(&self.slots[index].texture, size, &self.rgba);
        if shows {
            self.shown = Some(index);
        }
        self.slots[index].texture.clone()
    }

    /// The image that is shown.
    pub(super) fn shown(&self) -> Option<egui::TextureId> {
        self.shown.map(|index| self.slots[index].id)
    }
}
