//! How long each dispatch of a frame takes.

use std::time::Duration;

use super::{Session, Usage};
use yolo_lat_core::engine::EngineError;
use yolo_lat_core::time::Instant;

/// What times dispatches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The GPU's own time stamps.
    Gpu,
    /// This process's clock, each dispatch submitted and waited for alone: the way there and back counts.
    Wall,
}

/// How long a dispatch took.
#[derive(Clone, Debug)]
pub struct DispatchTime {
    /// Shader and nodes.
    pub name: String,
    /// Start after the frame's first dispatch.
    pub start: Duration,
    /// Its duration.
    pub duration: Duration,
}

/// Times of every dispatch, the letterbox last.
pub(super) enum Timer {
    Gpu(Stamps),
    Wall(Vec<(Duration, Duration)>),
}

/// Two ticks for every dispatch.
pub(super) struct Stamps {
    pub(super) queries: wgpu::QuerySet,
    pub(super) resolved: wgpu::Buffer,
    pub(super) readback: wgpu::Buffer,
    pub(super) count: u32,
}

impl Stamps {
    /// For a pass that holds one dispatch.
    pub(super) fn writes(&self, dispatch: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * dispatch as u32),
            end_of_pass_write_index: Some(2 * dispatch as u32 + 1),
        }
    }
}

impl Session {
    pub(super) fn stamps(&self) -> Option<&Stamps> {
        match &self.timer {
            Some(Timer::Gpu(stamps)) => Some(stamps),
            _ => None,
        }
    }

    /// Submits what was recorded and then every step alone, each waited for; gives an encoder for the rest.
    pub(super) async fn run_one_by_one(
        &mut self,
        letterbox: wgpu::CommandEncoder,
        images: usize,
    ) -> Result<wgpu::CommandEncoder, EngineError> {
        let encoder = || self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let begin = Instant::now();
        let run = async |encoder: wgpu::CommandEncoder| {
            let start = begin.elapsed();
            self.gpu.queue.submit([encoder.finish()]);
            self.submitted().await?;
            Ok::<_, EngineError>((start, begin.elapsed() - start))
        };
        let first = run(letterbox).await?;
        let mut times = Vec::with_capacity(self.plan.steps.len() + 1);
        for step in 0..self.plan.steps.len() {
            let mut encoder = encoder();
            self.record(&mut encoder, step..step + 1, images);
            times.push(run(encoder).await?);
        }
        times.push(first);
        let rest = encoder();
        self.timer = Some(Timer::Wall(times));
        Ok(rest)
    }

    /// Times every dispatch from now on: by the GPU's time stamps where there are any and `wanted` names no other clock.
    pub(crate) async fn start_profile(&mut self, wanted: Option<Clock>) -> Result<Clock, EngineError> {
        if wanted == Some(Clock::Wall) || !self.gpu.has_timestamps() {
            self.timer = Some(Timer::Wall(Vec::new()));
            return Ok(Clock::Wall);
        }
        let count = 2 * (self.plan.steps.len() as u32 + 1);
        let bytes = 8 * u64::from(count);
        self.timer = Some(Timer::Gpu(Stamps {
            queries: self.gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count,
            }),
            resolved: self.gpu.buffer("times", bytes, Usage::QUERY_RESOLVE | Usage::COPY_SRC).await?,
            readback: self.gpu.buffer("times", bytes, Usage::MAP_READ | Usage::COPY_DST).await?,
            count,
        }));
        Ok(Clock::Gpu)
    }

    /// Start and duration of the last frame's dispatches, the letterbox last.
    pub(super) async fn times(&self) -> Result<Vec<(Duration, Duration)>, EngineError> {
        let stamps = match &self.timer {
            None => return Ok(Vec::new()),
            Some(Timer::Wall(times)) => return Ok(times.clone()),
            Some(Timer::Gpu(stamps)) => stamps,
        };
        let view = self.wait_for(&stamps.readback, 8 * u64::from(stamps.count)).await?;
        let ticks: Vec<u64> = bytemuck::cast_slice(&view).to_vec();
        drop(view);
        stamps.readback.unmap();
        let period = f64::from(self.gpu.queue.get_timestamp_period());
        let first = ticks[2 * self.plan.steps.len()];
        let since = |from: u64, to: u64| Duration::from_nanos((to.saturating_sub(from) as f64 * period) as u64);
        Ok(ticks.chunks_exact(2).map(|pair| (since(first, pair[0]), since(pair[0], pair[1]))).collect())
    }

    /// Times of the last frame's dispatches, in order.
    pub(crate) async fn profile(&self) -> Result<Vec<DispatchTime>, EngineError> {
        let times = self.times().await?;
        let steps = self.plan.steps.len();
        let name = |index: usize| match self.plan.steps.get(index) {
            Some(step) => format!("{}: {}", step.shader.name(), step.names.join(" + ")),
            None => "letterbox".to_owned(),
        };
        let time = |index: usize| {
            times.get(index).map(|&(start, duration)| DispatchTime { name: name(index), start, duration })
        };
        Ok(std::iter::once(steps).chain(0..steps).filter_map(time).collect())
    }
}
