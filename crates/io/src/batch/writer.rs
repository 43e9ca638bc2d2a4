//! The last stage: exports in the order of the inputs.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use image::RgbImage;

use super::{Ending, Event, Input, Journal, Summary};
use crate::sink::{Item, Record, Sink, SinkError, VideoFrame};
use crate::source::Share;

/// A result on its way from the network to the writer.
pub(super) enum Outcome {
    /// An image, without its pixels where an earlier run has written them; else with their memory.
    Image(Record, Option<(RgbImage, Share)>),
    Frame(Record, RgbImage, VideoTime),
    VideoEnd,
    Failed(String),
}

/// When a frame is seen.
#[derive(Clone, Copy)]
pub(super) struct VideoTime {
    /// From the video's start.
    pub(super) time: Duration,
    /// Of the whole video, if its file says so.
    pub(super) length: Option<Duration>,
}

pub(super) struct Writer<'a> {
    inputs: &'a [Input],
    sinks: Vec<Box<dyn Sink>>,
    journal: Option<Journal>,
    observer: &'a mut (dyn FnMut(Event) + Send),
    fail_fast: bool,
    /// Tells the other stages that nothing more is wanted.
    ended: &'a AtomicBool,
    summary: Summary,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        inputs: &'a [Input],
        sinks: Vec<Box<dyn Sink>>,
        journal: Option<Journal>,
        observer: &'a mut (dyn FnMut(Event) + Send),
        fail_fast: bool,
        ended: &'a AtomicBool,
    ) -> Self {
        let summary = Summary { inputs: inputs.len(), ..Summary::default() };
        Self { inputs, sinks, journal, observer, fail_fast, ended, summary }
    }

    /// Until no more can come, or no more is wanted.
    pub(super) fn run(mut self, outcomes: &Receiver<(usize, Outcome)>) -> Summary {
        for (index, outcome) in outcomes {
            let input = &self.inputs[index];
            match outcome {
                Outcome::Failed(reason) => self.failed(&input.name(), &reason),
                Outcome::Image(record, image) => {
                    let record = Record { image: input.name(), ..record };
                    let pixels = image.as_ref().map(|(pixels, _)| pixels);
                    let item = item(input, &record, &input.stem, None, pixels);
                    if self.write(item) {
                        self.summary.images += 1;
                        self.complete(&record, image.is_some());
                    }
                }
                Outcome::Frame(record, image, time) => {
                    let number = record.frame.unwrap_or_default();
                    let record = Record { image: format!("{}#{number}", input.name()), ..record };
                    let stem = input.stem.join(format!("{number:06}"));
                    if self.write(item(input, &record, &stem, Some(time), Some(&image))) {
                        self.summary.videos += usize::from(number == 0);
                        self.summary.frames += 1;
                    }
                }
                Outcome::VideoEnd => {
                    let ended: Vec<_> = self.sinks.iter_mut().filter_map(|sink| sink.end_video().err()).collect();
                    match ended.first() {
                        Some(error) => self.sink_failed(error),
                        None => (self.observer)(Event::Done),
                    }
                }
            }
            if self.summary.ending != Ending::Complete {
                self.ended.store(true, Ordering::Relaxed);
                break;
            }
        }
        for mut sink in std::mem::take(&mut self.sinks) {
            if let Err(error) = sink.finish() {
                self.sink_failed(&error);
            }
        }
        self.summary
    }

    /// Gives an item to every sink, also after one has failed. Whether all have it.
    fn write(&mut self, item: Item) -> bool {
        let mut sinks = std::mem::take(&mut self.sinks);
        let results: Vec<_> = sinks.iter_mut().filter_map(|sink| sink.write(item).err()).collect();
        self.sinks = sinks;
        // One line an input is enough: mostly the same happened to all.
        if let Some(error) = results.first() {
            self.sink_failed(error);
            return false;
        }
        self.summary.objects += item.record.detections.len();
        true
    }

    /// A video is not resumed in its middle: only images come here.
    fn complete(&mut self, record: &Record, is_new: bool) {
        let appended = self.journal.as_mut().filter(|_| is_new).map_or(Ok(()), |journal| journal.append(record));
        match appended {
            Ok(()) => (self.observer)(Event::Done),
            Err(error) => self.sink_failed(&error),
        }
    }

    /// A reader that went away is no error.
    fn sink_failed(&mut self, error: &SinkError) {
        if error.is_broken_pipe() {
            self.summary.ending = Ending::ReaderGone;
            return;
        }
        // One line is enough to say that there is no room.
        if error.is_disk_full() && self.summary.ending == Ending::DiskFull {
            return;
        }
        let path = error.path.to_string_lossy();
        self.failed(&path, &format!("cannot be written: {}", error.source));
        if error.is_disk_full() {
            self.summary.ending = Ending::DiskFull;
        }
    }

    fn failed(&mut self, name: &str, reason: &str) {
        self.summary.failed += 1;
        (self.observer)(Event::Failed { name, reason });
        if self.fail_fast {
            self.summary.ending = Ending::Failed;
        }
    }
}

fn item<'a>(
    input: &'a Input,
    record: &'a Record,
    stem: &'a Path,
    time: Option<VideoTime>,
    image: Option<&'a RgbImage>,
) -> Item<'a> {
    let video = time.map(|VideoTime { time, length }| VideoFrame { stem: &input.stem, time, length });
    Item { record, path: &input.path, video, stem, image }
}
